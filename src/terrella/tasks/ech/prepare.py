"""From indices and places to the rows a network sees; training and running share it."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from terrella.sources.geomagnetic import by_minute
from terrella.tasks.ech.features import (
    FAST_STEPS,
    HOURLY_STEPS,
    history_features,
    place_features,
)
from terrella.tasks.ech.inputs import MINUTE, REACH, margin_of
from terrella.tasks.ech.task import Options, Recipe
from terrella.types import Record, Refused, Windows

ACTIVE = -50.0  # nT of SYM-H at the instant, below which it is a storm
DAYS_A_BLOCK = 9  # stands for a storm where nobody labelled storms


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
        observation is in the record; groups ``storm``; extra ``flag`` and ``activity`` (rows,),
        ``threshold``, and where simulated ``true_probability`` and ``true_mean`` (rows, points).

    Raises:
        Refused: no instant has a whole history; says which index lacks what.
    """
    time = record["L"]["time"].values.astype("datetime64[ns]")
    first = min(time[0].astype("datetime64[m]"), time[-1].astype("datetime64[m]")) - REACH
    margin = margin_of(record, options)  # a gap may be bridged across either edge
    first = first.astype("datetime64[ns]") - margin * MINUTE
    minutes = int((time.max() - first) // MINUTE) + 1 + margin
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
    storm = histories["symh_fast"][:, -1] < ACTIVE
    x = {k: torch.from_numpy(np.nan_to_num(v).astype(np.float32)) for k, v in histories.items()}
    return Windows(
        x={**x, "place": place},
        time=time,
        valid=whole & known,
        groups={"storm": _storms(record, time)},
        y=y,
        extra={"flag": flag, "whole": whole, **extra,
               "activity": np.where(storm, f"SYM-H < {ACTIVE:g} nT", f"SYM-H >= {ACTIVE:g} nT"),
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
    truth = {f"true_{n}": v for n, v in seen.items() if n in ("probability", "mean")}
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
    oldest = instant_ - REACH
    for name, (value, _) in series.items():
        where = f"{record[name].attrs.get('source')}: {name}"
        begins, ends = _extent(record[name])
        hold = np.timedelta64(int(float(record[name].attrs["cadence"])), "s")
        if ends + hold <= instant_:
            return (
                f"{where} ends at {str(ends)[:16]}, but {str(instant_)[:16]} needs its history up "
                "to that instant; give a later file"
            )
        if begins > oldest:
            return (
                f"{where} begins {str(begins)[:16]}, but {str(instant_)[:16]} needs its history "
                f"from {str(oldest)[:16]} on (48 h); give an earlier file"
            )
        for what, steps in (("5 h", FAST_STEPS), ("48 h", HOURLY_STEPS)):
            lost = np.flatnonzero(np.isnan(value[at[0] + steps]))
            if len(lost):
                k = int(at[0] + steps[lost[-1]])
                known = np.flatnonzero(~np.isnan(value))
                lo = known[known < k].max(initial=-1) + 1
                hi = known[known > k].min(initial=len(value))
                return (
                    f"{where} has a gap of {hi - lo} min from "
                    f"{str(first + lo * MINUTE)[:16]}, in the last {what} before "
                    f"{str(instant_)[:16]}; up to {options.bridge:g} min are bridged (--bridge)"
                )
    return f"no instant from {str(instant_)[:16]} on has a whole history"


def _extent(series: xr.DataArray) -> tuple[np.datetime64, np.datetime64]:
    """First and last time in the files, or, of a record made in memory, in the series."""
    have = series["time"].values
    begins, ends = (series.attrs.get(k) or have[e] for k, e in (("begins", 0), ("ends", -1)))
    return np.datetime64(begins, "ns"), np.datetime64(ends, "ns")
