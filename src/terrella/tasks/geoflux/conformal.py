"""Intervals that cover what they say: out-of-fold scores, then steered by what came true.

A forecast gives a centre and a scale. The table of a model holds quantiles of its scaled errors
on rows that it did not learn from. From then on the levels read from the table are steered, lead
by lead, by the outcomes that are known at each issue time (Gibbs & Candes 2021,
arXiv:2106.00170), so that coverage holds when the Sun moves on from the years of training.
"""

from __future__ import annotations

import numpy as np

LEVELS = np.array(
    [0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5,
     0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975]
)  # fmt: skip
GRID = np.concatenate([[0.001, 0.0025], np.arange(0.005, 0.9951, 0.005), [0.9975, 0.999]])
STEP = 0.01  # how fast levels move, in probability a day


def table_of(scores: np.ndarray) -> np.ndarray:
    """Quantiles of out-of-fold scaled errors.

    Args:
        scores: (rows, leads) of (truth - centre) / scale; NaN where there is no truth.

    Returns:
        (leads, len(GRID)) float32.
    """
    columns = [s[np.isfinite(s)] for s in scores.T]
    return np.stack([np.quantile(s, GRID) for s in columns]).astype(np.float32)


def quantiles(
    centre: np.ndarray,
    scale: np.ndarray,
    table: np.ndarray,
    truth: np.ndarray,
    time: np.ndarray,
    step: float = STEP,
) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of each forecast, by what was known when it was issued.

    Args:
        centre, scale: (rows, leads) of forecasts in order of issue.
        table: (leads, len(GRID)) from ``table_of``.
        truth: (rows, leads) that came true, NaN where unknown. The outcome of lead k is used only
            from k days after its issue time on.
        time: (rows,) issue times, increasing.
        step: of the steering; 0 leaves the table as it is.

    Returns:
        (rows, leads, len(LEVELS)) quantiles, never crossing, and (rows,) the number of outcomes
        that had steered lead 1 by then.
    """
    rows, leads = centre.shape
    known = [time + np.timedelta64(24 * (k + 1), "h") for k in range(leads)]
    seen = [np.searchsorted(done, time, side="right") for done in known]
    level = np.tile(LEVELS, (leads, 1))
    out = np.full((rows, leads, len(LEVELS)), np.nan)
    counted, used, done = np.zeros(rows, int), 0, [0] * leads
    for i in range(rows):
        for k in range(leads):
            for r in range(done[k], int(seen[k][i])):
                if np.isfinite(truth[r, k]) and np.isfinite(out[r, k, 0]):
                    below = truth[r, k] <= out[r, k]
                    level[k] = np.clip(level[k] + step * (LEVELS - below), 0.001, 0.999)
                    used += k == 0
            done[k] = max(done[k], int(seen[k][i]))
            margin = np.interp(level[k], GRID, table[k])
            out[i, k] = np.sort(centre[i, k] + scale[i, k] * margin)
        counted[i] = used
    return out, counted


def crps(quantile: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score from quantiles, as twice the mean pinball loss.

    Args:
        quantile: (rows, leads, len(LEVELS)).
        truth: (rows, leads).

    Returns:
        (rows, leads), in the units of ``truth``.
    """
    error = truth[..., None] - quantile
    loss: np.ndarray = np.maximum(LEVELS * error, (LEVELS - 1) * error)
    weight = np.gradient(LEVELS)
    score: np.ndarray = 2 * (loss @ weight) / weight.sum()
    return score


def exceedance(quantile: np.ndarray, threshold: float) -> np.ndarray:
    """Probability of exceeding a threshold, read from quantiles by straight lines.

    Args:
        quantile: (..., len(LEVELS)), increasing.
        threshold: in the units of ``quantile``.

    Returns:
        (...) in 0..1; beyond the outer quantiles the nearest slope is carried on.
    """
    flat = quantile.reshape(-1, len(LEVELS))
    below = np.array([_cdf(q, threshold) for q in flat])
    p: np.ndarray = 1 - below.reshape(quantile.shape[:-1])
    return p


def _cdf(q: np.ndarray, x: float) -> float:
    if not np.isfinite(q[0]):
        return float("nan")
    if x < q[0] or x > q[-1]:
        # An exponential tail with the outermost spacing as its scale.
        edge, inner, mass = (q[0], q[1], LEVELS[0]) if x < q[0] else (q[-1], q[-2], LEVELS[0])
        width = max(abs(edge - inner) / np.log(2), 1e-6)
        tail = float(mass * np.exp(-abs(x - edge) / width))
        return tail if x < q[0] else 1 - tail
    return float(np.interp(x, q, LEVELS))
