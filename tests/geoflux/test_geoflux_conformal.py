from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from terrella.tasks.geoflux import conformal

RNG = np.random.default_rng(0)


def times(n: int) -> np.ndarray:
    return np.datetime64("2016-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D")


def covered(q: np.ndarray, y: np.ndarray) -> float:
    lo, hi = (int(np.argmin(np.abs(conformal.LEVELS - e))) for e in (0.1, 0.9))
    return float(((y >= q[..., lo]) & (y <= q[..., hi])).mean())


def test_the_table_gives_the_coverage_it_says() -> None:
    table = conformal.table_of(RNG.normal(size=(4000, 3)))
    y = RNG.normal(size=(2000, 3))
    q, _ = conformal.quantiles(np.zeros((2000, 3)), np.ones((2000, 3)), table, y, times(2000), 0)
    assert covered(q, y) == pytest.approx(0.8, abs=0.02)


def test_steering_repairs_a_table_that_no_longer_holds() -> None:
    table = conformal.table_of(RNG.normal(size=(4000, 3)))
    y = 1.7 * RNG.normal(size=(1200, 3)) + 0.4
    zero, one = np.zeros((1200, 3)), np.ones((1200, 3))
    still, _ = conformal.quantiles(zero, one, table, y, times(1200), 0.0)
    steered, seen = conformal.quantiles(zero, one, table, y, times(1200))
    assert covered(still, y) < 0.58
    assert covered(steered[300:], y[300:]) == pytest.approx(0.8, abs=0.03)
    assert (np.diff(seen) >= 0).all() and seen[0] == 0


def test_an_outcome_is_used_only_when_it_is_known() -> None:
    table = conformal.table_of(RNG.normal(size=(500, 3)))
    y = RNG.normal(size=(60, 3))
    args = (np.zeros((60, 3)), np.ones((60, 3)), table)
    y[40] = -50.0
    whole, _ = conformal.quantiles(*args, y, times(60))
    for lead in range(3):
        changed = y.copy()
        changed[40, lead] = 50.0  # known at row 40 + lead + 1, not before
        other, _ = conformal.quantiles(*args, changed, times(60))
        first = 40 + lead + 1
        np.testing.assert_array_equal(whole[:first], other[:first])
        assert (whole[first, lead] != other[first, lead]).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_quantiles_never_cross(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = conformal.table_of(rng.standard_t(3, size=(50, 3)))
    y = np.where(rng.random((80, 3)) < 0.2, np.nan, rng.normal(size=(80, 3)) * 5)
    q, _ = conformal.quantiles(
        rng.normal(size=(80, 3)), rng.uniform(0.1, 2, (80, 3)), table, y, times(80), 0.05
    )
    assert (np.diff(q, axis=-1) >= 0).all()
    p = [conformal.exceedance(q, t) for t in (-3.0, 0.0, 3.0)]
    assert (p[0] >= p[1]).all() and (p[1] >= p[2]).all()
    assert min(x.min() for x in p) >= 0 and max(x.max() for x in p) <= 1


def test_crps_and_exceedance_of_a_gaussian() -> None:
    q = np.broadcast_to(norm.ppf(conformal.LEVELS), (4000, 1, len(conformal.LEVELS)))
    y = RNG.normal(size=(4000, 1))
    exact = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / np.sqrt(np.pi)
    assert conformal.crps(q, y).mean() == pytest.approx(exact.mean(), rel=0.06)
    for level in (-2.5, -1.0, 0.0, 0.7, 2.5):
        assert conformal.exceedance(q[0], level)[0] == pytest.approx(1 - norm.cdf(level), abs=0.02)
    # A narrower truth-telling forecast scores better than a wide one.
    assert conformal.crps(q, y).mean() < conformal.crps(3 * q, y).mean()
