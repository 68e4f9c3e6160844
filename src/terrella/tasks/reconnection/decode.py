"""From class probabilities to labelled regions, an energy budget and agreement among probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from terrella.tasks.reconnection.derive import FEATURES, Crossing
from terrella.tasks.reconnection.regions import (
    agreement,
    budget,
    legacy,
    nearest,
    segments_table,
)
from terrella.types import NoData, Product, Windows

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray
MISSING, SHORT, ABSTAINED, SUSPECT, IONS, ELECTRONS, LOW_E, GROUND = (1 << k for k in range(8))
FLAGS = {"input_missing": MISSING, "context_not_whole": SHORT, "abstained": ABSTAINED,
         "b0_contradicted_by_pressure_balance": SUSPECT, "dis_error_flag": IONS,
         "des_error_flag": ELECTRONS, "edp_quality_zero": LOW_E,
         "ion_background_unknown": GROUND}  # fmt: skip
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
    events = segments_table(series, names, windows.extra["segment"][keep], options)
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
    flags |= np.where(crossing.background_unknown, GROUND, 0)
    for name, bit in (("flags_i", IONS), ("flags_e", ELECTRONS), ("quality_e", LOW_E)):
        array = record.get(f"mms{crossing.probe}_{name}")
        if array is None or not len(array):
            continue
        bad = (array.values == 0) if name == "quality_e" else (array.values != 0)
        shift = np.timedelta64(round(array.attrs.get("centre_s", 0.0) * 1e9), "ns")
        near = nearest(array["time"].values + shift, crossing.time)
        flags |= np.where(bad[near], bit, 0)
    return flags


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
    series = xr.Dataset(data, coords, attrs=_notes(crossings))
    for name in ("time", "time_ion"):
        if name in series:
            series[name].encoding["units"] = "nanoseconds since 1970-01-01"
    return series.merge(budget(series, crossings, names), combine_attrs="no_conflicts")


def _notes(crossings: list[Crossing]) -> dict[str, str]:
    names = dict.fromkeys(n for c in crossings for n in c.notes)
    return {
        n: "; ".join(f"MMS{c.probe}: {c.notes[n]}" for c in crossings if n in c.notes)
        for n in names
    }


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
        units = parts[0][name][1]
        # Probes may differ in what was done to them; then both are said.
        text = " / ".join(dict.fromkeys(p[name][2] for p in parts))
        out[name] = (
            (dim, *AXES.get(size, ("channel",))),
            values,
            {"units": units, "long_name": text},
        )
    return out


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
