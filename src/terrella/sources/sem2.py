"""One SEM-2 file: whose it is, when, and its variables as numbers.

Variables are read straight from HDF5 (or NetCDF-3), only those asked for: a file whose global
attributes are damaged is read all the same, with a warning, as long as its variables are whole.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from terrella.sources.base import check_file, check_time, iso
from terrella.steps.clean import breaks, carry_forward
from terrella.types import Refused, Variable

FLUX = {f"e{e}_{a}": f"mep_ele_tel{a}_flux_e{e}" for e in range(1, 5) for a in (0, 90)}
NAMES = {**FLUX, "L": "L_IGRF", "MLT": "MLT", "lat": "lat", "lon": "lon", "ifc": "mep_IFC_on"}
TRUTH = "truth_class"  # written by the simulator only
SATELLITES = {2: "n16", 4: "n15", 6: "n17", 7: "n18", 8: "n19", 11: "m01", 12: "m02", 13: "m03"}
CADENCE = 2.0  # s
LIMITS = {"lat": (-90.0, 90.0), "lon": (-180.0, 360.0), "MLT": (-0.01, 24.01)}
FILL = -999.0
FIRST = np.datetime64("1978-10-13", "ns")  # TIROS-N, the first satellite with this instrument
UNITS = {"ms": 1.0, "milliseconds": 1.0, "millisec": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3,
         "minutes": 6e4, "hours": 3.6e6, "days": 8.64e7}  # fmt: skip
PACKING = (("scale_factor", 1.0), ("add_offset", 0.0))
Reader = Callable[[str], tuple[np.ndarray, dict[str, Any]]]


@dataclass(frozen=True)
class PoesFile:
    """One file, looked into far enough to know whose it is and when.

    Attributes:
        path: where it lies.
        satellite: n15, n18, n19, m01, m02, m03 ...
        time: (samples,) datetime64[ns].
    """

    path: Path
    satellite: str
    start: np.datetime64
    stop: np.datetime64
    samples: int


def inspect(path: str | Path) -> PoesFile:
    """Look up a file's satellite and span.

    Raises:
        Refused: not a SEM-2 file, damaged, or its time is not usable.
    """
    path = Path(path)
    with _reader(path) as read_one:
        time = _time(read_one, path)
        by_code = _satellite(read_one, path)
    named = re.search(r"(?:^|_)([nm]\d\d)_", path.name)
    satellite = named.group(1) if named else by_code or "unknown"
    if named and by_code and by_code != satellite:
        warnings.warn(
            f"{path.name}: its name says {satellite}, its satID says {by_code}; the name is used",
            stacklevel=2,
        )
    end = time[-1] + np.timedelta64(1, "ms")
    return PoesFile(path, satellite, time[0], end, len(time))


def read(
    file: PoesFile, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
) -> dict[str, np.ndarray]:
    """Read the samples of one file in [start, stop).

    Returns:
        Arrays by name, ``time`` among them. Fluxes keep their fills (-999). ``ifc`` is carried
        forward: it is given in one record of 16.

    Raises:
        Refused: a variable is missing, damaged, of another length, or not a number.
    """
    wanted = [v for v in variables if v.name in NAMES or v.name == "truth"]
    out: dict[str, np.ndarray] = {}
    with _reader(file.path) as read_one:
        time = _time(read_one, file.path)
        for variable in wanted:
            name = NAMES.get(variable.name, TRUTH)
            values = _optional(read_one, name, file.path)
            if values is None and variable.required:
                raise Refused(
                    f"{file.path}: has no variable {name} ({variable.long_name}); "
                    "a SEM-2 _proc.nc file is needed"
                )
            if values is not None:
                out[variable.name] = _checked(values, name, time, file.path)
    if "ifc" in out:
        out["ifc"] = carry_forward(out["ifc"], out["ifc"] >= 0, 0, breaks(time, CADENCE))
    for name in {"L", *LIMITS} & out.keys():
        out[name] = _place(out[name], name)
    fluxes = [v for k, v in out.items() if k in FLUX]
    if fluxes and all((v < 0).all() for v in fluxes):
        raise Refused(f"{file.path}: every flux is a fill value; there is nothing to classify")
    keep = slice(*np.searchsorted(time, [start, stop]))
    return {"time": time[keep], **{k: v[keep] for k, v in out.items()}}


@contextlib.contextmanager
def _reader(path: Path) -> Iterator[Reader]:
    """Yield a function that reads one variable by name, whatever the state of the attributes."""
    check_file(path)
    with path.open("rb") as stream:
        magic = stream.read(8)
    if magic[:4] in (b"CDF\x01", b"CDF\x02"):
        yield from _classic(path)
        return
    if magic[:4] == b"CDF\x05":
        raise Refused(f"{path}: is NetCDF of the CDF-5 kind; convert it with `nccopy -k nc4`")
    if magic != b"\x89HDF\r\n\x1a\n":
        raise Refused(f"{path}: is not a NetCDF file; a SEM-2 _proc.nc file is needed")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise Refused(f"{path}: is truncated or damaged ({_short(error)}); get it again") from None
    with file:
        try:
            for name in file.attrs:
                file.attrs[name]
        except Exception as error:  # h5py raises whatever the damage happens to touch
            warnings.warn(
                f"{path.name}: its global attributes are damaged ({_short(error)}); "
                "the variables are read without them",
                stacklevel=4,
            )

        def read_one(name: str) -> tuple[np.ndarray, dict[str, Any]]:
            found = file[name]
            if not isinstance(found, h5py.Dataset):
                raise TypeError("it is a group")
            return np.asarray(found[()]), _attributes(found)

        yield read_one


def _attributes(found: Any) -> dict[str, Any]:
    """Those attributes of a variable that matter for reading it, as far as they can be read."""
    kept: dict[str, Any] = {}
    for name in ("units", "long_name", "scale_factor", "add_offset", "_FillValue"):
        with contextlib.suppress(Exception):  # damage may lie anywhere
            value = found.attrs[name] if hasattr(found, "attrs") else getattr(found, name)
            kept[name] = value.decode("latin1") if isinstance(value, bytes) else value
    return kept


def _classic(path: Path) -> Iterator[Reader]:
    from scipy.io import netcdf_file

    try:
        file = netcdf_file(path, "r", mmap=False)
    except Exception as error:  # scipy parses without guarding
        raise Refused(f"{path}: is truncated or damaged ({_short(error)}); get it again") from None

    def read_one(name: str) -> tuple[np.ndarray, dict[str, Any]]:
        return file.variables[name][:].copy(), _attributes(file.variables[name])

    yield read_one


def _optional(read_one: Reader, name: str, path: Path) -> np.ndarray | None:
    """A variable as numbers: packing undone, its own fill value replaced by -999."""
    try:
        values, attributes = read_one(name)
    except KeyError as error:
        # h5py reports a damaged object, too, as a KeyError, with other words.
        if "doesn't exist" in str(error) or name in error.args:
            return None
        raise _damaged(path, name, error) from None
    except (OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise _damaged(path, name, error) from None
    if values.dtype.kind not in "iuf":
        return values
    try:
        scale, offset = (float(attributes.get(k, d)) for k, d in PACKING)
        fill = float(attributes["_FillValue"]) if "_FillValue" in attributes else None
    except (TypeError, ValueError) as error:
        raise _damaged(path, name, error) from None
    packed = (scale, offset) != (1.0, 0.0)
    empty = None if fill is None else (values == fill if fill == fill else np.isnan(values))
    if packed:
        values = (values.astype(float) * scale + offset).astype(np.float32)
    if empty is not None and empty.any() and values.dtype.kind == "f":
        values = np.where(empty, np.asarray(FILL, values.dtype), values)
    return values


def _damaged(path: Path, name: str, error: Exception) -> Refused:
    return Refused(f"{path}: variable {name} is damaged ({_short(error)}); get the file again")


def _satellite(read_one: Reader, path: Path) -> str | None:
    """The satellite by its code; None if that is missing, unknown or not readable."""
    try:
        code = _optional(read_one, "satID", path)
    except Refused as refusal:
        warnings.warn(f"{refusal}; the file's name must tell the satellite", stacklevel=3)
        return None
    if code is None or code.dtype.kind not in "iu":
        return None
    return next((SATELLITES[int(c)] for c in np.unique(code) if int(c) in SATELLITES), None)


def _time(read_one: Reader, path: Path) -> np.ndarray:
    """Times of a file, checked: they increase, about every 2 s, within the years of SEM-2."""
    attributes: dict[str, Any] = {}

    def once(name: str) -> tuple[np.ndarray, dict[str, Any]]:
        values, told = read_one(name)
        attributes.update(told)
        return values, told

    raw = _optional(once, "time", path)
    if raw is None:
        raise Refused(f"{path}: has no variable time; a SEM-2 _proc.nc file is needed")
    if raw.ndim != 1 or raw.dtype.kind not in "iuf":
        raise Refused(f"{path}: time is not a series of milliseconds; a SEM-2 file is needed")
    if len(raw) == 0:
        raise Refused(f"{path}: holds no records")
    unit, origin = _clock(attributes)
    # The archive stores it unsigned: differences are taken only after this cast. A fill or a
    # wrapped value lands far outside the years that check_time allows.
    ms = raw.astype(float) * unit
    wild = ~(np.abs(ms) < 3e13)
    exact = raw if unit == 1.0 else ms
    whole = np.where(wild, 0, exact).astype("i8").astype("m8[ms]") + origin
    time = np.where(wild, np.datetime64("NaT", "ns"), whole.astype("M8[ns]"))
    check_time(time, str(path))
    step = float(np.median(np.diff(time) / np.timedelta64(1, "ms"))) / 1e3 if len(time) > 1 else 2.0
    if not 0.5 * CADENCE < step < 2 * CADENCE:
        raise Refused(f"{path}: samples are {step:g} s apart, SEM-2 has 2 s; check units of time")
    if time[0] < FIRST:
        raise Refused(f"{path}: begins {iso(time[0])}, before any SEM-2; check units of time")
    return time


def _clock(attributes: dict[str, Any]) -> tuple[float, np.datetime64]:
    """Milliseconds of the unit and the origin; the archive's own where nothing else is said."""
    origin = np.datetime64("1970-01-01", "ms")
    for name in ("units", "long_name"):
        said = re.match(r"\s*(\w+) since (\d{4}(?:-\d\d-\d\d)?)", str(attributes.get(name, "")))
        if said and said.group(1).lower() in UNITS:
            return UNITS[said.group(1).lower()], np.datetime64(said.group(2)).astype("M8[ms]")
    return 1.0, origin


