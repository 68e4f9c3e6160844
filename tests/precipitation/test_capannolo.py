"""The published rules, each step against a hand-made case, and all against a plain rewriting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from terrella.tasks.precipitation import capannolo as rules

ONE = np.float32(181.81818)
TWO = np.float32(363.63635)


def winner(size: int, *spans: tuple[int, int], label: int = 1) -> np.ndarray:
    made = np.zeros(size, int)
    for lo, hi in spans:
        made[lo : hi + 1] = label
    return made


def flux(size: int, **values: float) -> dict[str, np.ndarray]:
    base = {"e1_0": 1e4, "e2_0": 5e3, "e3_0": 2e3, "e4_0": 900.0, "e4_90": 900.0}
    return {k: np.full(size, v, np.float32) for k, v in {**base, **values}.items()}


def spans(found: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in zip(*found, strict=True)]


def test_a_run_open_at_the_end_is_dropped_and_one_at_the_start_is_not() -> None:
    assert spans(rules.class_runs(winner(20, (0, 2), (10, 11), (18, 19)), 1)) == [(0, 2), (10, 11)]


def test_classes_are_treated_by_themselves() -> None:
    both = winner(20, (3, 4)) + winner(20, (5, 6), label=2)
    assert spans(rules.class_runs(both, 1)) == [(3, 4)]
    assert spans(rules.class_runs(both, 2)) == [(5, 6)]


@pytest.mark.parametrize(("at", "kept"), [(39, False), (40, True), (61, True), (62, False)])
def test_L_counts_ten_samples_either_side(at: int, kept: bool) -> None:
    L = np.full(200, 12.0)
    L[at] = 5.0
    assert rules.in_belt(np.array([50]), np.array([51]), L)[0] == kept


def test_the_range_of_L_is_closed() -> None:
    for value, kept in ((2.5, True), (2.499, False), (8.5, True), (8.501, False)):
        assert rules.in_belt(np.array([5]), np.array([5]), np.full(20, value))[0] == kept


def test_undefined_L_is_filled_by_a_cubic_spline() -> None:
    x = np.arange(40.0)
    L = 3 + 0.01 * (x - 20) ** 2 + 0.0005 * (x - 20) ** 3
    holed = L.copy()
    holed[15:22] = -1.0
    np.testing.assert_allclose(rules.spline_filled(holed), L, atol=1e-9)
    hidden = np.full(40, -1.0)
    hidden[[0, 1, 2]] = 5.0
    assert (rules.spline_filled(hidden) == hidden).all(), "three values make no cubic"


def test_only_2023_fills_L() -> None:
    L = np.full(100, 5.0)
    L[30:80] = -1.0
    chosen = winner(90, (50, 55))
    assert spans(rules.events_2022(chosen, 1, L)) == []
    assert spans(rules.events_2023(chosen, 1, L, flux(100))) == [(53, 58)]


def test_a_chain_of_three_loses_the_extent_of_the_third() -> None:
    start, stop = np.array([10, 14, 18]), np.array([12, 16, 21])
    assert spans(rules.joined(start, stop)) == [(10, 16)]


def test_starts_are_compared_so_a_long_event_is_not_joined() -> None:
    assert spans(rules.joined(np.array([10, 17]), np.array([15, 18]))) == [(10, 15), (17, 18)]
    assert spans(rules.joined(np.array([10, 15]), np.array([13, 18]))) == [(10, 18)]


def test_five_samples_between_starts_join_and_six_do_not() -> None:
    assert len(rules.joined(np.array([10, 15]), np.array([10, 15]))[0]) == 1
    assert len(rules.joined(np.array([10, 16]), np.array([10, 16]))[0]) == 2


def test_joining_nothing_and_one() -> None:
    empty = np.zeros(0, int)
    assert spans(rules.joined(empty, empty)) == []
    assert spans(rules.joined(np.array([4]), np.array([9]))) == [(4, 9)]


@pytest.mark.parametrize(("peak", "kept"), [(ONE, False), (TWO, True), (363.6, False)])
def test_two_counts_exactly_are_kept(peak: float, kept: bool) -> None:
    assert rules.energetic(np.array([5]), np.array([9]), flux(20, e4_0=peak))[0] == kept


def test_the_last_sample_is_not_looked_at_unless_it_is_the_only_one() -> None:
    quiet = flux(20, e4_0=0.0)
    quiet["e4_0"][9] = 900.0
    assert not rules.energetic(np.array([5]), np.array([9]), quiet)[0]
    assert rules.energetic(np.array([9]), np.array([9]), quiet)[0]


def test_fills_count_in_the_mean_of_E4_90() -> None:
    holed = flux(20, e4_90=900.0)
    holed["e4_90"][5:7] = -999.0
    assert not rules.energetic(np.array([5]), np.array([9]), holed)[0]
    holed["e4_90"][6] = 900.0
    assert rules.energetic(np.array([5]), np.array([9]), holed)[0]


@pytest.mark.parametrize(
    ("e1", "e2", "e3", "kept"),
    [(1e4, 1e4, 900, True), (900, 900, 899, True), (899, 900, 899, False), (900, 899, 899, False)],
)
def test_E4_may_not_exceed_the_lower_channels(e1: float, e2: float, e3: float, kept: bool) -> None:
    values = flux(20, e1_0=e1, e2_0=e2, e3_0=e3)
    assert rules.energetic(np.array([5]), np.array([8]), values)[0] == kept


def test_2022_reports_rows_unshifted() -> None:
    L = np.full(60, 5.0)
    assert spans(rules.events_2022(winner(53, (10, 12), (14, 15)), 1, L)) == [(10, 12), (14, 15)]
    assert spans(rules.events_2023(winner(53, (10, 12), (14, 15)), 1, L, flux(60))) == [(13, 18)]


def plainly(chosen: np.ndarray, L: np.ndarray, values: dict[str, np.ndarray]) -> list:
    """The rules again, one sample at a time."""
    events, at = [], None
    for i, value in enumerate(chosen):
        if value == 1 and at is None:
            at = i
        if value != 1 and at is not None:
            events.append([at, i - 1])
            at = None
    kept = []
    for a, b in events:
        near = [L[i] for i in range(max(a - 10, 0), min(b + 10, len(L) - 1) + 1)]
        if any(2.5 <= x <= 8.5 for x in near):
            kept.append([a + 3, b + 3])
    gaps = [kept[i + 1][0] - kept[i][0] for i in range(len(kept) - 1)]
    gone = set()
    for i, gap in enumerate(gaps):
        if gap <= 5:
            kept[i][1] = max(kept[i][1], kept[i + 1][1])
            gone.add(i + 1)
    out = []
    for i, (a, b) in enumerate(kept):
        inside = range(a, max(b, a + 1))
        top = {k: max(float(values[k][j]) for j in inside) for k in values if k.endswith("_0")}
        mean = sum(float(values["e4_90"][j]) for j in inside) / len(inside)
        if i in gone or top["e4_0"] < 2 * 181.818 or mean <= 0:
            continue
        low = top["e4_0"] <= top["e2_0"] and top["e4_0"] <= top["e1_0"]
        if top["e4_0"] <= top["e3_0"] or low:
            out.append((a, b))
    return out


@given(seed=st.integers(0, 10_000), size=st.integers(8, 120))
def test_the_whole_against_a_plain_rewriting(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = (rng.random(size - 7) < 0.4).astype(int)
    L = np.abs(np.cumsum(rng.normal(0, 1.5, size)) + 5)
    L[rng.random(size) < 0.3] = -1.0  # at the ends, too
    counts = {k: rng.choice([-999.0, 0.0, ONE, TWO, 900.0], size) for k in flux(1)}
    values = {k: v.astype(np.float32) for k, v in counts.items()}
    filled = L.copy()
    known = np.flatnonzero(L >= 0)
    if 4 <= len(known) < size:
        spline = CubicSpline(known, L[known])
        filled = np.array([spline(k) if L[k] < 0 else L[k] for k in range(size)])
    assert spans(rules.events_2023(chosen, 1, L, values)) == plainly(chosen, filled, values)
