"""Index and orbit files, or a grid, as the jobs of a run; and a scene back into such files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from terrella import files
from terrella.sources.base import instant, no_data
from terrella.sources.geomagnetic import by_minute, merge
from terrella.tasks.ech.features import REACH_MINUTES
from terrella.tasks.ech.places import Grid, parse_grid, read_orbit
from terrella.tasks.ech.task import STATED_GRID, Options
from terrella.types import Job, NoData, Opening, Record, Refused, Variable

MINUTE = np.timedelta64(60_000_000_000, "ns")
REACH = REACH_MINUTES * MINUTE
POINTS_A_JOB = 2_000_000  # points of one piece of a map: what is held in memory at once
ROWS_A_JOB = 50_000
LONGEST = 43_200  # minutes: beyond a month no longer bridge makes the margin any wider


@dataclass(frozen=True)
class Places:
    """A source: indices in memory and the places asked for, along an orbit or on a grid.

    Attributes:
        record: ``SME`` and ``SYM_H`` (time,).
        orbit: places (time,) and what was seen there, or None for a grid.
        grid: text of the grid, for a map.
        every: step between instants of a map; of an orbit, the least step (0 keeps all).
        anchor: instant that the steps count from.
        margin: minutes of indices fetched on either side, for ``prepare``.
    """

    record: Record
    orbit: Record | None
    grid: str
    every: np.timedelta64
    anchor: np.datetime64
    margin: int = 6

    def fetch(self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
              ) -> Record:  # fmt: skip
        """Indices over [start, stop) and places over [start + 48 h, stop): those with a history.

        The indices come with a margin, so that a value held over an edge, or a gap bridged across
        it, is the same wherever the span begins and ends. Their attrs ``begins`` and ``ends`` tell
        what the files hold.
        """
        first = start.astype("datetime64[ns]") + REACH
        found = {n: self.record[n] for n in ("SME", "SYM_H")}
        more = self.margin * MINUTE
        found = {
            n: _cut(s, start - more, stop + more).assign_attrs(
                begins=str(s["time"].values[0]), ends=str(s["time"].values[-1])
            )
            for n, s in found.items()
        }
        if self.orbit is None:
            return found | _spread(parse_grid(self.grid), self.grid, self._instants(first, stop))
        along = {n: _cut(s, first, stop) for n, s in self.orbit.items()}
        time = along["L"]["time"].values
        if len(time) == 0:
            whole = self.orbit["L"]["time"].values
            raise no_data("orbit", first, stop, f"{str(whole[0])[:16]} to {str(whole[-1])[:16]}")
        if self.every > np.timedelta64(0):
            slot = (time - self.anchor) // self.every
            keep = np.append(True, np.diff(slot) > 0)
            along = {n: s[keep] for n, s in along.items()}
        return found | along

    def narrow(self, start: np.datetime64, stop: np.datetime64) -> Places:
        """The minutes and places that [start, stop) touches, in arrays of their own."""
        more = self.margin * MINUTE
        near = {n: _cut(s, start - more, stop + more).copy() for n, s in self.record.items()}
        orbit = self.orbit and {n: _cut(s, start, stop).copy() for n, s in self.orbit.items()}
        return replace(self, record=near, orbit=orbit)

    def _instants(self, first: np.datetime64, stop: np.datetime64) -> NDArray[np.datetime64]:
        skip = max(int(-((self.anchor - first) // self.every)), 0)
        start = self.anchor + skip * self.every
        if start < first:
            start += self.every
        time = np.arange(start, stop, self.every)
        if len(time) == 0:
            raise NoData(f"no instant between {first} and {stop} at steps of {self.every}")
        return time


def _cut(series: xr.DataArray, start: np.datetime64, stop: np.datetime64) -> xr.DataArray:
    time = series["time"].values
    return series[(time >= start) & (time < stop)]


def margin_of(record: Record, options: Options) -> int:
    """Minutes beyond a span that may touch it: the longest bridge, or the hold of one value."""
    cadence = max(float(record[n].attrs.get("cadence", 60)) / 60 for n in ("SME", "SYM_H"))
    return int(np.ceil(max(min(options.bridge, LONGEST), cadence, 5))) + 1


def _spread(grid: Grid, text: str, time: NDArray[np.datetime64]) -> Record:
    """The grid's points at every instant, as views of one copy."""
    out = {}
    for name, value, unit in zip(
        ("L", "MLT", "MLAT"), grid.points(), ("1", "h", "degrees"), strict=True
    ):
        still = np.broadcast_to(value, (len(time), len(value)))
        out[name] = xr.DataArray(still, {"time": time}, ("time", "place"), name,
                                 {"units": unit, "grid": text})  # fmt: skip
    return out


