"""Scores with intervals: weighted metrics and a block bootstrap that works on weights.

A metric is ``(table, weight) -> float``, where ``weight`` is how often each row counts. Resampling
blocks then means changing weights, never copying rows, and two models resampled alike can be
compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

Metric = Callable[[pd.DataFrame, np.ndarray], float]
LEVEL = 0.95  # of every interval printed


def block_weights(blocks: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Row multiplicities of a block bootstrap.

    Args:
        blocks: (rows,) label of the block each row belongs to; blocks are drawn, not rows.
        draws: number of resamples.
        seed: of the draws.

    Returns:
        (draws, rows) float64.
    """
    labels, index = np.unique(blocks, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=draws)
    return counts[:, index].astype(float)


def interval(
    metric: Metric, table: pd.DataFrame, weights: np.ndarray, level: float = LEVEL
) -> tuple[float, float, float]:
    """A metric's value and its bootstrap percentile interval.

    Args:
        metric: ``(table, weight) -> float``; nan where it is undefined.
        table: rows to score.
        weights: (draws, rows) from ``block_weights``.
        level: two-sided coverage.

    Returns:
        value, lo, hi; lo and hi are nan where fewer than half of the draws are defined.
    """
    value = float(metric(table, np.ones(len(table))))
    drawn = np.array([metric(table, w) for w in weights], float)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < max(len(weights) // 2, 1):
        return value, float("nan"), float("nan")
    lo, hi = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return value, float(lo), float(hi)


def ratio(top: str, bottom: str) -> Metric:
    """A metric that divides one column's sum by another's."""

    def metric(table: pd.DataFrame, weight: np.ndarray) -> float:
        below = float(weight @ table[bottom].to_numpy(float))
        return float(weight @ table[top].to_numpy(float)) / below if below else float("nan")

    return metric


def f1(hits: str, false: str, missed: str) -> Metric:
    """F1 from columns that count hits, false alarms and misses."""

    def metric(table: pd.DataFrame, weight: np.ndarray) -> float:
        tp, fp, fn = (float(weight @ table[c].to_numpy(float)) for c in (hits, false, missed))
        return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else float("nan")

    return metric


def score(
    table: pd.DataFrame,
    metrics: Mapping[str, Metric],
    *,
    draws: int = 500,
    seed: int = 0,
    **labels: str,
) -> pd.DataFrame:
    """Score one model's table: overall, by ``group`` and by ``lead`` where it has such columns.

    Args:
        table: rows with a ``block`` column; optional ``group`` (year, station) and ``lead``.
        metrics: by name.
        draws: bootstrap resamples.
        seed: of the bootstrap; the same for every model, so that draws are paired.
        **labels: columns to put before each row (task, data, split, model).

    Returns:
        One row a score: labels, group, lead, metric, value, lo, hi, n.
    """
    leads = sorted(table["lead"].unique()) if "lead" in table else [""]
    groups = ["all"]
    if "group" in table:
        groups += sorted(map(str, table["group"].unique()))
    rows = []
    for lead in leads:
        ahead = table[table["lead"] == lead] if "lead" in table else table
        for group in groups:
            part = ahead if group == "all" else ahead[ahead["group"].astype(str) == group]
            if part.empty:
                continue
            weights = block_weights(part["block"].to_numpy(), draws, seed)
            for name, metric in metrics.items():
                value, lo, hi = interval(metric, part, weights)
                rows.append(
                    {**labels, "group": group, "lead": lead, "metric": name,
                     "value": value, "lo": lo, "hi": hi, "n": len(part)}
                )  # fmt: skip
    return pd.DataFrame(rows)
