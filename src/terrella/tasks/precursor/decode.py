"""From logits to class probabilities, flags, and a table of what is not Normal.

A product is an anomaly classification, never a prediction. What its weights were shown to do is the
verdict that every product carries beside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from terrella.sources.base import iso
from terrella.tasks.precursor.prepare import chain_of
from terrella.tasks.precursor.quality import FLAGS
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE, Options, Recipe
from terrella.types import Outputs, Product, Record, Span, Windows
from terrella.weights import UNKNOWN

COLUMNS = [
    "start", "stop", "station", "label", "magnitude", "magnitude_probability", "azimuth",
    "azimuth_probability", "flags", "file", "verdict",
]  # fmt: skip


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, float32."""
    z = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    return np.asarray(z / z.sum(-1, keepdims=True), np.float32)


def decode(
    outputs: Outputs, windows: Windows, record: Record, span: Span, recipe: Recipe, options: Options
) -> Product:
    """Probabilities of every window that starts in the span; windows dropped by rule are NaN.

    Returns:
        Series over ``time`` (end of each window) with both heads' probabilities, flags and the
        images; one event for each window that is not Normal, labelled an anomaly.
    """
    table = windows.extra["table"]
    length = np.timedelta64(round(recipe.window * 1e9), "ns")
    start = windows.time - length if "image" not in record else windows.time
    rows = np.flatnonzero((start >= span[0]) & (start < span[1]))
    given = {k: softmax(outputs[k][rows]) for k in ("magnitude", "azimuth")}
    silent = ~windows.valid[rows]
    for values in given.values():
        values[silent] = np.nan
    attrs = {
        "title": "anomaly classification",
        "station": str(table["station"].iloc[0]) if len(table) else "",
        "window_s": recipe.window,
    }
    for name in ("conversion", "notes"):
        words = record["H"].attrs.get(name, "") if "H" in record else ""
        if words:
            attrs[name] = words
    series = _series(given, windows, rows, outputs.get("cam"), chain_of(recipe, options), attrs)
    return Product(series, _events(given, windows, rows, silent, length))


def _series(
    given: dict[str, np.ndarray], windows: Windows, rows: np.ndarray, cam: np.ndarray | None,
    chain: Any, attrs: dict[str, Any],
) -> xr.Dataset:  # fmt: skip
    flags = windows.extra["table"]["flags"].to_numpy(np.uint8)[rows]
    masks = np.array(list(FLAGS.values()), np.uint8)
    data: dict[str, Any] = {
        "magnitude_probability": (
            ("time", "magnitude_class"), given["magnitude"],
            {"units": "1", "long_name": "probability of the magnitude class"},
        ),
        "azimuth_probability": (
            ("time", "azimuth_class"), given["azimuth"],
            {"units": "1", "long_name": "probability of the azimuth class"},
        ),
        "flags": (
            "time", flags,
            {"long_name": "quality flags", "flag_masks": masks, "flag_meanings": " ".join(FLAGS)},
        ),
    }  # fmt: skip
    coords: dict[str, Any] = {
        "time": ("time", windows.time[rows], {"long_name": "end of the window, UTC"}),
        "magnitude_class": list(MAGNITUDE),
        "azimuth_class": list(AZIMUTH),
    }
    if cam is not None:
        image = windows.x["image"][rows].numpy()
        where = ("time", "component", "frequency", "offset")
        data["spectrogram"] = (
            where, image,
            {"long_name": "brightness", "db_at_0": chain.low, "db_at_255": chain.high,
             "db_reference": "1 nT2/Hz"},
        )  # fmt: skip
        head = windows.extra["explain"]
        words = {"long_name": f"Grad-CAM of the {head} class given, 255 at its greatest"}
        data["gradcam"] = (("time", "frequency", "offset"), cam[rows], words)
        coords |= {
            "component": ["H", "D", "Z"],
            "frequency": ("frequency", chain.rows, {"units": "Hz"}),
            "offset": ("offset", chain.columns, {"units": "s", "long_name": "since window start"}),
        }
    return xr.Dataset(data, coords, attrs=attrs)


def _events(
    given: dict[str, np.ndarray], windows: Windows, rows: np.ndarray, silent: np.ndarray,
    length: np.timedelta64,
) -> pd.DataFrame:  # fmt: skip
    table = windows.extra["table"].iloc[rows].reset_index(drop=True)
    best = {k: np.nan_to_num(v, nan=-1.0).argmax(1) for k, v in given.items()}
    names = np.array(MAGNITUDE)[best["magnitude"]]
    kept = np.flatnonzero(~silent & (names != "Normal"))
    ends = windows.time[rows][kept]
    picture = "file" in table
    out = pd.DataFrame(
        {
            "start": ["" if picture else iso(t - length) for t in ends],
            "stop": ["" if picture else iso(t) for t in ends],
            "station": table["station"].astype(str).to_numpy()[kept],
            "label": [f"{n} anomaly" for n in names[kept]],
            "magnitude": names[kept],
            "magnitude_probability": given["magnitude"].max(1)[kept].round(4),
            "azimuth": np.array(AZIMUTH)[best["azimuth"]][kept],
            "azimuth_probability": given["azimuth"].max(1)[kept].round(4),
            "flags": [
                "|".join(n for n, bit in FLAGS.items() if bits & bit)
                for bits in table["flags"].to_numpy(np.uint8)[kept]
            ],
            "file": table["file"].to_numpy()[kept] if picture else "",
            "verdict": UNKNOWN,  # until the card's is put there
        },
        columns=COLUMNS,
    )
    return out.reset_index(drop=True)
