"""From index files and places to the rows a network sees; training and running share it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from terrella import files
from terrella.sources.base import instant, no_data
from terrella.sources.geomagnetic import by_minute, merge
from terrella.tasks.ech.features import (
    FAST_STEPS,
    HOURLY_STEPS,
    REACH_MINUTES,
    history_features,
    place_features,
)
from terrella.tasks.ech.places import Grid, parse_grid, read_orbit
from terrella.tasks.ech.task import STATED_GRID, Options, Recipe
from terrella.types import Job, NoData, Opening, Record, Refused, Variable, Windows

MINUTE = np.timedelta64(60_000_000_000, "ns")
REACH = REACH_MINUTES * MINUTE
POINTS_A_JOB = 2_000_000  # points of one piece of a map: what is held in memory at once
ROWS_A_JOB = 50_000
DAYS_A_BLOCK = 9  # stands for a storm where nobody labelled storms


@dataclass(frozen=True)
class Places:
    """A source: indices in memory and the places asked for, along an orbit or on a grid.

    Attributes:
        record: ``SME`` and ``SYM_H`` (time,).
        orbit: places (time,) and what was seen there, or None for a grid.
        grid: text of the grid, for a map.
        every: step between instants of a map; of an orbit, the least step (0 keeps all).
        anchor: instant that the steps count from.
    """

    record: Record
    orbit: Record | None
    grid: str
    every: np.timedelta64
    anchor: np.datetime64

    def fetch(self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
              ) -> Record:  # fmt: skip
        """Indices over [start, stop) and places over [start + 48 h, stop): those with a history."""
        first = start.astype("datetime64[ns]") + REACH
        found = {n: self.record[n] for n in ("SME", "SYM_H")}
        found = {n: _cut(s, start, stop) for n, s in found.items()}
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
    first = max(s["time"].values[0] for s in record.values())
    last = min(s["time"].values[-1] for s in record.values())
    if orbits:
        return _orbit_jobs(orbits, lists, record, options, first, last)
    grid = options.grid or STATED_GRID
    if options.at:
        moment = instant(options.at, "--at")
        single = Places(record, None, grid, MINUTE, moment)
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
    source = Places(record, None, grid, every, anchor)
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
        anchor = time[0].astype("datetime64[D]").astype("datetime64[ns]")
        source = Places(record, along, "", every, anchor)
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


def reach(recipe: Recipe, options: Options) -> tuple[np.timedelta64, np.timedelta64]:
    """Histories reach 48 h back and end at the instant."""
    return REACH, np.timedelta64(0, "ns")


def prepare(record: Record, recipe: Recipe, options: Options) -> Windows:
    """Histories and places of every instant.

    Args:
        record: ``SME``, ``SYM_H`` (time,) nT; ``L``, ``MLT``, ``MLAT`` (rows,) or (rows, points).
        recipe: of the weights. options: bridge, hourly, threshold.

    Returns:
        x: four histories (rows, 49 or 61) nT and ``place`` (rows, points, 4); y where truth or
        observation is in the record; groups ``storm``; extra ``flag`` (rows,), ``threshold``.

    Raises:
        Refused: no instant has a whole history; says which index lacks what.
    """
    time = record["L"]["time"].values.astype("datetime64[ns]")
    first = min(time[0].astype("datetime64[m]"), time[-1].astype("datetime64[m]")) - REACH
    first = first.astype("datetime64[ns]")
    minutes = int((time.max() - first) // MINUTE) + 1
    series = {
        n: by_minute(record[n], first, minutes, options.bridge, options.hourly)
        for n in ("SME", "SYM_H")
    }
    at = ((time - first) // MINUTE).astype(np.int64)
    histories = history_features(series["SME"][0], series["SYM_H"][0], at)
    whole = np.ones(len(time), bool)
    for value in histories.values():
        whole &= np.isfinite(value).all(1)
    if not whole.any():
        raise Refused(_why(series, record, first, at, options))
    flag = np.zeros(len(time), np.uint8)
    for _, flags in series.values():
        for steps in (HOURLY_STEPS, FAST_STEPS):
            flag |= np.bitwise_or.reduce(flags[at[:, None] + steps], axis=1)
    place, known = _places(record)
    y, extra = _targets(record)
    x = {k: torch.from_numpy(np.nan_to_num(v).astype(np.float32)) for k, v in histories.items()}
    return Windows(
        x={**x, "place": place},
        time=time,
        valid=whole & known,
        groups={"storm": _storms(record, time)},
        y=y,
        extra={"flag": flag, "whole": whole, **extra,
               "threshold": 0.0 if options.amplitude_everywhere else options.threshold},
    )  # fmt: skip


def _places(record: Record) -> tuple[torch.Tensor, NDArray[np.bool_]]:
    parts = [record[n].values for n in ("L", "MLT", "MLAT")]
    rows = len(parts[0])
    if parts[0].ndim == 2 and parts[0].strides[0] == 0:
        one = torch.from_numpy(place_features(*(p[0] for p in parts)).astype(np.float32))
        return one.unsqueeze(0).expand(rows, -1, -1), np.ones(rows, bool)
    features = place_features(*(p.reshape(rows, -1) for p in parts))
    known: NDArray[np.bool_] = np.asarray(np.isfinite(features).all((1, 2)))
    return torch.from_numpy(np.nan_to_num(features).astype(np.float32)), known


def _targets(
    record: Record,
) -> tuple[dict[str, torch.Tensor] | None, dict[str, NDArray[np.floating]]]:
    seen: dict[str, NDArray[np.floating]] = {
        n: record[n].values.reshape(len(record[n]), -1)
        for n in ("occurrence", "amplitude", "probability", "mean")
        if n in record
    }
    if "amplitude" in seen and "occurrence" not in seen:
        seen["occurrence"] = np.isfinite(seen["amplitude"]).astype(float)
    truth = {n: v for n, v in seen.items() if n in ("probability", "mean")}
    if "occurrence" not in seen:
        return None, truth
    missing = np.full_like(seen["occurrence"], np.nan)
    return {
        "occurrence": torch.from_numpy(seen["occurrence"].astype(np.float32)),
        "amplitude": torch.from_numpy(seen.get("amplitude", missing).astype(np.float32)),
    }, truth


def _storms(record: Record, time: NDArray[np.datetime64]) -> NDArray[np.str_]:
    source = record["SME"].attrs.get("source", "")
    if "storm" in record:
        label = record["storm"].values.astype(np.int64)
    else:
        label = (time - np.datetime64("1957-01-01", "ns")) // np.timedelta64(DAYS_A_BLOCK, "D")
    return np.array([f"{source}:{k}" for k in label])


def _why(series: dict[str, tuple[NDArray[np.floating], NDArray[np.uint8]]], record: Record,
         first: np.datetime64, at: NDArray[np.int64], options: Options) -> str:  # fmt: skip
    """One line on why the first instant has no whole history."""
    instant_ = first + at[0] * MINUTE
    for name, (value, _) in series.items():
        have = record[name]["time"].values
        if len(have) == 0 or have[0] > first + 5 * MINUTE:
            begin = f"begins {str(have[0])[:16]}" if len(have) else "has no values there"
            return (
                f"{record[name].attrs.get('source')}: {name} {begin}, but {str(instant_)[:16]} "
                f"needs its history from {str(first)[:16]} on (48 h); give an earlier file"
            )
        for what, steps in (("5 h", FAST_STEPS), ("48 h", HOURLY_STEPS)):
            lost = np.flatnonzero(np.isnan(value[at[0] + steps]))
            if len(lost):
                k = int(at[0] + steps[lost[-1]])
                known = np.flatnonzero(~np.isnan(value))
                lo = known[known < k].max(initial=-1) + 1
                hi = known[known > k].min(initial=len(value))
                return (
                    f"{record[name].attrs.get('source')}: {name} has a gap of {hi - lo} min from "
                    f"{str(first + lo * MINUTE)[:16]}, in the last {what} before "
                    f"{str(instant_)[:16]}; up to {options.bridge:g} min are bridged (--bridge)"
                )
    return f"no instant from {str(instant_)[:16]} on has a whole history"


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
