from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from terrella.steps.events import hysteresis, join, match, runs

MASKS = hnp.arrays(bool, st.integers(0, 80))
CURVES = hnp.arrays(np.float64, st.integers(0, 80), elements=st.floats(0, 1))


def as_mask(found: tuple[np.ndarray, np.ndarray], size: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    for lo, hi in zip(*found, strict=True):
        mask[lo : hi + 1] = True
    return mask


@given(MASKS)
def test_runs_rebuild_their_mask(mask: np.ndarray) -> None:
    start, stop = runs(mask)
    assert np.array_equal(as_mask((start, stop), len(mask)), mask)
    assert (start <= stop).all()
    assert (start[1:] > stop[:-1] + 1).all()


@given(CURVES, st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_hysteresis_holds_off_and_reaches_on(curve: np.ndarray, a: float, b: float) -> None:
    on, off = max(a, b), min(a, b)
    found = hysteresis(curve, on, off)
    covered = as_mask(found, len(curve))
    for lo, hi in zip(*found, strict=True):
        assert (curve[lo : hi + 1] >= off).all()
        assert curve[lo : hi + 1].max() >= on
    assert covered[curve >= on].all(), "every sample at on or above belongs to an event"


def test_a_missing_value_ends_a_run() -> None:
    curve = np.array([0.9, 0.9, np.nan, 0.9])
    assert [list(x) for x in hysteresis(curve, 0.5, 0.3)] == [[0, 3], [1, 3]]


@given(MASKS, st.integers(0, 9))
def test_joined_runs_cover_the_old_and_only_short_gaps(mask: np.ndarray, gap: int) -> None:
    start, stop = runs(mask)
    joined = join(start, stop, gap)
    after = as_mask(joined, len(mask))
    assert after[mask].all()
    added = runs(after & ~mask)
    assert all(hi - lo + 1 <= gap for lo, hi in zip(*added, strict=True))
    assert (joined[0][1:] - joined[1][:-1] - 1 > gap).all()


def test_nothing_is_joined_across_a_barrier() -> None:
    start, stop = np.array([0, 4, 8]), np.array([2, 6, 9])
    barrier = np.zeros(12, bool)
    barrier[7] = True
    assert [list(x) for x in join(start, stop, 3, barrier)] == [[0, 8], [6, 9]]


@given(MASKS, MASKS, st.integers(0, 4))
def test_matches_are_one_to_one(found: np.ndarray, truth: np.ndarray, tolerance: int) -> None:
    hit, caught = match(runs(found), runs(truth), tolerance)
    assert hit.sum() == caught.sum()
    itself = match(runs(found), runs(found), 0)
    assert itself[0].all() and itself[1].all()


def test_tolerance_decides_a_near_miss() -> None:
    found, truth = (np.array([10]), np.array([12])), (np.array([15]), np.array([20]))
    assert not match(found, truth, 2)[0][0]
    assert match(found, truth, 3)[0][0]
