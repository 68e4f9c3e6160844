"""Moving samples from one clock onto another: bin means and linear interpolation, never silently.

All times are datetime64[ns], ascending.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def bin_mean(time: Array, values: Array, clock: Array, reach: float | None = None) -> Array:
    """Mean of the samples between the mid-points of a clock's instants.

    A bin is [left, right): the mid-points towards its neighbours; the first and the last bin are
    as wide on their outer side as on their inner. Linear in the number of samples.

    Args:
        time: (samples,) ascending.
        values: (samples, ...); NaN samples are left out.
        clock: (rows,) ascending, the instants to average onto.
        reach: no bin goes further than this from its instant, seconds (a clock with a gap would
            otherwise average the gap's data into its edges).

    Returns:
        (rows, ...) float64; NaN where a bin holds no finite sample.
    """
    values = np.asarray(values)
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    out = np.full((len(clock), flat.shape[1]), np.nan)
    if len(clock) and len(time):
        left, right = _edges(_ns(clock), reach)
        lo = np.searchsorted(_ns(time), left, "left")
        hi = np.searchsorted(_ns(time), right, "left")
        for column in range(flat.shape[1]):
            out[:, column] = _range_mean(flat[:, column], lo, hi)
    return out.reshape(len(clock), *values.shape[1:])


def _range_mean(values: Array, lo: Array, hi: Array) -> Array:
    """Mean of values[lo:hi] for every pair; NaN for an empty or all-NaN range."""
    padded = np.append(np.asarray(values, float), 0.0)
    finite = np.isfinite(padded)
    padded[~finite] = 0.0
    # reduceat sums [lo, hi) at even places; odd places are the stretches between and are dropped.
    edges = np.column_stack([lo, hi]).ravel()
    sums = np.add.reduceat(padded, edges)[::2]
    count = np.add.reduceat(finite.astype(np.int64), edges)[::2]
    count = np.where(hi > lo, count, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Array = np.where(count > 0, sums / count, np.nan)
    return mean


def _edges(clock: Array, reach: float | None) -> tuple[Array, Array]:
    if len(clock) == 1:
        half = np.array([int((reach or 0.0) * 1e9)])
        return clock - half, clock + half
    steps = np.diff(clock)
    left = clock - np.concatenate([steps[:1], steps]) // 2
    right = np.concatenate([left[1:], [clock[-1] + (steps[-1] + 1) // 2]])
    if reach is not None:
        limit = int(reach * 1e9)
        left, right = np.maximum(left, clock - limit), np.minimum(right, clock + limit)
    return left, right


def interpolate(time: Array, values: Array, clock: Array, gap: float | None = None) -> Array:
    """Linear interpolation that does not bridge gaps and does not extrapolate.

    Args:
        time: (samples,) ascending.
        values: (samples, ...); a sample with any NaN is left out.
        clock: (rows,) the instants wanted.
        gap: longest distance between two samples that is bridged, seconds; three times the median
            step if None. An instant up to half a step beyond an end takes that end's value: the
            sample was measured over that time.

    Returns:
        (rows, ...) float64; NaN in gaps and beyond the ends.
    """
    values = np.asarray(values)
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    out = np.full((len(clock), flat.shape[1]), np.nan)
    finite = np.isfinite(flat).all(axis=1)
    known, flat = _ns(time)[finite], flat[finite]
    if len(known) < 2 or not len(clock):
        return out.reshape(len(clock), *values.shape[1:])
    step = float(np.median(np.diff(_ns(time))))
    longest = 3 * step if gap is None else gap * 1e9
    wanted = _ns(clock)
    right = np.clip(np.searchsorted(known, wanted, "right"), 1, len(known) - 1)
    width = (known[right] - known[right - 1]).astype(float)
    share = np.clip((wanted - known[right - 1]) / width, 0.0, 1.0)
    good = (width <= longest) | (share <= 0) | (share >= 1)
    good &= (wanted >= known[0] - step / 2) & (wanted <= known[-1] + step / 2)
    mixed = flat[right - 1] + (flat[right] - flat[right - 1]) * share[:, None]
    out[good] = mixed[good]
    return out.reshape(len(clock), *values.shape[1:])


def segments(time: Array, gap: float) -> Array:
    """Number of the unbroken stretch each sample is in; a step above ``gap`` seconds breaks it."""
    steps = np.diff(_ns(time), prepend=_ns(time)[:1])
    broken: Array = np.cumsum((steps > gap * 1e9) | (steps < 0))
    return broken


def _ns(time: Array) -> Array:
    return np.asarray(time, "datetime64[ns]").astype(np.int64)
