"""From logits to probabilities on the time axis, flags, and a catalogue of events."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from terrella.sources.base import iso
from terrella.sources.sem2 import CADENCE
from terrella.steps.clean import breaks
from terrella.steps.events import Runs, hysteresis, join
from terrella.tasks.precipitation import capannolo
from terrella.tasks.precipitation.prepare import published_rules
from terrella.tasks.precipitation.task import CLASSES, FLUX, Options, Recipe
from terrella.types import Outputs, Product, Record, Span, Windows

FLAGS = {
    "fill": "a flux is a fill value, or the place is unknown",
    "proton_contamination": "E4 was withheld by the archive because protons are strong",
    "noise_floor": "E4_0 is below two counts",
    "saa": "over the South Atlantic anomaly",
    "calibration": "in-flight calibration is on",
    "gap": "the window spans a break in time or the record's edge",
    "l_outside": "L is outside 2.5..8.5 or undefined",
}
BITS = {name: np.uint8(1 << k) for k, name in enumerate(FLAGS)}
# Where inner-belt protons are counted at 850 km: centre and half-axes, degrees.
SAA = {"lat": -22.0, "lon": -35.0, "half_lat": 27.0, "half_lon": 62.0}
COLUMNS = [
    "start", "stop", "label", "probability", "L", "MLT", "lat", "lon", "satellite",
    "peak_e4_0", "flags", "start_index", "stop_index",
]  # fmt: skip


def decode(
    outputs: Outputs,
    windows: Windows,
    record: Record,
    span: Span,
    recipe: Recipe,
    options: Options,
) -> Product:
    """Probabilities, flags and events of one job.

    Args:
        outputs: ``logits`` (rows, 3).
        windows: the rows; row i speaks for its middle sample.
        record: the samples, which may reach over the span's edges.
        span: [start, stop) of the job; events that start in it are kept, with their full extent.
        recipe, options: of the weights and the run.

    Returns:
        ``probability(time, class)``, place, fluxes and flags over the span, and the events.
    """
    time = record["L"]["time"].to_numpy()
    probability = on_time_axis(outputs["logits"], windows, len(time), options)
    flags = flag(record, np.isnan(probability[:, 0]), recipe.window)
    found = find(probability, record, options)
    inside = slice(*np.searchsorted(time, span))
    table = catalogue(found, probability, record, flags, inside.start)
    starts = table["start_index"].to_numpy()
    kept = table[(starts >= 0) & (starts < inside.stop - inside.start)]
    return Product(series(probability, record, flags, inside), kept.reset_index(drop=True))


def on_time_axis(
    logits: np.ndarray, windows: Windows, samples: int, options: Options
) -> np.ndarray:
    """Softmax of each row at the sample it speaks for; NaN where no row may speak.

    Returns:
        (samples, 3) float32.
    """
    z = logits.astype(np.float64)
    z = np.exp(z - z.max(1, keepdims=True))
    rows = (z / z.sum(1, keepdims=True)).astype(np.float32)
    rows[~windows.valid] = np.nan
    if published_rules(options):
        rows[-1] = np.nan  # the authors never use the last window
    whole = np.full((samples, len(CLASSES)), np.nan, np.float32)
    whole[windows.extra["middle"]] = rows
    return whole


def flag(record: Record, silent: np.ndarray, window: int) -> np.ndarray:
    """Bit mask of each sample, by ``FLAGS``.

    Args:
        record: the samples.
        silent: (samples,) bool, no probability there.
        window: samples a row sees: breaks are marked this far around, under any rules.

    Returns:
        (samples,) uint8.
    """
    get = {k: v.to_numpy() for k, v in record.items()}
    fill = np.any([get[v.name] < 0 for v in FLUX], axis=0)
    fill |= np.any([np.isnan(get[k]) for k in ("MLT", "lat", "lon")], axis=0)
    east = (get["lon"] - SAA["lon"] + 180.0) % 360.0 - 180.0
    away = (east / SAA["half_lon"]) ** 2 + ((get["lat"] - SAA["lat"]) / SAA["half_lat"]) ** 2
    broken = breaks(record["L"]["time"].to_numpy(), CADENCE)
    # A row at sample s sees s - w//2 .. s + w//2; the break lies before its first sample.
    near = np.convolve(broken, np.ones(window - 1), "full")[: len(broken) + window - 2]
    near = near[window - 1 - window // 2 :][: len(broken)] > 0.5
    low, high = capannolo.L_RANGE
    masks = {
        "fill": fill,
        "proton_contamination": (get["e4_0"] < 0) | (get["e4_90"] < 0),
        "noise_floor": get["e4_0"] < capannolo.TWO_COUNTS,
        "saa": away < 1.0,
        "calibration": get["ifc"] > 0 if "ifc" in get else np.zeros(len(fill), bool),
        "gap": silent | near,
        "l_outside": (get["L"] < low) | (get["L"] > high),
    }
    bits: np.ndarray = np.bitwise_or.reduce(
        [np.where(m, BITS[k], np.uint8(0)) for k, m in masks.items()]
    )
    return bits


def find(probability: np.ndarray, record: Record, options: Options) -> dict[str, Runs]:
    """Events of each class by the chosen rules, as first and last sample."""
    if published_rules(options):
        return _published(probability, record, options)
    broken = breaks(record["L"]["time"].to_numpy(), CADENCE)
    events = {}
    for k, label in enumerate(CLASSES[1:], 1):
        curve = probability[:, k]
        other = probability[:, 3 - k]
        # Between the two classes the likelier takes the sample, so events never overlap.
        start, stop = hysteresis(curve, options.p_on, options.p_off, curve >= other)
        gap = int(options.join_s // CADENCE)
        claimed = np.nan_to_num(other) >= options.p_on
        events[label] = join(start, stop, gap, broken | claimed)
    return events


def _published(probability: np.ndarray, record: Record, options: Options) -> dict[str, Runs]:
    get = {k: v.to_numpy() for k, v in record.items()}
    # Row i of the authors' 7-sample windows speaks for sample i + 3, and the last is not used. A
    # network with a longer window is silent near the edges: NaN there counts as class none.
    rows = probability[capannolo.SHIFT : len(probability) - capannolo.SHIFT - 1]
    winner = np.nan_to_num(rows, nan=-1.0).argmax(1)
    if options.postprocess == "capannolo2022":
        return {c: capannolo.events_2022(winner, k, get["L"]) for k, c in enumerate(CLASSES) if k}
    return {c: capannolo.events_2023(winner, k, get["L"], get) for k, c in enumerate(CLASSES) if k}


def catalogue(
    found: dict[str, Runs],
    probability: np.ndarray,
    record: Record,
    flags: np.ndarray,
    origin: int,
) -> pd.DataFrame:
    """One row an event, placed where E4_0 peaks.

    Args:
        found: first and last sample of the events of each class.
        probability, flags: (samples, 3) and (samples,).
        record: the samples.
        origin: sample that ``start_index`` 0 stands for.

    Returns:
        Columns ``COLUMNS``, sorted by start. ``probability`` is the mean over the event; ``flags``
        holds what is set in any of its samples (``noise_floor``: in all of them).
    """
    get = {k: v.to_numpy() for k, v in record.items()}
    time = record["L"]["time"].to_numpy()
    rows: list[dict[str, Any]] = []
    for label, (starts, stops) in found.items():
        for start, stop in zip(starts, stops, strict=True):
            part = slice(start, stop + 1)
            peak = start + int(get["e4_0"][part].argmax())
            here = probability[part, CLASSES.index(label)]
            set_any = np.bitwise_or.reduce(flags[part])
            set_all = np.bitwise_and.reduce(flags[part])
            names = [
                n for n, bit in BITS.items() if (set_all if n == "noise_floor" else set_any) & bit
            ]
            rows.append({
                "start": iso(time[start]), "stop": iso(time[stop]), "label": label,
                "probability": round(float(np.nanmean(here)), 4) if (here == here).any() else "",
                **{n: round(float(get[n][peak]), 3) for n in ("L", "MLT", "lat", "lon")},
                "satellite": record["L"].attrs.get("satellite", "unknown"),
                "peak_e4_0": round(float(get["e4_0"][peak]), 2), "flags": "|".join(names),
                "start_index": int(start) - origin, "stop_index": int(stop) - origin,
            })  # fmt: skip
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values(["start", "label"], kind="stable").reset_index(drop=True)


def series(probability: np.ndarray, record: Record, flags: np.ndarray, inside: slice) -> xr.Dataset:
    """The continuous product over a span, with CF attributes."""
    wanted = [*(v.name for v in FLUX), "L", "MLT", "lat", "lon", "truth"]
    data = {k: record[k].isel(time=inside) for k in wanted if k in record}
    masks = np.array(list(BITS.values()))
    data["probability"] = xr.DataArray(
        probability[inside],
        dims=("time", "class"),
        attrs={"long_name": "probability of each class", "units": "1"},
    )
    data["flags"] = xr.DataArray(
        flags[inside],
        dims="time",
        attrs={
            "long_name": "quality flags",
            "flag_masks": masks,
            "flag_meanings": " ".join(BITS),
            "comment": "; ".join(f"{k}: {v}" for k, v in FLAGS.items()),
        },
    )
    made = xr.Dataset(data, coords={"class": list(CLASSES)})
    made["time"].attrs.update(standard_name="time", long_name="time, UTC")
    made.attrs["satellite"] = record["L"].attrs.get("satellite", "unknown")
    return made
