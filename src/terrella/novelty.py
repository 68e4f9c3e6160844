"""How far rows lie from what a network was trained on: ranges, and a distance between features.

The training rows' summary is kept in the weights' card; a run marks each row with two flags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from terrella.types import Features, Product, Windows

if TYPE_CHECKING:
    from terrella.task import Model, Task

FLAGS = ("range", "distance")
FAR = 0.999  # share of the training rows that lies within the distance
ROWS = 200_000  # rows that a summary is made from; more would not move it
RIDGE = 1e-2  # added to the correlations, so that twins among the features keep a finite distance
EDGE = 1e-3  # of a column's spread, beyond what was seen
DIGITS = 6


def learnt(task: Task, train: Sequence[Windows], seed: int = 0) -> dict[str, Any]:
    """Summary of the valid rows of training windows, for a card."""
    parts = [(f := task.features(w)).values[w.valid] for w in train]
    values = np.concatenate(parts)
    if len(values) > ROWS:
        values = values[np.random.default_rng(seed).permutation(len(values))[:ROWS]]
    return summarise(Features(f.names, values))


def summarise(features: Features) -> dict[str, Any]:
    """Ranges, means, spreads and correlations of rows.

    Args:
        features: (rows, columns), NaN where missing.

    Returns:
        Plain numbers for a card: ``names``, ``low``, ``high``, ``mean``, ``spread`` (columns,),
        ``whitening`` (columns, columns), ``limit`` of the squared distance, ``rows``.
    """
    values = features.values.astype(float)
    seen = np.isfinite(values)
    # A column that was never seen has no range; a run cannot be beyond it.
    filled = np.where(seen.any(0), values, 0.0)
    mean, spread = np.nanmean(filled, 0), np.nanstd(filled, 0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    # A card's numbers are rounded: what was seen must stay within.
    low, high = np.nanmin(filled, 0) - EDGE * spread, np.nanmax(filled, 0) + EDGE * spread
    low, high = (np.where(seen.any(0), v, end) for v, end in ((low, -np.inf), (high, np.inf)))
    z = np.where(seen, (values - mean) / spread, 0.0)
    correlation = z.T @ z / max(len(z), 1) + RIDGE * np.eye(z.shape[1])
    whitening = np.linalg.cholesky(np.linalg.inv(correlation)).T
    made = {"low": low, "high": high, "mean": mean, "spread": spread, "whitening": whitening}
    plain = {k: _rounded(v) for k, v in made.items()}
    limit = np.quantile(_square(plain, features), FAR)
    return {"names": list(features.names), "rows": len(values), **plain,
            "limit": _rounded(limit)}  # fmt: skip


def compare(summary: Mapping[str, Any], features: Features) -> tuple[np.ndarray, dict[str, float]]:
    """Flags of rows against a summary.

    Args:
        summary: from ``summarise``.
        features: of the same columns.

    Returns:
        (rows,) uint8, bit 1 where a variable is beyond its range, bit 2 where the row is further
        from the training rows than all but 0.1 % of them; and, by variable, the share beyond.
    """
    if tuple(summary["names"]) != features.names:
        raise ValueError("the card's summary is of other features than these")
    with np.errstate(invalid="ignore"):  # a missing value is not beyond anything
        beyond = (features.values < np.array(summary["low"])) | (
            features.values > np.array(summary["high"])
        )
    far = _square(summary, features) > summary["limit"]
    flags = beyond.any(1).astype(np.uint8) | far.astype(np.uint8) << 1
    share = dict(zip(features.names, beyond.mean(0).tolist(), strict=True))
    return flags, {k: v for k, v in share.items() if v > 0}


def _square(summary: Mapping[str, Any], features: Features) -> np.ndarray:
    z = (features.values - np.array(summary["mean"])) / np.array(summary["spread"])
    turned = np.nan_to_num(z) @ np.array(summary["whitening"]).T
    square: np.ndarray = (turned**2).sum(1)
    return square


def mark(product: Product, model: Model, windows: Windows) -> Product:
    """A product with its verdict, and ``novelty`` along its time where the card knows its rows.

    Events that have a column ``verdict`` carry it too: their table may travel alone.
    """
    series = product.series.assign_attrs(verdict=model.card.verdict)
    events = product.events
    if events is not None and "verdict" in events:
        events = events.assign(verdict=model.card.verdict)
    summary, provenance = model.card.inputs, dict(product.provenance)
    if summary and "time" in series.coords and len(windows):
        flags, share = compare(summary, model.task.features(windows))
        flags = np.where(windows.valid, flags, 0).astype(np.uint8)
        # Rows may share an instant (probes, places): it is flagged if any of them is.
        times, index = np.unique(windows.time, return_inverse=True)
        joined = np.zeros(len(times), np.uint8)
        np.bitwise_or.at(joined, index, flags)
        axis = series["time"].to_numpy()
        at = np.clip(np.searchsorted(times, axis), 0, len(times) - 1)
        found = np.where(times[at] == axis, joined[at], 0).astype(np.uint8)
        series["novelty"] = xr.DataArray(
            found, dims="time", attrs={
                "long_name": "unlike the rows that the network was trained on",
                "flag_masks": np.array([1, 2], np.uint8), "flag_meanings": " ".join(FLAGS),
            })  # fmt: skip
        provenance["novelty"] = {"share": float((found > 0).mean()), "beyond_range": share}
    return dataclasses.replace(product, series=series, events=events, provenance=provenance)


def _rounded(values: Any) -> Any:
    """Plain numbers of ``DIGITS`` significant digits, so that a card stays readable."""
    text = np.vectorize(lambda v: float(f"{v:.{DIGITS}g}"), otypes=[float])
    return text(values).tolist()