def _place(values: np.ndarray, name: str) -> np.ndarray:
    """Undefined places: NaN, and -1 for L as the archive has it."""
    values = values.astype(np.float32)
    unknown = np.isnan(values) | (values == FILL)
    if name == "MLT":
        unknown |= values == -1.0
    return np.where(unknown, np.float32(-1.0 if name == "L" else np.nan), values)


def _checked(values: np.ndarray, name: str, time: np.ndarray, path: Path) -> np.ndarray:
    if values.shape != time.shape or values.dtype.kind not in "iuf":
        raise Refused(f"{path}: {name} has shape {values.shape}, time has {time.shape}")
    known = {v: k for k, v in NAMES.items()}.get(name, "")
    flux = known in FLUX
    if flux and values.dtype.kind == "f" and (bad := ~np.isfinite(values)).any():
        raise Refused(
            f"{path}: {name} is not a number in {int(bad.sum())} samples, first at "
            f"{int(np.argmax(bad))}; fills must be -999"
        )
    lo, hi = LIMITS.get(known, (-np.inf, np.inf))
    outside = ((values < lo) | (values > hi)) & (values != FILL)
    if known == "MLT":
        outside &= values != -1.0
    if outside.any():
        k = int(np.argmax(outside))
        raise Refused(f"{path}: {name} is {values[k]} at sample {k}, outside {lo:g}..{hi:g}")
    return values.astype(values.dtype.newbyteorder("="))


def _short(error: Exception) -> str:
    return str(error).strip("'\"").splitlines()[0][:80] if str(error) else type(error).__name__
