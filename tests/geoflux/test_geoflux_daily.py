from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.geoflux_scenes import hours

from terrella.tasks.geoflux import daily, features
from terrella.tasks.geoflux.drivers import analyse, history


def test_a_day_is_a_mean_never_a_short_sum() -> None:
    flux = np.full(48, 500.0)
    flux[24:30] = np.nan  # 18 of 24 hours left: just enough
    ends = np.array([24, 48])
    day = daily.daily_log_flux(flux, ends, 18)
    np.testing.assert_allclose(10**day, 500.0)
    np.testing.assert_allclose(daily.fluence(day), 500.0 * 86400)
    flux[30] = np.nan
    assert np.isnan(daily.daily_log_flux(flux, ends, 18)[1])
    np.testing.assert_allclose(daily.coverage(flux, ends), [1.0, 17 / 24])


def test_only_positive_hours_count() -> None:
    flux = np.where(np.arange(24) < 5, -3.0, 100.0)
    np.testing.assert_allclose(10 ** daily.daily_log_flux(flux, np.array([24]), 18), 100.0)


def test_hours_are_means_of_any_cadence() -> None:
    time = np.datetime64("2016-01-01", "ns") + np.arange(120) * np.timedelta64(1, "m")
    values = xr.DataArray(np.arange(120.0), dims="time", coords={"time": time})
    grid = daily.hours_of(time[0], time[-1])
    np.testing.assert_allclose(daily.to_hours(values, grid), [29.5, 89.5])


def test_shue_1998() -> None:
    # Nominal wind, worked by hand from the printed formula.
    by_hand = (10.22 + 1.29 * np.tanh(0.184 * 8.14)) * 2.0 ** (-1 / 6.6)
    assert daily.subsolar_distance(np.array([0.0]), np.array([2.0]))[0] == pytest.approx(by_hand)
    assert by_hand == pytest.approx(10.25, abs=0.02)
    assert np.isnan(daily.subsolar_distance(np.array([0.0]), np.array([0.0]))[0])
    south = daily.subsolar_distance(np.array([-10.0]), np.array([2.0]))[0]
    assert south < by_hand


def test_sum_of_kp_is_scaled_by_coverage() -> None:
    kp = np.repeat([1.0, 2, 3, 4, 5, 6, 7, 8], 3)
    assert daily.sum_kp(kp, np.array([24]))[0] == pytest.approx(36.0)
    kp[:3] = np.nan
    assert daily.sum_kp(kp, np.array([24]))[0] == pytest.approx(8 * 5.0)
    kp[:9] = np.nan
    assert np.isnan(daily.sum_kp(kp, np.array([24]))[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(30, 200), st.floats(0, 0.9))
def test_window_means_equal_plain_loops(seed: int, n: int, gone: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(n) < gone, np.nan, rng.normal(size=n))
    ends = rng.integers(-5, n + 40, 12)
    length, need = int(rng.integers(1, 40)), int(rng.integers(1, 10))
    got = daily.window_mean(x, ends, length, need)
    for end, value in zip(ends, got, strict=True):
        part = x[max(end - length, 0) : max(min(end, n), 0)]
        part = part[np.isfinite(part)]
        if len(part) < need:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(part.mean(), abs=1e-9)


def test_every_window_ends_before_issue() -> None:
    for name in features.DRIVERS:
        for label, a, b, _ in features.windows_of(name):
            assert 0 <= a < b <= features.HISTORY_H + 72, label
    assert len(features.names()) == len(features.groups()) == len(set(features.names()))


def test_features_equal_plain_means() -> None:
    rng = np.random.default_rng(0)
    n = 24 * 40
    hourly = {"flux": 10 ** rng.normal(2, 0.3, n), "V": rng.uniform(300, 600, n)}
    ends = np.array([24 * 35, 24 * 35 + 6])
    table = features.features(hourly, hours(n), ends)
    at = features.names().index
    for row, end in zip(table, ends, strict=True):
        V = hourly["V"] / 100
        assert row[at("V 0-3 h")] == pytest.approx(V[end - 3 : end].mean(), rel=1e-5)
        assert row[at("V max 24-48 h")] == pytest.approx(V[end - 48 : end - 24].max(), rel=1e-5)
        assert row[at("V min 0-24 h")] == pytest.approx(V[end - 24 : end].min(), rel=1e-5)
        assert row[at("day 1")] == pytest.approx(
            np.log10(hourly["flux"][end - 48 : end - 24].mean()), rel=1e-5
        )
        again = end - 27 * 24
        assert row[at("V 624-648 h")] == pytest.approx(V[again : again + 24].mean(), rel=1e-5)
        assert np.isnan(row[at("Kp 0-3 h")])


def test_drivers_find_the_lag_that_was_put_there() -> None:
    import pandas as pd

    rng = np.random.default_rng(0)
    n = 700
    V = np.convolve(rng.normal(size=n + 10), np.ones(3) / 3, "same")[:n]
    flux = np.roll(V, 2) + 0.3 * rng.normal(size=n)
    noise = np.cumsum(rng.normal(size=n)) * 0.1
    table = analyse(pd.DataFrame({"flux": flux, "V": V, "n": noise}), offsets=5, draws=300)
    speed = table[table["driver"] == "V"].set_index("offset_days")
    assert speed["rho"].idxmax() == 2
    assert speed.loc[2, "p"] < 0.01 and speed.loc[2, "lo"] > 0.5
    # A random walk correlates with anything by chance; p-values that know memory say so.
    assert table[table["driver"] == "n"]["p"].min() > 0.01
    assert 2 <= history(table) <= 4


def test_p_values_respect_memory() -> None:
    """Two independent series with long memory: p below 0.05 about one time in twenty."""
    import pandas as pd

    small = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, y = (np.convolve(rng.normal(size=760), np.ones(20), "valid")[:700] for _ in range(2))
        table = analyse(pd.DataFrame({"flux": y, "V": x}), offsets=0, draws=200, seed=seed)
        small += bool(table[table["driver"] == "V"]["p"].iloc[0] < 0.05)
    assert small <= 7  # iid p-values would give about 25 of 40
