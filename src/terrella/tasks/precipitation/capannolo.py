"""The published event rules, step by step, traps included.

Capannolo, Li & Huang 2022, doi:10.3389/fspas.2022.858990; 2024, doi:10.3389/fspas.2024.1495008.
Each class is treated by itself, and a file by itself; time gaps are ignored.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline

from terrella.steps.events import Runs, runs

L_RANGE = (2.5, 8.5)
L_REACH = 10  # rows either side of a run in which L may lie in range
SHIFT = 3  # from a window's first sample to its centre
JOIN = 5  # samples between starts
TWO_COUNTS = 2 * 181.818  # E4; the archive's float32 of two counts, 363.63635, is above


def class_runs(winner: np.ndarray, label: int) -> Runs:
    """(a) Runs of one class by argmax; a run still open at the last row is dropped.

    Args:
        winner: (rows,) class of each row.
        label: the class.

    Returns:
        First and last row of each run, inclusive.
    """
    start, stop = runs(winner == label)
    closed = stop < len(winner) - 1
    return start[closed], stop[closed]


def spline_filled(L: np.ndarray) -> np.ndarray:
    """L with its undefined values (below 0) replaced by a cubic spline over sample number.

    Args:
        L: (samples,).

    Returns:
        (samples,) float64; unchanged where fewer than four values are known.
    """
    known = L >= 0
    if known.all() or known.sum() < 4:
        return L.astype(float)
    index = np.arange(len(L))
    spline = CubicSpline(index[known], L[known].astype(float))
    return np.where(known, L, spline(index))


def in_belt(start: np.ndarray, stop: np.ndarray, L: np.ndarray) -> np.ndarray:
    """(b) Whether any L in [start - 10, stop + 10], clipped to the file, lies within 2.5..8.5.

    Args:
        start, stop: rows, used as sample numbers, as published.
        L: (samples,).

    Returns:
        (runs,) bool.
    """
    inside = np.concatenate([[0], np.cumsum((L_RANGE[0] <= L) & (L_RANGE[1] >= L))])
    lo = np.maximum(start - L_REACH, 0)
    hi = np.minimum(stop + L_REACH + 1, len(L))
    near: np.ndarray = inside[hi] > inside[lo]
    return near


def joined(start: np.ndarray, stop: np.ndarray) -> Runs:
    """(d) Join runs whose starts are at most 5 samples apart, with the published traps.

    Differences are taken once, from start to start. In a chain of three the third's extent is lost,
    and a long event followed closely by another is not joined.
    """
    stop = stop.copy()
    close = np.diff(start) <= JOIN
    for i in np.flatnonzero(close):
        stop[i] = max(stop[i], stop[i + 1])
    keep = np.concatenate([[True], ~close])[: len(start)]
    return start[keep], stop[keep]


def energetic(start: np.ndarray, stop: np.ndarray, flux: dict[str, np.ndarray]) -> np.ndarray:
    """(e) Whether E4 rises above noise and does not exceed the lower channels.

    Args:
        start, stop: samples; start..stop-1 is looked at, the one sample if they are equal.
        flux: raw e1_0, e2_0, e3_0, e4_0, e4_90 (samples,), fills included.

    Returns:
        (runs,) bool.
    """
    keep = np.zeros(len(start), bool)
    for k, (lo, hi) in enumerate(zip(start, stop, strict=True)):
        part = slice(lo, max(hi, lo + 1))
        peak = {n: float(flux[n][part].max()) for n in ("e1_0", "e2_0", "e3_0", "e4_0")}
        if peak["e4_0"] < TWO_COUNTS or float(flux["e4_90"][part].astype(float).mean()) <= 0:
            continue
        keep[k] = peak["e4_0"] <= peak["e3_0"] or (
            peak["e4_0"] <= peak["e2_0"] and peak["e4_0"] <= peak["e1_0"]
        )
    return keep


def events_2022(winner: np.ndarray, label: int, L: np.ndarray) -> Runs:
    """Steps (a) and (b) without the spline; rows are reported as samples, as published."""
    start, stop = class_runs(winner, label)
    near = in_belt(start, stop, L.astype(float))
    return start[near], stop[near]


def events_2023(winner: np.ndarray, label: int, L: np.ndarray, flux: dict[str, np.ndarray]) -> Runs:
    """Steps (a) to (e).

    Args:
        winner: (rows,) class by argmax of windows 0..N-8.
        label: the class.
        L: (samples,), below 0 where undefined.
        flux: raw fluxes by name (samples,).

    Returns:
        First and last sample of each event, inclusive.
    """
    start, stop = class_runs(winner, label)
    near = in_belt(start, stop, spline_filled(L))
    start, stop = joined(start[near] + SHIFT, stop[near] + SHIFT)
    keep = energetic(start, stop, flux)
    return start[keep], stop[keep]
