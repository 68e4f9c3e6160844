"""Scores with intervals: weighted metrics and a block bootstrap that works on weights.

A metric is ``(table, weight) -> float``, where ``weight`` is how often each row counts. Resampling
blocks then means changing weights, never copying rows, and two models resampled alike can be
compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, t

Score = Callable[[pd.DataFrame, np.ndarray], float]
LEVEL = 0.95  # of every interval printed
BINS = 10  # of a reliability curve
OFF = 0.05  # a probability that misses by less is not called off


@dataclass(frozen=True)
class Draws:
    """Row multiplicities of a block bootstrap.

    Attributes:
        weights: (1 + draws, rows) float64; the first row is all ones: the data as they are.
        blocks: how many there are.
    """

    weights: np.ndarray
    blocks: int

    @staticmethod
    def of(block: np.ndarray, draws: int, seed: int) -> Draws:
        """Draw blocks with replacement.

        Args:
            block: (rows,) label of the block each row belongs to; blocks are drawn, not rows.
            draws: number of resamples.
            seed: of the draws.
        """
        labels, index = np.unique(block, return_inverse=True)
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=draws)
        return Draws(np.vstack([np.ones(len(index)), counts[:, index]]), len(labels))

    def values(self, metric: Score, table: pd.DataFrame) -> np.ndarray:
        """(1 + draws,) the metric of the data as they are, then of each resample."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.array([metric(table, w) for w in self.weights], float)

    def interval(self, values: np.ndarray, level: float = LEVEL) -> tuple[float, float, float]:
        """A value and its percentile interval, widened for few blocks.

        The percentile bootstrap of n blocks is too narrow by about sqrt((n - 1) / n) and by using
        the normal law for Student's; the quantiles taken here make up for both (Hesterberg 2015,
        doi:10.1080/00031305.2015.1089789, "expanded percentile").

        Args:
            values: from ``values``, or a difference of two.
            level: two-sided coverage.

        Returns:
            value, lo, hi; lo and hi are nan where there are not two blocks, or fewer than half of
            the draws are defined.
        """
        drawn = values[1:][np.isfinite(values[1:])]
        if self.blocks < 2 or len(drawn) < max((len(values) - 1) // 2, 1):
            return float(values[0]), float("nan"), float("nan")
        n = self.blocks
        tail = norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - level) / 2, n - 1))
        lo, hi = np.quantile(drawn, [tail, 1 - tail])
        return float(values[0]), float(lo), float(hi)


def ratio(top: str, bottom: str) -> Score:
    """A metric that divides one column's sum by another's."""

    def metric(table: pd.DataFrame, weight: np.ndarray) -> float:
        below = float(weight @ table[bottom].to_numpy(float))
        return float(weight @ table[top].to_numpy(float)) / below if below else float("nan")

    return metric


def f1(hits: str, false: str, missed: str) -> Score:
    """F1 from columns that count hits, false alarms and misses."""

    def metric(table: pd.DataFrame, weight: np.ndarray) -> float:
        tp, fp, fn = (float(weight @ table[c].to_numpy(float)) for c in (hits, false, missed))
        return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else float("nan")

    return metric


def sections(table: pd.DataFrame) -> Iterator[tuple[str, Any, np.ndarray]]:
    """Parts of a table that are scored by themselves.

    Args:
        table: rows; optional columns ``lead``, and ``group`` (year, station) and ``activity``,
            whose every value is a part beside the whole; ``aside`` marks rows that are not in it.

    Yields:
        group (``all`` for the whole), lead ("" where there is none), (rows,) bool.
    """
    every = np.ones(len(table), bool)
    whole = ~table["aside"].to_numpy(bool) if "aside" in table else every
    leads: list[tuple[Any, np.ndarray]] = [("", every)]
    if "lead" in table:
        leads = [(v, (table["lead"] == v).to_numpy()) for v in sorted(table["lead"].unique())]
    parts = [("all", whole)]
    for column in ("group", "activity"):
        if column in table:
            names = table[column].astype(str).where(whole | (column == "group"), "")
            parts += [(n, (names == n).to_numpy()) for n in sorted(names.unique()) if n]
    for lead, ahead in leads:
        for name, part in parts:
            if (ahead & part).any():
                yield name, lead, ahead & part


