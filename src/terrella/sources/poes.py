"""POES/MetOp SEM-2 particle files, ``poes_<sc>_<yyyymmdd>_proc.nc`` from NOAA/NCEI.

Many files of one satellite are read across their seams; ``sem2`` reads one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from terrella import files
from terrella.sources.base import iso, no_data
from terrella.sources.sem2 import FIRST, NAMES, SATELLITES, TRUTH, PoesFile, inspect, read
from terrella.types import Job, Opening, Record, Refusal, Refused, Variable

__all__ = ["PoesFile", "PoesSource", "inspect", "open_archive", "write"]


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

    def narrow(self, start: np.datetime64, stop: np.datetime64) -> PoesSource:
        """The files that [start, stop) touches."""
        touching = tuple(f for f in self.files if f.start < stop and f.stop > start)
        return PoesSource(touching, self.core)


def open_archive(paths: Iterable[Path], join_days: bool) -> Opening:
    """Sort files by satellite and time into one job a file.

    Args:
        paths: files, or folders of them, in any order.
        join_days: read across seams, so that an event over midnight is one event.

    Returns:
        Jobs in order, and the files that cannot be used.
    """
    known: list[PoesFile] = []
    refused: list[Refusal] = []
    for path in dict.fromkeys(p for each in paths for p in files.under(each, "*.nc")):
        try:
            known.append(inspect(path))
        except Refused as refusal:
            refused.append(Refusal(str(path), str(refusal)))
    known.sort(key=lambda f: (f.satellite, f.start, f.path.name))
    jobs: list[Job] = []
    for satellite in sorted({f.satellite for f in known}):
        own: list[PoesFile] = []
        for file in (f for f in known if f.satellite == satellite):
            half = own[-1].start + (own[-1].stop - own[-1].start) // 2 if own else FIRST
            if own and (file.start < half or file.stop <= own[-1].stop):
                why = f"{file.path}: covers the same time as {own[-1].path}; give one of them"
                refused.append(Refusal(str(file.path), why))
            else:
                own.append(file)
        for k, file in enumerate(own):
            near = tuple(own[max(k - 1, 0) : k + 2]) if join_days else (file,)
            source = PoesSource(near, core=file)
            # What two files share belongs to the first, so that no event is listed twice.
            start = max(file.start, own[k - 1].stop) if join_days and k else file.start
            jobs.append(Job(file.path.stem, source, start, file.stop, (file.path,)))
    return Opening(tuple(jobs), tuple(refused))


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
