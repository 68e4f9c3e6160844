"""Scores of both stages from the sums that ``judge`` makes.

On simulated scenes the truth is known, and scores are also given as a share of the best attainable
on the very same draws; on others those are NaN.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from terrella.learn.metrics import Score, ratio
from terrella.tasks.ech.judge import CUTS

Floats = NDArray[np.floating]
BINNED = [[f"{kind}{k}" for k in range(CUTS)] for kind in ("yes", "no")]


def _sums(table: pd.DataFrame, weight: Floats, *columns: str) -> Floats:
    # Column by column: taking several at once copies them at every draw.
    return np.array([weight @ table[c].to_numpy(float) for c in columns])


def _skill(errors: str) -> Score:
    """1 - Brier score over that of the rate of occurrence in the rows judged."""

    def score(table: pd.DataFrame, weight: Floats) -> float:
        n, o, error = _sums(table, weight, "n", "o", errors)
        spread = o * (n - o) / n
        return float(1 - error / spread) if spread > 0 else float("nan")

    return score


def _explained(errors: str) -> Score:
    """Explained share of the variance of amplitude, over the waves that were seen."""

    def score(table: pd.DataFrame, weight: Floats) -> float:
        waves, total, squares, error = _sums(table, weight, "waves", "a", "a2", errors)
        spread = squares - total**2 / waves if waves else 0.0
        return float(1 - error / spread) if spread > 0 else float("nan")

    return score


def _share(score: Score, best: Score) -> Score:
    return lambda table, weight: score(table, weight) / best(table, weight)


def roc_auc(table: pd.DataFrame, weight: Floats) -> float:
    """Area under the ROC curve, from probabilities in 200 bins."""
    yes, no = (weight @ table[names].to_numpy(float) for names in BINNED)
    below, pairs = np.cumsum(no) - no, yes.sum() * no.sum()
    return float((yes * (below + no / 2)).sum() / pairs) if pairs else float("nan")


def rmse(table: pd.DataFrame, weight: Floats) -> float:
    """Root mean squared error of amplitude."""
    error, waves = _sums(table, weight, "sse", "waves")
    return float(np.sqrt(error / waves))


accuracy = ratio("correct", "n")  # threshold 0.5
brier = ratio("se", "n")
brier_skill = _skill("se")
r2 = _explained("sse")
coverage_80 = ratio("inside", "waves")
accuracy_of_best = ratio("correct", "best_correct")
brier_skill_of_best = _share(brier_skill, _skill("best_se"))
r2_of_best = _share(r2, _explained("best_sse"))