def reliability(
    p: np.ndarray, y: np.ndarray, row: np.ndarray | None = None, rows: int = 0
) -> dict[str, np.ndarray]:
    """Columns of a judge's table from which reliability is drawn and scored.

    Args:
        p: (n,) probabilities given; those that are NaN are left out.
        y: (n,) 1 where it came true.
        row: (n,) row of the table that each belongs to; itself if None.
        rows: of the table.

    Returns:
        ``rel_n0`` .. ``rel_n9`` counts, ``rel_p*`` summed probabilities, ``rel_y*`` summed truth in
        ten bins of probability, (rows,) each.
    """
    row, rows = (np.arange(len(p)), len(p)) if row is None else (row, rows)
    known = np.isfinite(p)
    p, y, row = p[known].astype(float), y[known].astype(float), row[known]
    at = row * BINS + np.clip((p * BINS).astype(int), 0, BINS - 1)
    made: dict[str, np.ndarray] = {}
    for kind, value in (("n", np.ones(len(p))), ("p", p), ("y", y)):
        sums = np.bincount(at, value, rows * BINS).reshape(rows, BINS)
        made |= {f"rel_{kind}{k}": sums[:, k] for k in range(BINS)}
    return made


def _curve(table: pd.DataFrame, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Column by column: taking many out of a table at once is slow, and this is done in every draw.
    n, p, y = (
        np.array([weight @ table[f"rel_{kind}{k}"].to_numpy(float) for k in range(BINS)])
        for kind in "npy"
    )
    return n, p, y


def calibration_error(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Mean distance of probability from frequency over ten bins, weighted by their rows."""
    n, p, y = _curve(table, weight)
    return float(np.abs(p - y).sum() / n.sum()) if n.sum() else float("nan")


def event_calibration_error(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Distance of probability from frequency, weighted by the events each bin should hold.

    For rare events: an empty sky, which is nearly every row, does not drown the rest.
    """
    _, p, y = _curve(table, weight)
    mass = np.maximum(p, y).sum()
    return float(np.abs(p - y).sum() / mass) if mass else float("nan")


def curve(table: pd.DataFrame, draws: Draws, level: float = LEVEL) -> pd.DataFrame:
    """A reliability curve with intervals.

    Args:
        table: with the columns of ``reliability``.
        draws: of its rows.
        level: of all bins together (Bonferroni).

    Returns:
        One row a bin that holds anything: p (mean given), y (frequency) with lo and hi, n, and
        ``off``: the interval leaves out p, and p misses by more than 0.05. An interval is never
        narrower than that of as many independent rows (Wilson): a bin of ten rows that all came
        true has no spread to draw from.
    """
    drawn = np.array([_curve(table, w) for w in draws.weights])  # (draws, 3, bins)
    rows = []
    for k in range(BINS):
        n, p, y = drawn[:, 0, k], drawn[:, 1, k], drawn[:, 2, k]
        if not n[0]:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            gap, *ends = draws.interval((y - p) / n, 1 - (1 - level) / BINS)
        given = p[0] / n[0]
        ends = _at_least(y[0], n[0], [given + e for e in ends], 1 - (1 - level) / BINS)
        off = abs(gap) > OFF and not ends[0] <= given <= ends[1]
        rows.append({"p": given, "y": y[0] / n[0], "lo": ends[0], "hi": ends[1], "n": n[0],
                     "off": bool(off)})  # fmt: skip
    return pd.DataFrame(rows, columns=["p", "y", "lo", "hi", "n", "off"])


def _at_least(y: float, n: float, ends: list[float], level: float) -> list[float]:
    """An interval of a frequency that holds Wilson's, and stays in 0 .. 1."""
    z = float(norm.ppf((1 + level) / 2))
    middle, half = y + z**2 / 2, z * np.sqrt(y * (n - y) / n + z**2 / 4)
    wilson = [(middle - half) / (n + z**2), (middle + half) / (n + z**2)]
    return [float(np.clip(np.fmin(ends[0], wilson[0]), 0, 1)),
            float(np.clip(np.fmax(ends[1], wilson[1]), 0, 1))]  # fmt: skip
