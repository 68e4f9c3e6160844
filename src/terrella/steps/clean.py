"""Steps on raw series: gaps, carried values."""

from __future__ import annotations

import numpy as np


def breaks(time: np.ndarray, cadence: float, slack: float = 1.5) -> np.ndarray:
    """Where a series is interrupted.

    Args:
        time: (samples,) datetime64, increasing.
        cadence: nominal step in seconds.
        slack: a step longer than ``slack * cadence`` is a break.

    Returns:
        (samples,) bool, True at the first sample after a break.
    """
    step = np.diff(time) / np.timedelta64(1, "ms") / 1000.0
    return np.concatenate([[False], step > slack * cadence])


def spans(broken: np.ndarray, length: int) -> np.ndarray:
    """Which windows of ``length`` samples have a break inside them.

    Args:
        broken: (samples,) bool from ``breaks``.
        length: samples in a window.

    Returns:
        (samples - length + 1,) bool, or none if there is no window.
    """
    if len(broken) < length:
        return np.zeros(0, bool)
    count = np.concatenate([[0], np.cumsum(broken)])
    # A break at a window's first sample lies before it, not inside.
    return count[length:] > count[1 : len(broken) - length + 2]


def carry_forward(
    values: np.ndarray, known: np.ndarray, default: float, stops: np.ndarray | None = None
) -> np.ndarray:
    """Hold each known value until the next one.

    Args:
        values: (samples,).
        known: (samples,) bool.
        default: what stands before the first known value.
        stops: (samples,) bool, where nothing is carried over (the first sample after a break).

    Returns:
        (samples,) of the dtype of ``values``.
    """
    begins = known if stops is None else known | stops
    index = np.where(begins, np.arange(len(values)), -1)
    np.maximum.accumulate(index, out=index)
    held = (index >= 0) & known[index]
    return np.where(held, values[index], np.asarray(default, values.dtype))
