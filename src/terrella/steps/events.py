"""From a curve to events: runs, hysteresis, joins, and matching against the truth."""

from __future__ import annotations

import numpy as np

Runs = tuple[np.ndarray, np.ndarray]


def runs(mask: np.ndarray) -> Runs:
    """Runs of True.

    Args:
        mask: (samples,) bool.

    Returns:
        First and last index of each run, both inclusive.
    """
    edges = np.diff(np.concatenate([[False], np.asarray(mask, bool), [False]]).astype(np.int8))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1


def hysteresis(curve: np.ndarray, on: float, off: float, where: np.ndarray | None = None) -> Runs:
    """Runs in which a curve stays at ``off`` or above and reaches ``on`` at least once.

    Args:
        curve: (samples,); NaN ends a run.
        on, off: thresholds, on >= off.
        where: (samples,) bool that must hold throughout a run.

    Returns:
        First and last index of each run, both inclusive.
    """
    with np.errstate(invalid="ignore"):
        held = curve >= off
        lit = curve >= on
    if where is not None:
        held = held & where
    start, stop = runs(held)
    counted = np.concatenate([[0], np.cumsum(lit & held)])
    keep = counted[stop + 1] > counted[start]
    return start[keep], stop[keep]


def join(start: np.ndarray, stop: np.ndarray, gap: int, barrier: np.ndarray | None = None) -> Runs:
    """Join runs whose distance from one's stop to the next's start is at most ``gap`` samples.

    Args:
        start, stop: inclusive, sorted, not overlapping.
        gap: largest number of samples between two runs that are joined.
        barrier: (samples,) bool, True at a sample that lies behind a break in the series: runs on
            its two sides are never joined.

    Returns:
        The joined runs.
    """
    if len(start) < 2:
        return start, stop
    apart = start[1:] - stop[:-1] - 1 > gap
    if barrier is not None:
        crossed = np.cumsum(barrier)
        apart |= crossed[start[1:]] > crossed[stop[:-1]]
    return start[np.concatenate([[True], apart])], stop[np.concatenate([apart, [True]])]


def match(found: Runs, truth: Runs, tolerance: int) -> tuple[np.ndarray, np.ndarray]:
    """Pair found events with true ones, each at most once.

    Args:
        found, truth: runs of one class, sorted.
        tolerance: samples by which a found event may miss a true one and still hit it.

    Returns:
        For each found event whether it hits, and for each true event whether it is hit.
    """
    hit = np.zeros(len(found[0]), bool)
    caught = np.zeros(len(truth[0]), bool)
    k = 0
    for i, (start, stop) in enumerate(zip(*found, strict=True)):
        while k < len(truth[0]) and truth[1][k] < start - tolerance:
            k += 1
        if k < len(truth[0]) and truth[0][k] <= stop + tolerance:
            hit[i] = caught[k] = True
            k += 1
    return hit, caught
