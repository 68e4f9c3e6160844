"""The rule-based baseline: an isolated spike of E4_0 by ratio and prominence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from terrella.steps.events import join, match, runs
from terrella.tasks.precipitation.capannolo import L_RANGE
from terrella.tasks.precipitation.prepare import ORDER, QUANTUM
from terrella.tasks.precipitation.task import CLASSES, Recipe
from terrella.types import Outputs, Windows

CERTAIN = 12.0  # logit of a rule that says yes or no
DAYS = 12  # that tune the thresholds; more would not move them
SIDE = 10  # samples either side over which E1 is looked at


@dataclass(frozen=True)
class Rule:
    """Thresholds; ``fit`` chooses them on training days.

    Attributes:
        counts: E4_0 over three samples, at least.
        ratio: E4_0 over E4_90, at least.
        prominence: E4_0 over its median in the minute around, at least.
        isotropy: E1_0 over E1_90 that counts as isotropic: an event with that on one side only
            lies at the isotropy boundary and is CSS, any other REP.
    """

    counts: float = 6.0
    ratio: float = 0.5
    prominence: float = 3.0
    isotropy: float = 0.5


GRID = [
    Rule(*values)
    for values in itertools.product((5, 8, 12), (0.4, 0.6, 0.8), (2, 4, 8), (0.3, 0.5, 0.7))
]


def ratio_prominence(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """Thresholds chosen on training days, then applied row by row.

    Args:
        train: windows with their truth; the default thresholds stand if there are none.
        recipe: not used; every baseline is made alike.

    Returns:
        A predictor whose ``logits`` (rows, 3) say one class with certainty.
    """
    rule = fit(train) if train else Rule()

    def predictor(windows: Windows) -> Outputs:
        said = classes(windows, rule)
        logits = np.zeros((len(said), len(CLASSES)), np.float32)
        logits[np.arange(len(said)), said] = CERTAIN
        return {"logits": logits}

    return predictor


def fit(train: Sequence[Windows]) -> Rule:
    """The thresholds of the best mean event F1 on the first of the training days."""
    train = train[:DAYS]

    def value(rule: Rule) -> float:
        scores = []
        said = [classes(w, rule) for w in train]
        for k in (1, 2):
            hits = total = 0
            for windows, here in zip(train, said, strict=True):
                assert windows.y is not None
                found = join(*runs(here == k), 2)
                real = runs(windows.y["class"].numpy() == k)
                hits += int(match(found, real, 3)[0].sum())
                total += len(found[0]) + len(real[0])
            scores.append(2 * hits / max(total, 1))
        return float(np.mean(scores))

    return max(GRID, key=value)


def classes(windows: Windows, rule: Rule) -> np.ndarray:
    """Class of every row by a rule.

    Returns:
        (rows,) int.
    """
    seen = np.maximum(windows.extra["flux"] / QUANTUM, 0.0)
    zero, ninety = (_summed(seen[:, ORDER.index(k)], 3) for k in ("e4_0", "e4_90"))
    around = _median(zero, 31)
    L = windows.extra["L"]
    spike = (
        (zero >= rule.counts)
        & (zero >= rule.ratio * ninety)
        & (zero >= rule.prominence * np.maximum(around, 0.75))
        & (L_RANGE[0] <= L)
        & (L_RANGE[1] >= L)
    )
    share = (_summed(seen[:, 0], SIDE) + SIDE) / (_summed(seen[:, 1], SIDE) + SIDE)
    before, after = np.roll(share, SIDE), np.roll(share, -SIDE)
    css = (before > rule.isotropy) ^ (after > rule.isotropy)
    said: np.ndarray = np.where(spike, np.where(css, 2, 1), 0)[windows.extra["middle"]]
    return said


def _summed(values: np.ndarray, length: int) -> np.ndarray:
    return np.convolve(values, np.ones(length), "same")


def _median(values: np.ndarray, length: int) -> np.ndarray:
    padded = np.pad(values, length // 2, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, length)
    middle: np.ndarray = np.median(views, axis=1)
    return middle
