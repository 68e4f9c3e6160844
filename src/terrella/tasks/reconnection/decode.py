"""From class probabilities to labelled regions, an energy budget and agreement among probes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from terrella.tasks.reconnection.prepare import FEATURES, Crossing
from terrella.types import NoData, Product, Windows

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray
MISSING, SHORT, ABSTAINED, SUSPECT, IONS, ELECTRONS, LOW_E = (1 << k for k in range(7))
FLAGS = {"input_missing": MISSING, "context_not_whole": SHORT, "abstained": ABSTAINED,
         "b0_contradicted_by_pressure_balance": SUSPECT, "dis_error_flag": IONS,
         "des_error_flag": ELECTRONS, "edp_quality_zero": LOW_E}  # fmt: skip
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
AXES = {1: (), 3: ("component",), 9: ("row", "column"), 32: ("channel",)}


def decode(
    outputs: dict[str, Array], windows: Windows, record: Any, span: tuple[Any, Any],
    recipe: Any, options: Any,
) -> Product:  # fmt: skip
    """Label every sample, find the regions, weigh their energy conversion.

    Args:
        outputs: from ``network.predict``.
        windows: from ``prepare``.
        record: the record, for quality flags.
        span: [start, stop) to keep; the record may reach beyond.
        recipe, options: of the task.

    Returns:
        ``series``: one row a sample of the electron clock, probe after probe (``probe`` tells
        which; ``ds.where(ds.probe == 1, drop=True)``), ion moments on ``time_ion``. ``events``: one
        row a region crossed.

    Raises:
        NoData: nothing lies in the span.
    """
    crossings: list[Crossing] = windows.extra["crossings"]
    names = class_names(recipe)
    keep = (windows.time >= span[0]) & (windows.time < span[1])
    if not keep.any():
        raise NoData(f"no electron sample between {span[0]} and {span[1]}")
    labels = _label(outputs, windows, record, options)
    probe = windows.extra["probe"].astype(np.int8)
    if len(crossings) > 1:
        labels["agreement"] = agreement(windows.time, probe, labels["region"])
    series = _series(labels, outputs, windows, crossings, keep, names)
    events = _segments(series, names, windows.extra["segment"][keep], options)
    tables = legacy(series) if options.legacy_csv else {}
    return Product(series, events, _provenance(crossings, windows, options), tables)


def class_names(recipe: Any) -> tuple[str, ...]:
    """Names of the classes; numbers where none were published."""
    from terrella.tasks.reconnection.simulate import REGIONS

    if recipe.kind == "waters2025":
        return tuple(f"class {k}" for k in range(6))
    return REGIONS


def _label(
    outputs: dict[str, Array], windows: Windows, record: Any, options: Any
) -> dict[str, Array]:
    probability = np.where(windows.valid[:, None], outputs["probability"], np.nan)
    confidence = np.where(windows.valid, outputs["probability"].max(1), np.nan)
    asked = outputs["abstain"] if options.abstain is None else options.abstain
    with np.errstate(invalid="ignore"):
        unsure = windows.valid & (confidence < asked)
    best = outputs["probability"].argmax(1)
    region = np.where(windows.valid & ~unsure, best, -1).astype(np.int8)
    crossings: list[Crossing] = windows.extra["crossings"]
    finite = np.concatenate([np.isfinite(c.features).all(1) for c in crossings])
    flags = np.where(finite, 0, MISSING) | np.where(finite & ~windows.valid, SHORT, 0)
    flags |= np.where(unsure, ABSTAINED, 0)
    flags |= np.concatenate([_quality(c, record) for c in crossings])
    return {"region": region, "confidence": confidence.astype(np.float32),
            "probability": probability.astype(np.float32),
            "spread": np.where(windows.valid, outputs["spread"], np.nan).astype(np.float32),
            "flags": flags.astype(np.int16)}  # fmt: skip


def _quality(crossing: Crossing, record: Any) -> Array:
    """Instrument flags carried to the electron clock, and whether B0 is contradicted."""
    flags = np.full(len(crossing.time), SUSPECT if crossing.scale.suspect else 0)
    for name, bit in (("flags_i", IONS), ("flags_e", ELECTRONS), ("quality_e", LOW_E)):
        array = record.get(f"mms{crossing.probe}_{name}")
        if array is None or not len(array):
            continue
        bad = (array.values == 0) if name == "quality_e" else (array.values != 0)
        shift = np.timedelta64(round(array.attrs.get("centre_s", 0.0) * 1e9), "ns")
        near = _nearest(array["time"].values + shift, crossing.time)
        flags |= np.where(bad[near], bit, 0)
    return flags


def _nearest(time: Array, wanted: Array) -> Array:
    """Index of the sample of ``time`` nearest to each instant wanted."""
    right = np.clip(np.searchsorted(time, wanted), 1, max(len(time) - 1, 1))
    right = np.minimum(right, len(time) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(wanted - time[left] <= time[right] - wanted, left, right)


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
            near = theirs[_nearest(time[theirs], time[rows])]
            close = np.abs(time[near] - time[rows]) <= np.timedelta64(30, "ms")
            both = close & (region[near] >= 0) & (region[rows] >= 0)
            known[rows] += both
            same[rows] += both & (region[near] == region[rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known > 0, same / known, np.nan).astype(np.float32)


def _series(
    labels: dict[str, Array], outputs: dict[str, Array], windows: Windows,
    crossings: list[Crossing], keep: Array, names: tuple[str, ...],
) -> xr.Dataset:  # fmt: skip
    import xarray as xr

    said = {
        "region": ("region of the reconnection site, -1 for none", "1"),
        "confidence": ("probability of the most likely region", "1"),
        "spread": ("standard deviation of that probability under the uncertainty of B0, n0", "1"),
        "flags": ("quality flags", "1"),
        "agreement": ("share of the other probes in the same region", "1"),
    }
    data: dict[str, Any] = {
        k: (("time",), labels[k][keep], {"long_name": text, "units": units})
        for k, (text, units) in said.items()
        if k in labels
    }
    meanings = " ".join(n.replace(" ", "_") for n in ("none", *names))
    data["region"][2].update(flag_values=np.arange(-1, 6, dtype=np.int8), flag_meanings=meanings)
    masks = np.array(list(FLAGS.values()), np.int16)
    data["flags"][2].update(flag_masks=masks, flag_meanings=" ".join(FLAGS))
    data["probability"] = (("time", "class"), labels["probability"][keep],
                           {"long_name": "probability of each region", "units": "1"})  # fmt: skip
    features = np.concatenate([c.features for c in crossings])[keep]
    data["features"] = (("time", "feature"), features,
                        {"long_name": "normalised network inputs", "units": "1"})  # fmt: skip
    data |= _stacked([c.values for c in crossings], "time", keep)
    span = windows.time[keep].min(), windows.time[keep].max()
    ions = np.concatenate([c.ion_time for c in crossings])
    keep_ions = (ions >= span[0]) & (ions <= span[1])
    data |= _stacked([c.ions for c in crossings], "time_ion", keep_ions)
    ion_probe = np.concatenate([np.full(len(c.ion_time), int(c.probe), np.int8) for c in crossings])
    coords: dict[str, Any] = {
        "time": windows.time[keep],
        "probe": (
            "time",
            windows.extra["probe"][keep].astype(np.int8),
            {"long_name": "MMS probe"},
        ),
        "class": list(names),
        "feature": list(FEATURES),
    }
    if keep_ions.any():
        coords["time_ion"] = ions[keep_ions]
        coords["probe_ion"] = ("time_ion", ion_probe[keep_ions], {"long_name": "MMS probe"})
    series = xr.Dataset(data, coords)
    for name in ("time", "time_ion"):
        if name in series:
            series[name].encoding["units"] = "nanoseconds since 1970-01-01"
    return series.merge(_budget(series, crossings, names), combine_attrs="no_conflicts")


def _stacked(
    parts: list[dict[str, tuple[Array, str, str]]], dim: str, keep: Array
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in parts[0]:
        if not all(name in p for p in parts):
            continue
        values = np.concatenate([p[name][0] for p in parts])[keep]
        if values.dtype.kind == "f":
            values = values.astype(np.float32)
        size = int(np.prod(values.shape[1:]))
        _, units, text = parts[0][name]
        out[name] = (
            (dim, *AXES.get(size, ("channel",))),
            values,
            {"units": units, "long_name": text},
        )
    return out


def _budget(series: xr.Dataset, crossings: list[Crossing], names: tuple[str, ...]) -> xr.Dataset:
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


def _segments(
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


def _nanmean(values: Array) -> float:
    values = values[np.isfinite(values)]
    return round(float(values.mean()), 4) if len(values) else float("nan")


def _provenance(crossings: list[Crossing], windows: Windows, options: Any) -> dict[str, Any]:
    return {
        "probes": [c.probe for c in crossings],
        "mode": options.mode,
        "timing": options.timing,
        "scale": {
            f"mms{c.probe}": {
                "b0_nT": round(c.scale.b0, 4), "n0_cm3": round(c.scale.n0, 5),
                "b0_error": round(c.scale.b0_error, 4), "n0_error": round(c.scale.n0_error, 4),
                "origin": c.scale.origin, "b0_seen_nT": round(c.scale.b0_seen, 4),
                "n0_seen_cm3": round(c.scale.n0_seen, 5), "b0_contradicted": c.scale.suspect,
            }
            for c in crossings
        },
        "labelled": round(float(windows.valid.mean()), 4),
    }  # fmt: skip


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
