"""What labelled samples add up to: segments, energy per region, agreement among probes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import xarray as xr

    from terrella.tasks.reconnection.derive import Crossing

Array = np.ndarray
BUDGET = ("je_prime", "je_prime_par", "je_prime_perp", "je_prime_ion", "je_prime_electron", "je")
SCALE = {
    "b0": ("lobe field that normalises", "nT"),
    "n0": ("density that normalises", "cm-3"),
    "b0_error": ("relative standard error of b0", "1"),
    "n0_error": ("relative standard error of n0", "1"),
    "b0_seen": ("lobe field estimated from the data", "nT"),
    "n0_seen": ("sheet density estimated from the data", "cm-3"),
}
ENERGY = ("je_prime", "je_prime_par", "je_prime_perp", "je")  # in the table of segments


def agreement(time: Array, probe: Array, region: Array) -> Array:
    """Share of the other probes that are in the same region at the same moment.

    Args:
        time: (rows,) probe after probe.
        probe: (rows,) number of the probe.
        region: (rows,) class, -1 for none.

    Returns:
        (rows,) 0..1 float32; NaN where the row has no class, or no other probe has one within
        30 ms.
    """
    same, known = np.zeros(len(time)), np.zeros(len(time))
    for mine in np.unique(probe):
        rows = np.flatnonzero(probe == mine)
        for other in np.unique(probe):
            if other == mine:
                continue
            theirs = np.flatnonzero(probe == other)
            near = theirs[nearest(time[theirs], time[rows])]
            close = np.abs(time[near] - time[rows]) <= np.timedelta64(30, "ms")
            both = close & (region[near] >= 0) & (region[rows] >= 0)
            known[rows] += both
            same[rows] += both & (region[near] == region[rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known > 0, same / known, np.nan).astype(np.float32)


def nearest(time: Array, wanted: Array) -> Array:
    """Index of the sample of ``time`` nearest to each instant wanted."""
    right = np.clip(np.searchsorted(time, wanted), 1, max(len(time) - 1, 1))
    right = np.minimum(right, len(time) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(wanted - time[left] <= time[right] - wanted, left, right)


def segments_table(
    series: xr.Dataset, names: tuple[str, ...], segment: Array, options: Any
) -> pd.DataFrame:
    """Unbroken stretches of one region, after smoothing the probabilities in time."""
    rows: list[dict[str, Any]] = []
    for probe in np.unique(series["probe"].values):
        where = np.flatnonzero(series["probe"].values == probe)
        time = series["time"].values[where]
        step = np.median(np.diff(time)) if len(time) > 1 else np.timedelta64(30, "ms")
        width = max(
            1, round(options.smooth / (float(step.astype("timedelta64[ns]").astype(int)) / 1e9))
        )
        region = smoothed(
            series["probability"].values[where], series["region"].values[where] >= 0,
            segment[where], width,
        )  # fmt: skip
        changes = np.flatnonzero((np.diff(region) != 0) | (np.diff(segment[where]) != 0)) + 1
        for lo, hi in pairwise([0, *changes.tolist(), len(region)]):
            start, stop = time[lo] - step / 2, time[hi - 1] + step / 2
            seconds = float((stop - start) / np.timedelta64(1, "s"))
            if region[lo] < 0 or seconds < options.shortest:
                continue
            inside = where[lo:hi]
            row = {
                "probe": int(probe), "region": int(region[lo]), "label": names[region[lo]],
                "start": str(start.astype("datetime64[ms]")),
                "stop": str(stop.astype("datetime64[ms]")),
                "duration_s": round(seconds, 3),
                "confidence": _nanmean(series["confidence"].values[inside]),
            }  # fmt: skip
            for term in ENERGY:
                row[f"{term}_nW_m3"] = (
                    _nanmean(series[term].values[inside]) if term in series else np.nan
                )
            if "agreement" in series:
                row["agreement"] = _nanmean(series["agreement"].values[inside])
            rows.append(row)
    columns = ["probe", "region", "label", "start", "stop", "duration_s", "confidence"]
    columns += [f"{term}_nW_m3" for term in ENERGY]
    columns += ["agreement"] if "agreement" in series else []
    return pd.DataFrame(rows, columns=columns)


def smoothed(probability: Array, labelled: Array, segment: Array, width: int) -> Array:
    """Class of the running mean of the probabilities, within unbroken stretches.

    Args:
        probability: (rows, classes), NaN where there is none.
        labelled: (rows,) False where a sample has no class; it gets none here either.
        segment: (rows,) number of the unbroken stretch.
        width: rows of the running mean; made odd.

    Returns:
        (rows,) int, -1 for none.
    """
    half = max(width, 1) // 2
    rows = np.arange(len(segment))
    lo = np.maximum(rows - half, np.searchsorted(segment, segment, "left"))
    hi = np.minimum(rows + half + 1, np.searchsorted(segment, segment, "right"))
    known = np.where(labelled[:, None], np.nan_to_num(probability), 0.0)
    total = np.concatenate([np.zeros((1, known.shape[1])), np.cumsum(known, axis=0, dtype=float)])
    best = (total[hi] - total[lo]).argmax(1)
    return np.where(labelled, best, -1)


def budget(series: xr.Dataset, crossings: list[Crossing], names: tuple[str, ...]) -> xr.Dataset:
    """Energy conversion per probe and region: mean power, its standard error, time spent."""
    import xarray as xr

    probes = [int(c.probe) for c in crossings]
    shape = (len(probes), len(names))
    found: dict[str, Array] = {"region_seconds": np.zeros(shape)}
    terms = [t for t in BUDGET if t in series]
    found |= {f"region_{t}{e}": np.full(shape, np.nan) for t in terms for e in ("", "_error")}
    for i, c in enumerate(crossings):
        mine = series["probe"].values == int(c.probe)
        step = float(np.median(np.diff(c.time.astype(np.int64)))) / 1e9
        for k in range(len(names)):
            inside = mine & (series["region"].values == k)
            found["region_seconds"][i, k] = inside.sum() * step
            for term in terms:
                value, error = _mean(series[term].values[inside], round(1 / step))
                found[f"region_{term}"][i, k] = value
                found[f"region_{term}_error"][i, k] = error
    out = xr.Dataset(
        {k: (("mms", "class"), v.astype(np.float32)) for k, v in found.items()}, {"mms": probes}
    )
    for name, (text, units) in SCALE.items():
        values = np.array([getattr(c.scale, name) for c in crossings], np.float32)
        out[name] = ("mms", values, {"long_name": text, "units": units})
    out.attrs["scale"] = ", ".join(f"MMS{c.probe} {c.scale.origin}" for c in crossings)
    for name in found:
        what = name.removeprefix("region_").removesuffix("_error")
        kind = "standard error over 1-s blocks" if name.endswith("_error") else "mean"
        text = f"{series[what].attrs['long_name']} in each region, {kind}" if what in series else ""
        out[name].attrs = {"units": "nW m-3", "long_name": text}
    out["region_seconds"].attrs = {"units": "s", "long_name": "time in each region"}
    return out


def _mean(values: Array, block: int) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    # Neighbouring samples are not independent: the error is that of means over one second.
    starts = np.arange(0, len(values), max(block, 1))
    means = np.add.reduceat(values, starts) / np.diff([*starts, len(values)])
    error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
    return float(values.mean()), float(error)


def _nanmean(values: Array) -> float:
    values = values[np.isfinite(values)]
    return round(float(values.mean()), 4) if len(values) else float("nan")


def legacy(series: xr.Dataset) -> dict[str, pd.DataFrame]:
    """The three tables of each probe with the names and columns that the original writes.

    Returns:
        ``mms{N}_labels``: Predicted; ``mms{N}_probs``: Predicted, Confidence; ``mms{N}_nndata``:
        the time as index, then Bx, By, Bz ... vez in the simulation's axes.
    """
    columns = [f"{q}{a}" for q in "BE" for a in "xyz"] + ["ni", "ne"]
    columns += [f"{q}{a}" for q in ("vi", "ve") for a in "xyz"]
    out: dict[str, pd.DataFrame] = {}
    for probe in np.unique(series["probe"].values):
        mine = np.flatnonzero(series["probe"].values == probe)
        region = series["region"].values[mine]
        predicted = pd.Series(region, dtype="Int64").mask(region < 0)
        confidence = series["confidence"].values[mine]
        out[f"mms{probe}_labels"] = pd.DataFrame({"Predicted": predicted})
        out[f"mms{probe}_probs"] = pd.DataFrame({"Predicted": predicted, "Confidence": confidence})
        index = pd.DatetimeIndex(series["time"].values[mine], name="time")
        out[f"mms{probe}_nndata"] = pd.DataFrame(series["features"].values[mine], index, columns)
    return out
