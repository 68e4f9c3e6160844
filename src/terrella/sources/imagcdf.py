"""ImagCDF (INTERMAGNET's CDF profile, versions 1.x), through ``cdflib``.

Format: https://tech-man.intermagnet.org/stable/appendices/imagcdfformat.html
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from terrella.sources.magnetogram import Magnetogram
from terrella.types import Refused

_PREFIX = "GeomagneticField"
#: What one unit of the file is in ours.
_UNITS = {
    "nt": ("nT", 1.0), "nanotesla": ("nT", 1.0),
    "degrees of arc": ("arcmin", 60.0), "degrees": ("arcmin", 60.0), "degree": ("arcmin", 60.0),
    "deg": ("arcmin", 60.0), "minutes of arc": ("arcmin", 1.0), "arcmin": ("arcmin", 1.0),
}  # fmt: skip


def sniff(data: bytes) -> bool:
    """Whether bytes begin as a CDF file, version 3 or 2.6."""
    return data[:4] in (b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02")


def _first(value: Any) -> Any:
    while isinstance(value, list | np.ndarray) and len(value):
        value = value[0]
    return value


def _element(cdf: Any, name: str, where: str) -> tuple[np.ndarray, str, str]:
    """Samples in nT or arc-minutes, unit, and the name of the time variable of one element."""
    attributes = cdf.varattsget(name)
    unit = str(_first(attributes.get("UNITS", "nT"))).strip()
    if unit.lower() not in _UNITS:
        raise Refused(f"{where}: {name} has unit {unit!r}; nT or degrees are known")
    ours, factor = _UNITS[unit.lower()]
    raw = np.asarray(cdf.varget(name), np.float64).ravel()
    fill = float(_first(attributes.get("FILLVAL", 99999.0)))
    bad = (raw == fill) | (raw >= 99999.0) | ~np.isfinite(raw)
    clock = str(_first(attributes.get("DEPEND_0", "GeomagneticVectorTimes")))
    return np.where(bad, np.nan, raw * factor), ours, clock


def parse(data: bytes, where: str = "bytes") -> Magnetogram:
    """Read ImagCDF bytes.

    Args:
        data: the file's bytes.
        where: file name for messages.

    Returns:
        A Magnetogram of the vector elements, nT, D and I in arc-minutes.

    Raises:
        Refused: damaged, not ImagCDF, unknown unit, no vector elements.
    """
    import cdflib

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.cdf"
        path.write_bytes(data)
        try:
            cdf = cdflib.CDF(str(path))
            info = cdf.cdf_info()
            names = [*info.zVariables, *info.rVariables]
            elements = [n for n in names if n.startswith(_PREFIX) and len(n) == len(_PREFIX) + 1]
            if not elements:
                raise Refused(f"{where}: a CDF file without {_PREFIX}<element>: not ImagCDF")
            found = {n[-1]: _element(cdf, n, where) for n in elements if n[-1] not in "SG"}
            clock = next(c for e, (_, _, c) in found.items() if e != "F")
            if clock not in names:
                raise Refused(f"{where}: time variable {clock} is missing")
            time = cdflib.cdfepoch.to_datetime(cdf.varget(clock))
            attributes = cdf.globalattsget()
        except Refused:
            raise
        except Exception as error:  # cdflib raises whatever its byte offsets lead to
            words = " ".join(str(error).split())[:80]
            raise Refused(f"{where}: damaged CDF ({type(error).__name__}: {words})") from None
    time = np.asarray(time, "datetime64[ns]").ravel()
    # The scalar F may be on a clock of its own; it is no part of H, D, Z.
    same = {e: v for e, v in found.items() if v[2] == clock and len(v[0]) == len(time)}
    steps = np.diff(time[:10_000].astype(np.int64))
    return Magnetogram(
        station=str(_first(attributes.get("IagaCode", ""))).upper(),
        time=time,
        values={e: v[0] for e, v in same.items()},
        units={e: v[1] for e, v in same.items()},
        cadence=float(np.median(steps)) / 1e9 if len(steps) else float("nan"),
        latitude=float(_first(attributes.get("Latitude", "nan"))),
        longitude=float(_first(attributes.get("Longitude", "nan"))),
        format="ImagCDF",
    )