def open_files(paths: Iterable[Path], options: Options) -> Opening:
    """Jobs of a run: one stem for a grid (in pieces that fit memory), one for each orbit file.

    Orbit files are told by their columns and may stand among the inputs.

    Raises:
        Refused: an index file cannot be used, or an index is missing altogether.
    """
    given = [Path(p) for p in paths]
    orbits = [Path(options.orbit)] if options.orbit else []
    orbits += [p for p in given if p not in orbits and _is_orbit(p)]
    lists = [p for p in given if p not in orbits]
    if not 0 <= options.threshold <= 1 or not options.bridge >= 0:
        raise Refused("--threshold is a probability, 0 to 1, and --bridge minutes, 0 or more")
    if not lists:
        raise Refused(
            "no index file given: ech needs SME (or AE) and SYM-H, one-minute or five-minute"
        )
    shape = parse_grid(options.grid or STATED_GRID).shape
    every = step_of(options.every)
    columns = tuple(c.strip() for c in options.columns.split(",") if c.strip())
    origin = instant(options.origin, "--origin") if options.origin else None
    record = merge(lists, columns, origin)
    for series in record.values():  # a wrong cadence is refused before anything is computed
        by_minute(series[:2], series["time"].values[0], 1, options.bridge, options.hourly)
    margin = margin_of(record, options)
    first = max(s["time"].values[0] for s in record.values())
    last = min(s["time"].values[-1] for s in record.values())
    if orbits:
        return _orbit_jobs(orbits, lists, record, options, first, last)
    grid = options.grid or STATED_GRID
    if options.at:
        moment = instant(options.at, "--at")
        single = Places(record, None, grid, MINUTE, moment, margin)
        return Opening(
            (Job(_stem(lists[0]) + "_map", single, moment, moment + MINUTE, tuple(given)),)
        )
    rows = int(np.clip(POINTS_A_JOB // int(np.prod(shape)), 1, 1440))
    anchor = first.astype("datetime64[D]").astype("datetime64[ns]")
    begin = anchor + (-((anchor - (first + REACH)) // every)) * every
    if begin > last:
        raise Refused(
            f"{', '.join(p.name for p in lists)}: the indices run from {str(first)[:16]} to "
            f"{str(last)[:16]}, too short for the 48 h of history that any instant needs"
        )
    source = Places(record, None, grid, every, anchor, margin)
    edges = [*np.arange(begin, last, rows * every), last + MINUTE]
    stem = _stem(lists[0]) + "_map"
    jobs = [Job(stem, source, a, b, tuple(given)) for a, b in pairwise(edges)]
    return Opening(tuple(jobs))


def _orbit_jobs(orbits: list[Path], lists: list[Path], record: Record, options: Options,
                first: np.datetime64, last: np.datetime64) -> Opening:  # fmt: skip
    jobs = []
    every = step_of(options.every) if options.every != Options.every else np.timedelta64(0, "ns")
    for path in orbits:
        along = read_orbit(path, options.frame)
        time = along["L"]["time"].values
        inside = (time >= first + REACH) & (time <= last)
        if not inside.any():
            raise Refused(
                f"{path}: runs from {str(time[0])[:16]} to {str(time[-1])[:16]}, the indices serve "
                f"{str(first + REACH)[:16]} to {str(last)[:16]} (48 h after they begin)"
            )
        known = np.isfinite([along[n].values[inside] for n in ("L", "MLT", "MLAT")])
        if not known.all(0).any():
            lacking = [n for n, k in zip(("L", "MLT", "MLAT"), known, strict=True) if not k.any()]
            raise Refused(
                f"{path}: no place is known where the indices serve it; "
                f"{' and '.join(lacking) or 'L, MLT or MLAT'} is missing in every row"
            )
        anchor = time[0].astype("datetime64[D]").astype("datetime64[ns]")
        source = Places(record, along, "", every, anchor, margin_of(record, options))
        span = time[inside]
        cuts = [*span[::ROWS_A_JOB], span[-1] + np.timedelta64(1, "ns")]
        jobs += [Job(_stem(path), source, a, b, (*lists, path)) for a, b in pairwise(cuts)]
    return Opening(tuple(jobs))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def _is_orbit(path: Path) -> bool:
    """Whether a file names places (L and MLT, or X, Y and Z) rather than indices."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(4096)
    if head[:4] in (b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02"):
        names = _cdf_names(path)
    else:
        lines = [x for x in head.decode("latin-1").splitlines() if x and not x.startswith("#")]
        names = lines[0].split(",") if lines else []
    plain = {re.sub(r"[^a-z]", "", n.lower()) for n in names}
    index = {"symh", "sme", "aeindex", "ae", "symhnt", "sment"}
    places = any(n.startswith(("mlt", "mlat", "lshell", "lstar")) for n in plain) or (
        sum(n.startswith(a) for a in "xyz" for n in plain) >= 3
    )
    return places and not plain & index


def _cdf_names(path: Path) -> list[str]:
    import cdflib

    try:
        return list(cdflib.CDF(path).cdf_info().zVariables)
    except Exception:  # a damaged CDF is named by the reader that needs it
        return []


def step_of(text: str) -> np.timedelta64:
    """A step as ``10min``, ``1h`` or ``30s``.

    Raises:
        Refused: not a positive time step.
    """
    try:
        step = pd.Timedelta(text)
    except ValueError:
        step = pd.Timedelta(0)
    if not step > pd.Timedelta(0):
        raise Refused(f"--every {text!r} is no time step; write it as 10min")
    return np.timedelta64(step.value, "ns")


def export(record: Record, path: Path) -> list[Path]:
    """Write a scene as the files a user has: an index CSV and one orbit CSV a probe."""
    base = path.with_suffix("") if path.suffix in (".csv", ".nc") else path
    written = [base.with_name(base.name + ".csv")]
    table = pd.DataFrame({"Date_UTC": record["SME"]["time"].values, "SME": record["SME"].values,
                          "SYM_H": record["SYM_H"].values})  # fmt: skip
    with files.whole(written[0]) as scratch:
        table.to_csv(scratch, index=False, lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%S")
    names = [n for n in ("L", "MLT", "MLAT", "occurrence", "amplitude") if n in record]
    values = {n: record[n].values.reshape(len(record[n]), -1) for n in names}
    for k in range(values["L"].shape[1]):
        frame = pd.DataFrame({"time": record["L"]["time"].values})
        for name in names:
            frame[{"MLAT": "MLAT_deg", "amplitude": "amplitude_dB"}.get(name, name)] = values[name][
                :, k
            ]
        if "storm" in record:
            frame["storm"] = record["storm"].values
        written.append(base.with_name(f"{base.name}_probe{k + 1}.csv"))
        with files.whole(written[-1]) as scratch:
            frame.to_csv(scratch, index=False, lineterminator="\n", float_format="%.5f",
                         date_format="%Y-%m-%dT%H:%M:%S")  # fmt: skip
    return written
