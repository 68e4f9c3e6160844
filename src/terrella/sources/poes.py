"""POES/MetOp SEM-2 particle files, ``poes_<sc>_<yyyymmdd>_proc.nc`` from NOAA/NCEI.

Only the variables asked for are read, straight from HDF5: a file whose global attributes are
damaged is read all the same, with a warning, as long as its variables are whole.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from terrella import files
from terrella.sources.base import check_file, check_time, iso, no_data
from terrella.steps.clean import carry_forward
from terrella.types import Job, Opening, Record, Refusal, Refused, Variable

FLUX = {f"e{e}_{a}": f"mep_ele_tel{a}_flux_e{e}" for e in range(1, 5) for a in (0, 90)}
NAMES = {**FLUX, "L": "L_IGRF", "MLT": "MLT", "lat": "lat", "lon": "lon", "ifc": "mep_IFC_on"}
TRUTH = "truth_class"  # written by the simulator only
SATELLITES = {2: "n16", 4: "n15", 6: "n17", 7: "n18", 8: "n19", 11: "m01", 12: "m02", 13: "m03"}
CADENCE = 2.0  # s
LIMITS = {"lat": (-90.0, 90.0), "lon": (-180.0, 360.0), "MLT": (-0.01, 24.01)}
Reader = Callable[[str], np.ndarray]


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


@dataclass(frozen=True)
class PoesSource:
    """Files of one satellite in order of time, read across their seams.

    Attributes:
        files: sorted, not overlapping by more than a seam.
        core: the file that must be readable; a damaged neighbour is left out with a warning. All
            must be readable if None.
    """

    files: tuple[PoesFile, ...]
    core: PoesFile | None = None

    def fetch(
        self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
    ) -> Record:
        """See ``Source.fetch``; samples that two files share are taken from ``core``, or the first.

        Raises:
            NoData: no file touches the span.
            Refused: a file is damaged or lacks a variable.
        """
        touching = [f for f in self.files if f.start < stop and f.stop > start]
        parts = []
        for file in touching:
            try:
                parts.append((file, read(file, variables, start, stop)))
            except Refused as refusal:
                if self.core in (None, file):
                    raise
                warnings.warn(f"left out at the seam: {refusal}", stacklevel=2)
        record = _merge([p for p in parts if len(p[1]["time"])], self.core)
        if record is None:
            has = ", ".join(f"{f.path.name} {iso(f.start)} to {iso(f.stop)}" for f in self.files)
            raise no_data("POES files", start, stop, has or "no files")
        return _label(record, variables, self.files[0].satellite)


def open_archive(paths: Iterable[Path], join_days: bool) -> Opening:
    """Sort files by satellite and time into one job a file.

    Args:
        paths: files in any order.
        join_days: read across seams, so that an event over midnight is one event.

    Returns:
        Jobs in order, and the files that cannot be used.
    """
    known: list[PoesFile] = []
    refused: list[Refusal] = []
    for path in dict.fromkeys(paths):
        try:
            known.append(inspect(path))
        except Refused as refusal:
            refused.append(Refusal(str(path), str(refusal)))
    known.sort(key=lambda f: (f.satellite, f.start, f.path.name))
    jobs: list[Job] = []
    for satellite in sorted({f.satellite for f in known}):
        own: list[PoesFile] = []
        for file in (f for f in known if f.satellite == satellite):
            if own and file.start < own[-1].stop - (own[-1].stop - own[-1].start) // 2:
                why = f"{file.path}: covers the same time as {own[-1].path}; give one of them"
                refused.append(Refusal(str(file.path), why))
            else:
                own.append(file)
        for k, file in enumerate(own):
            near = tuple(own[max(k - 1, 0) : k + 2]) if join_days else (file,)
            source = PoesSource(near, core=file)
            jobs.append(Job(file.path.stem, source, file.start, file.stop, (file.path,)))
    return Opening(tuple(jobs), tuple(refused))


def inspect(path: Path) -> PoesFile:
    """Look up a file's satellite and span.

    Raises:
        Refused: not a SEM-2 file, damaged, or its time is not usable.
    """
    with _reader(path) as read_one:
        time = _time(read_one, path)
        code = _optional(read_one, "satID")
    check_time(time, str(path))
    named = re.search(r"(?:^|_)([nm]\d\d)_", path.name)
    by_code = SATELLITES.get(int(code[0])) if code is not None and len(code) else None
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
            values = _optional(read_one, name)
            if values is None and variable.required:
                raise Refused(
                    f"{file.path}: has no variable {name} ({variable.long_name}); "
                    "a SEM-2 _proc.nc file is needed"
                )
            if values is not None:
                out[variable.name] = _checked(values, name, time, file.path)
    if "ifc" in out:
        out["ifc"] = carry_forward(out["ifc"], out["ifc"] >= 0, 0)
    fluxes = [v for k, v in out.items() if k in FLUX]
    if fluxes and all((v < 0).all() for v in fluxes):
        raise Refused(f"{file.path}: every flux is a fill value; there is nothing to classify")
    keep = slice(*np.searchsorted(time, [start, stop]))
    return {"time": time[keep], **{k: v[keep] for k, v in out.items()}}


def write(record: Record, path: Path, satellite: str = "n18") -> Path:
    """Write a record in the SEM-2 layout, as the archive does (IFC in one record of 16).

    Raises:
        Refused: the folder cannot be written.
    """
    time = record["L"]["time"].to_numpy().astype("datetime64[ms]").astype("i8").astype("u8")
    codes = {v: k for k, v in SATELLITES.items()}
    with files.whole(path) as scratch, h5py.File(scratch, "w") as file:
        file.attrs["title"] = "SIMULATED POES/MetOp SEM-2 data, made by terrella"
        _put(file, "time", time, "milliseconds since 1970", "time")
        _put(file, "satID", np.full(len(time), codes.get(satellite, 0), "u1"), "satellite", "ID")
        for name, there in NAMES.items():
            values = record[name].to_numpy()
            if name == "ifc":
                values = np.where(np.arange(len(time)) % 16 == 6, values, -1).astype("i1")
            units = {"MLT": "hours", "ifc": "on/off"}.get(name, record[name].attrs["units"])
            _put(file, there, values, record[name].attrs.get("long_name", name), units)
        if "truth" in record:
            _put(file, TRUTH, record["truth"].to_numpy(), "0 none, 1 REP, 2 CSS", "1")
    return path


def _put(file: h5py.File, name: str, values: np.ndarray, long_name: str, units: str) -> None:
    # Byte strings of fixed length, as in the archive.
    made = file.create_dataset(name, data=values, chunks=True, compression="gzip", shuffle=True)
    made.attrs["long_name"], made.attrs["units"] = np.bytes_(long_name), np.bytes_(units)


@contextlib.contextmanager
def _reader(path: Path) -> Iterator[Reader]:
    """Yield a function that reads one variable by name, whatever the state of the attributes."""
    check_file(path)
    with path.open("rb") as stream:
        magic = stream.read(8)
    if magic[:4] in (b"CDF\x01", b"CDF\x02"):
        yield from _classic(path)
        return
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
        yield lambda name: file[name][()]


def _classic(path: Path) -> Iterator[Reader]:
    from scipy.io import netcdf_file

    try:
        file = netcdf_file(path, "r", mmap=False)
    except Exception as error:  # scipy parses without guarding
        raise Refused(f"{path}: is truncated or damaged ({_short(error)}); get it again") from None
    yield lambda name: file.variables[name][:].copy()


def _optional(read_one: Reader, name: str) -> np.ndarray | None:
    try:
        return np.asarray(read_one(name))
    except KeyError as error:
        # h5py reports a damaged object, too, as a KeyError, with other words.
        if "doesn't exist" in str(error) or name in error.args:
            return None
        raise Refused(f"variable {name} is damaged ({_short(error)}); get the file again") from None
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise Refused(f"variable {name} is damaged ({_short(error)}); get the file again") from None


def _time(read_one: Reader, path: Path) -> np.ndarray:
    raw = _optional(read_one, "time")
    if raw is None:
        raise Refused(f"{path}: has no variable time; a SEM-2 _proc.nc file is needed")
    if raw.ndim != 1 or raw.dtype.kind not in "iuf" or len(raw) == 0:
        raise Refused(f"{path}: time is not a series of milliseconds; a SEM-2 file is needed")
    # The archive stores it unsigned: differences are taken only after this cast. A fill or a
    # wrapped value lands far outside the years that check_time allows.
    wild = (
        (raw.astype(float) < -3e13) | (raw.astype(float) > 3e13) | ~np.isfinite(raw.astype(float))
    )
    whole = np.where(wild, 0, raw).astype("i8").astype("datetime64[ms]").astype("datetime64[ns]")
    return np.where(wild, np.datetime64("NaT", "ns"), whole)


def _checked(values: np.ndarray, name: str, time: np.ndarray, path: Path) -> np.ndarray:
    if values.shape != time.shape or values.dtype.kind not in "iuf":
        raise Refused(f"{path}: {name} has shape {values.shape}, time has {time.shape}")
    if values.dtype.kind == "f" and (bad := ~np.isfinite(values)).any():
        raise Refused(
            f"{path}: {name} is not a number in {int(bad.sum())} samples, first at "
            f"{int(np.argmax(bad))}; fills must be -999"
        )
    lo, hi = LIMITS.get({v: k for k, v in NAMES.items()}.get(name, ""), (-np.inf, np.inf))
    if ((values < lo) | (values > hi)).any():
        k = int(np.argmax((values < lo) | (values > hi)))
        raise Refused(f"{path}: {name} is {values[k]} at sample {k}, outside {lo:g}..{hi:g}")
    return values.astype(values.dtype.newbyteorder("="))


def _merge(
    parts: list[tuple[PoesFile, dict[str, np.ndarray]]], core: PoesFile | None
) -> dict[str, np.ndarray] | None:
    """Join files in order of time; where two overlap, ``core`` or else the earlier one counts."""
    if not parts:
        return None
    spans = [(p["time"][0], p["time"][-1]) for _, p in parts]
    cut = []
    for k, (file, part) in enumerate(parts):
        keep = np.ones(len(part["time"]), bool)
        if k and file != core:
            keep &= part["time"] > spans[k - 1][1]
        if k + 1 < len(parts) and parts[k + 1][0] == core:
            keep &= part["time"] < spans[k + 1][0]
        cut.append({n: v[keep] for n, v in part.items()})
    shared = set.intersection(*(set(p) for p in cut))
    return {n: np.concatenate([p[n] for p in cut]) for n in cut[0] if n in shared}


def _label(raw: dict[str, np.ndarray], variables: Sequence[Variable], satellite: str) -> Record:
    time: Any = ("time", raw["time"])
    return {
        v.name: xr.DataArray(
            raw[v.name],
            coords={"time": time},
            dims="time",
            attrs={"units": v.units, "long_name": v.long_name, "satellite": satellite},
        )
        for v in variables
        if v.name in raw
    }


def _short(error: Exception) -> str:
    return str(error).strip("'\"").splitlines()[0][:80] if str(error) else type(error).__name__
