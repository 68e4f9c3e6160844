"""Where to look: a grid in L, MLT and MLAT, or an orbit file."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from terrella.types import Refused

Floats = NDArray[np.floating]

EARTH = 6371.2  # km, the radius that geomagnetic coordinates use
FRAMES = ("GEO", "GSM", "GSE", "SM", "MAG")
LARGEST_L = 20.0
RADIANS = 0.6  # an orbit or a map that never leaves +-0.6 deg was most likely meant in radians
FEW = 10  # rows below which that cannot be told
NAMES = {
    "L": ("l", "lshell", "lstar", "lm", "ldipole", "mcilwainl", "ligrf"),
    "MLT": ("mlt", "mlth", "mlthours", "edmagmlt", "cdmagmlt"),
    "MLAT": ("mlat", "mlatdeg", "mlatdegrees", "maglat", "edmagmlat", "cdmagmlat", "mlatrad"),
    "occurrence": ("occurrence", "wave", "ech"),
    "amplitude": ("amplitude", "amplitudedb", "echdb", "power", "powerdb"),
    "storm": ("storm", "block"),
}
CLOCKS = ("time", "epoch", "datetime", "dateutc", "utc", "timestamp")
UNITS = {
    "L": "1",
    "MLT": "h",
    "MLAT": "degrees",
    "occurrence": "1",
    "amplitude": "dB",
    "storm": "1",
}


@dataclass(frozen=True)
class Grid:
    """Axes of a map: L (R_E), MLT (h), MLAT (deg), each (n,) and rising."""

    L: Floats
    MLT: Floats
    MLAT: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        """Lengths of the axes."""
        return len(self.L), len(self.MLT), len(self.MLAT)

    def points(self) -> tuple[Floats, Floats, Floats]:
        """L, MLT and MLAT of every point, (n,) each, MLAT fastest."""
        mesh = np.meshgrid(self.L, self.MLT, self.MLAT, indexing="ij")
        return mesh[0].ravel(), mesh[1].ravel(), mesh[2].ravel()


def parse_grid(text: str) -> Grid:
    """Read ``L=1.5:7:0.1,MLT=0:24:0.5,MLAT=-20:20:2`` (first:last:step, last included).

    A single value stands for itself; MLAT may be left out for the equator; MLT = 24 is MLT = 0 and
    is dropped when both are there.

    Raises:
        Refused: an axis is missing, unknown, unreadable or outside its range.
    """
    axes: dict[str, Floats] = {"MLAT": np.zeros(1)}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, span = part.partition("=")
        name = {"l": "L", "mlt": "MLT", "mlat": "MLAT"}.get(name.strip().lower(), "")
        if not name:
            raise Refused(f"--grid: {part!r} names no axis; use L=, MLT= and MLAT=")
        axes[name] = _axis(name, span)
    for name in ("L", "MLT"):
        if name not in axes:
            raise Refused(f"--grid {text!r}: {name} is missing, as in {name}=" +
                          ("1.5:7:0.1" if name == "L" else "0:24:0.5"))  # fmt: skip
    check(axes["L"], axes["MLT"], axes["MLAT"], "--grid", at_least=1)
    mlt = axes["MLT"]
    if len(mlt) > 1 and mlt[0] == 0 and mlt[-1] == 24:
        axes["MLT"] = mlt[:-1]
    return Grid(axes["L"], axes["MLT"], axes["MLAT"])


def _axis(name: str, span: str) -> Floats:
    try:
        first, *rest = (float(v) for v in span.split(":"))
    except ValueError:
        first, rest = np.nan, []
    last, step = (rest + [first, 1.0][len(rest) :])[:2] if len(rest) < 3 else (np.nan, np.nan)
    if not np.isfinite([first, last, step]).all() or step <= 0 or last < first:
        raise Refused(
            f"--grid: {name}={span!r} is not first:last:step with first <= last, step > 0"
        )
    count = int(np.floor((last - first) / step + 1e-6)) + 1
    if count > 100_000:
        raise Refused(f"--grid: {name}={span!r} has {count} values; take a larger step")
    return np.round(first + step * np.arange(count), 9)


def check(L: Floats, MLT: Floats, MLAT: Floats, where: str, at_least: int = FEW,
          degrees: bool = False) -> None:  # fmt: skip
    """Refuse places that cannot be, or that are most likely in the wrong unit.

    Args:
        L: R_E. MLT: h. MLAT: deg. NaN is let through.
        where: what to name in the message.
        at_least: rows needed before MLAT is suspected to be in radians.
        degrees: MLAT is stated to be in degrees.

    Raises:
        Refused: L below 1, MLT outside 0..24, MLAT beyond 90 deg or in radians.
    """
    with np.errstate(invalid="ignore"):
        bad = {
            "L": (
                (L < 1) | (L > LARGEST_L),
                L,
                f"is outside 1..{LARGEST_L:g}; L is in Earth radii",
            ),
            "MLT": ((MLT < 0) | (MLT > 24), MLT, "is outside 0..24 hours"),
            "MLAT": (np.abs(MLAT) > 90, MLAT, "is beyond 90 degrees"),
        }
    for name, (wrong, value, why) in bad.items():
        at = np.flatnonzero(wrong)
        if len(at):
            row = f" (row {at[0] + 1})" if len(value) > 1 else ""
            raise Refused(f"{where}: {name} = {value[at[0]]:g}{row} {why}")
    largest = np.nanmax(np.abs(MLAT)) if np.isfinite(MLAT).any() else 0.0
    if not degrees and len(MLAT) >= at_least and 0 < largest <= RADIANS:
        raise Refused(
            f"{where}: MLAT stays within +-{largest:.3g}, which looks like radians; give degrees"
            + ("" if where == "--grid" else " (name the column MLAT_deg if they are)")
        )


def read_orbit(path: Path, frame: str = "") -> dict[str, xr.DataArray]:
    """Read places along an orbit, and what was seen there if the file says so.

    Args:
        path: CSV or CDF with a time and either L, MLT, MLAT or Cartesian X, Y, Z (R_E or km).
        frame: GEO, GSM, GSE, SM or MAG for X, Y, Z whose names do not say.

    Returns:
        ``L``, ``MLT``, ``MLAT``; ``occurrence``, ``amplitude``, ``storm`` where given: (time,).

    Raises:
        Refused: no such file, no such columns, or places that cannot be.
    """
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    head = path.read_bytes()[:4]
    cdf = head in (b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02")
    time, columns = _cdf_columns(path) if cdf else _csv_columns(path)
    if len(time) == 0 or np.isnat(time).any() or (np.diff(time) < np.timedelta64(0)).any():
        raise Refused(f"{path}: its times are empty, unreadable or run backwards; sort it by time")
    found: dict[str, Floats] = {}
    stated = False
    for name, known in NAMES.items():
        for column, values in columns.items():
            plain = re.sub(r"[^a-z]", "", column.lower())
            if plain in known and name not in found:
                found[name] = np.where((values < -900) | (np.abs(values) > 1e29), np.nan, values)
                stated |= name == "MLAT" and "deg" in plain
                if name == "MLAT" and plain.endswith("rad"):
                    raise Refused(f"{path}: {column} is in radians; give MLAT in degrees")
    if not {"L", "MLT", "MLAT"} <= set(found):
        found |= _from_cartesian(path, time, columns, frame)
        stated = True
    check(found["L"], found["MLT"], found["MLAT"], str(path), degrees=stated)
    keep = np.append(True, np.diff(time) > np.timedelta64(0))
    return {
        n: xr.DataArray(v[keep], {"time": time[keep]}, "time", n, {"units": UNITS[n]})
        for n, v in found.items()
    }


def _csv_columns(path: Path) -> tuple[NDArray[np.datetime64], dict[str, Floats]]:
    try:
        frame = pd.read_csv(path, comment="#", skipinitialspace=True)
        plain = {re.sub(r"[^a-z]", "", str(c).lower()): c for c in reversed(frame.columns)}
        clock = next((plain[k] for k in CLOCKS if k in plain), None)
        if clock is None:
            raise Refused(f"{path}: has no time column (time, Epoch, Date_UTC ...)")
        parsed = pd.to_datetime(frame[clock].astype(str), utc=True, format="ISO8601")
        time = parsed.dt.tz_localize(None).to_numpy("datetime64[ns]")
        columns = {
            str(c): frame[c].to_numpy(float)
            for c in frame.columns
            if c != clock and pd.api.types.is_numeric_dtype(frame[c])
        }
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError, OverflowError) as error:
        raise Refused(
            f"{path}: cannot be read as an orbit CSV ({str(error).splitlines()[0][:120]})"
        ) from None
    return time, columns


def _cdf_columns(path: Path) -> tuple[NDArray[np.datetime64], dict[str, Floats]]:
    import cdflib

    try:
        file = cdflib.CDF(path)
        clock = next(v for v in file.cdf_info().zVariables if v.lower() in ("epoch", "time"))
        time = cdflib.cdfepoch.to_datetime(file.varget(clock)).astype("datetime64[ns]")
        columns: dict[str, Floats] = {}
        for name in file.cdf_info().zVariables:
            value = np.asarray(file.varget(name))
            if value.dtype.kind not in "fiu" or value.shape[:1] != time.shape or name == clock:
                continue
            if value.ndim == 1:
                columns[name] = value.astype(float)
            elif value.ndim == 2 and value.shape[1] == 3:  # a position vector
                columns |= {f"{a}_{name}": value[:, k].astype(float) for k, a in enumerate("xyz")}
    except Exception as error:  # cdflib raises many kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused(f"{path}: cannot be read as an orbit CDF ({reason[:120]})") from None
    return time, columns


def _from_cartesian(path: Path, time: NDArray[np.datetime64], columns: dict[str, Floats],
                    frame: str) -> dict[str, Floats]:  # fmt: skip
    said = "|".join(FRAMES).lower()
    axes: dict[str, Floats] = {}
    for column, values in columns.items():
        plain = re.sub(r"[^a-z]", "", column.lower())
        match = re.match(
            rf"^(?:pos|position|r)?([xyz])(?:pos|position|r)?({said})?(km|re)?$", plain
        ) or (re.match(rf"^({said})([xyz])(km|re)?$", plain))
        if match:
            axis = next(g for g in match.groups() if g in ("x", "y", "z"))
            frame = frame or next(
                (g.upper() for g in match.groups() if g and g in said.split("|")), ""
            )
            axes[axis] = values / EARTH if "km" in match.groups() else values
    if set(axes) != {"x", "y", "z"}:
        raise Refused(
            f"{path}: needs columns L, MLT and MLAT, or X, Y and Z; it has "
            f"{', '.join(columns) or 'no numbers'}"
        )
    if frame.upper() not in FRAMES:
        raise Refused(f"{path}: in which frame are X, Y, Z? say --frame {'|'.join(FRAMES)}")
    xyz = np.stack([axes[a] for a in "xyz"], -1)
    if np.nanmedian(np.linalg.norm(xyz, axis=-1)) > 60:  # no orbit of ours is that many radii out
        xyz = xyz / EARTH
    return magnetic(time, xyz, frame.upper())


def magnetic(time: NDArray[np.datetime64], xyz: Floats, frame: str) -> dict[str, Floats]:
    """Dipole L, MLT and MLAT of Cartesian places, through geopack's coordinate systems.

    Args:
        time: (n,). xyz: (n, 3) R_E. frame: GEO, GSM, GSE, SM or MAG.

    Returns:
        ``L`` = r / cos^2 MLAT, ``MLT`` (h) and ``MLAT`` (deg) in solar-magnetic coordinates.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it announces its coefficients
        from geopack import geopack

    sm = np.empty_like(xyz)
    seconds = time.astype("datetime64[ms]").astype(np.int64) / 1e3
    for k, (second, place) in enumerate(zip(seconds, xyz, strict=True)):
        geopack.recalc(second)
        sm[k] = _to_sm(geopack, place, frame)
    radius = np.linalg.norm(sm, axis=-1)
    lat = np.arcsin(np.clip(sm[:, 2] / radius, -1, 1))
    mlt = (12 + np.degrees(np.arctan2(sm[:, 1], sm[:, 0])) / 15) % 24
    return {"L": radius / np.cos(lat) ** 2, "MLT": mlt, "MLAT": np.degrees(lat)}


def _to_sm(geopack: Any, place: Floats, frame: str) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in place)
    if frame == "MAG":
        found = geopack.magsm(x, y, z, 1)
    elif frame == "SM":
        found = x, y, z
    else:
        if frame == "GEO":
            x, y, z = geopack.geogsm(x, y, z, 1)
        elif frame == "GSE":
            x, y, z = geopack.gsmgse(x, y, z, -1)
        found = geopack.smgsm(x, y, z, -1)
    return found[0], found[1], found[2]
