from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terrella.tasks.reconnection import physics
from terrella.tasks.reconnection.clocks import bin_mean, interpolate, segments
from terrella.tasks.reconnection.derive import FEATURES, normalise
from terrella.tasks.reconnection.frames import gsm_angle, to_gsm, turn
from terrella.tasks.reconnection.scale import Scale

T0 = np.datetime64("2017-07-11T22:34:00", "ns")


def at(*milliseconds: float) -> np.ndarray:
    return T0 + np.round(np.array(milliseconds) * 1e6).astype("m8[ns]")


def loop_mean(time: np.ndarray, values: np.ndarray, clock: np.ndarray) -> np.ndarray:
    """The plain loop: mid-points, outer bins as wide as inner, the whole array masked each time."""
    t, c = time.astype(np.int64), clock.astype(np.int64)
    middle = [c[k] - (c[k] - c[k - 1]) // 2 for k in range(1, len(c))]
    left = [c[0] - (c[1] - c[0]) // 2, *middle]
    right = [*middle, c[-1] + (c[-1] - c[-2] + 1) // 2]
    out = np.full(len(c), np.nan)
    for k in range(len(c)):
        inside = (t >= left[k]) & (t < right[k]) & np.isfinite(values)
        if inside.any():
            out[k] = values[inside].mean()
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 10**9), max_size=200),
    st.lists(st.integers(0, 10**9), min_size=2, max_size=40, unique=True),
    st.randoms(use_true_random=False),
)
def test_bin_means_are_those_of_a_plain_loop(
    samples: list[int], clock: list[int], rnd: object
) -> None:
    time = T0 + np.sort(np.array(samples, dtype="m8[ns]"))
    values = np.random.default_rng(len(samples)).normal(size=len(samples))
    values[::7] = np.nan
    ticks = T0 + np.sort(np.array(clock, dtype="m8[ns]"))
    got = bin_mean(time, values, ticks)
    np.testing.assert_allclose(got, loop_mean(time, values, ticks), rtol=1e-12, atol=1e-12)


def test_bin_means_at_the_ends_and_in_empty_bins() -> None:
    time, clock = at(0, 9, 11, 19, 21, 60, 69), at(5, 15, 25, 65)
    values = np.arange(7.0)[:, None] * [1.0, 10.0]
    got = bin_mean(time, values, clock)
    # bins: [0, 10) [10, 20) [20, 45) [45, 85)
    np.testing.assert_allclose(got[:, 0], [0.5, 2.5, 4.0, 5.5])
    np.testing.assert_allclose(got[:, 1], 10 * got[:, 0])
    near = bin_mean(time, values[:, 0], clock, reach=0.003)
    assert np.isnan(near).tolist() == [True, True, True, True]
    assert bin_mean(time[:0], values[:0, 0], clock).shape == (4,)
    assert np.isnan(bin_mean(time[:0], values[:0, 0], clock)).all()


def test_interpolation_bridges_no_gap_and_goes_beyond_no_end() -> None:
    time, values = at(0, 10, 20, 100, 110), np.array([0.0, 1.0, 2.0, 10.0, 11.0])
    got = interpolate(time, values, at(-6, -4, 5, 20, 60, 105, 114, 116))
    np.testing.assert_allclose(got, [np.nan, 0, 0.5, 2, np.nan, 10.5, 11, np.nan])
    # a NaN sample is left out, and bridged only if the gap allows
    values[1] = np.nan
    np.testing.assert_allclose(interpolate(time, values, at(10.0)), [1.0])
    assert np.isnan(interpolate(time, values, at(10.0), gap=0.01)).all()


def test_segments_break_at_gaps() -> None:
    assert segments(at(0, 30, 60, 200, 230), 0.075).tolist() == [0, 0, 0, 1, 1]


def test_background_correction_by_hand() -> None:
    # n 1.0, bg 0.2 cm-3, v = (100, 0, 0) km/s, P = 0.5 I nPa, P_bg = 0.1 nPa
    got = physics.without_background(
        np.array([1.0]), np.array([[100.0, 0, 0]]), 0.5 * np.eye(3)[None], np.array([0.2]),
        np.array([0.1]),
    )  # fmt: skip
    assert got.density[0] == pytest.approx(0.8)
    assert got.velocity[0].tolist() == pytest.approx([125.0, 0, 0])
    # m_p n v v = 1.67262192e-27 * 1e6 * 1e10 Pa = 0.0167262 nPa
    xx = 0.5 + 0.0167262192 - 0.1 - 1.67262192e-27 * 0.8e6 * 1.25e5**2 * 1e9
    np.testing.assert_allclose(got.pressure[0], np.diag([xx, 0.4, 0.4]), rtol=1e-12)
    none = physics.without_background(
        np.array([0.1]), np.ones((1, 3)), np.eye(3)[None], np.array([0.2]), np.array([0.0])
    )
    assert np.isnan(none.density).all() and np.isnan(none.velocity).all()


def test_temperature_along_and_across() -> None:
    pressure = np.diag([0.3, 0.1, 0.2])[None]
    along, across = physics.temperatures(pressure, np.array([0.5]), np.array([[7.0, 0, 0]]))
    # 1 nPa / 1 cm-3 = 1e-15 J = 6241.509 eV
    assert along[0] == pytest.approx(0.3 / 0.5 * 6241.509, rel=1e-6)
    assert across[0] == pytest.approx(0.15 / 0.5 * 6241.509, rel=1e-6)


def test_current_field_and_work_by_hand() -> None:
    n = np.array([0.5])
    vi, ve = np.array([[100.0, 0, 0]]), np.array([[0.0, -1000.0, 0]])
    ji, je = physics.current(n, vi, ve)
    assert ji[0, 0] == pytest.approx(1.602176634e-19 * 0.5e6 * 1e5 * 1e6)  # uA/m2
    assert je[0, 1] == pytest.approx(1.602176634e-19 * 0.5e6 * 1e6 * 1e6)
    b = np.array([[0.0, 0.0, 10.0]])
    # v x B = (vy Bz, 0, 0) = -1e6 m/s * 1e-8 T = -10 mV/m
    np.testing.assert_allclose(
        physics.electron_frame_field(np.array([[1.0, 2, 3]]), ve, b), [[-9.0, 2.0, 3.0]]
    )
    total, along, across = physics.work(np.array([[1.0, 2, 3]]), np.array([[4.0, 5, 6]]), b)
    assert (total[0], along[0], across[0]) == (32.0, 18.0, 14.0)


def test_alfven_speed() -> None:
    # 20 nT, 0.2 cm-3: 21.8 B/sqrt(n) km/s
    assert float(physics.alfven_speed(20.0, 0.2)) == pytest.approx(21.8 * 20 / 0.2**0.5, rel=2e-3)


def test_gsm_agrees_with_the_textbook() -> None:
    """Hapgood 1992 with the IGRF-13 dipole: sidereal time, Sun's longitude, obliquity."""
    time = np.array(["2017-07-11T22:34:00", "2018-01-05T03:00:00", "2020-08-29T09:55:00"], "M8[ns]")
    for when, angle in zip(
        time, [float(gsm_angle(time[k : k + 1])[0]) for k in range(3)], strict=True
    ):
        year = 1970 + float(when.astype("M8[s]").astype(float)) / 31557600.0
        share = (year - 2015) / 5
        g = [
            a + (b - a) * share
            for a, b in ((-29441.46, -29404.8), (-1501.77, -1450.9), (4795.99, 4652.5))
        ]
        days = (when - np.datetime64("2000-01-01T12:00:00", "ns")) / np.timedelta64(1, "D")
        hour = (when - when.astype("M8[D]")) / np.timedelta64(1, "h")
        century = (days - hour / 24) / 36525
        sidereal = np.radians(
            100.461 + 36000.770 * (np.floor(days - 0.5) + 0.5) / 36525 + 15.04107 * hour
        )
        anomaly = np.radians(357.528 + 35999.050 * days / 36525)
        sun = np.radians(
            280.460
            + 36000.772 * days / 36525
            + 1.915 * np.sin(anomaly)
            + 0.020 * np.sin(2 * anomaly)
        )
        tilt = np.radians(23.439 - 0.013 * century)
        pole = -np.array([g[1], g[2], g[0]]) / np.linalg.norm(g)
        gei = np.array([
            np.cos(sidereal) * pole[0] - np.sin(sidereal) * pole[1],
            np.sin(sidereal) * pole[0] + np.cos(sidereal) * pole[1], pole[2],
        ])  # fmt: skip
        ecliptic = np.array([
            gei[0], np.cos(tilt) * gei[1] + np.sin(tilt) * gei[2],
            -np.sin(tilt) * gei[1] + np.cos(tilt) * gei[2],
        ])  # fmt: skip
        y = -np.sin(sun) * ecliptic[0] + np.cos(sun) * ecliptic[1]
        wanted = -np.arctan2(y, ecliptic[2])
        # z_gsm = (0, -sin psi, cos psi) in GSE is along the dipole's part across the Sun line
        assert angle == pytest.approx(wanted, abs=np.radians(0.1))


def test_gsm_is_a_rotation_about_x() -> None:
    time = at(*np.arange(0, 180000, 1000))
    vectors = np.random.default_rng(0).normal(size=(len(time), 3))
    turned = to_gsm(vectors, time)
    np.testing.assert_allclose(turned[:, 0], vectors[:, 0])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(vectors, axis=1))
    np.testing.assert_allclose(turn(turned, -gsm_angle(time)), vectors, atol=1e-12)
    # the interpolated angle is the angle of each instant
    one = np.array([gsm_angle(time[k : k + 1])[0] for k in (0, 77, 150)])
    np.testing.assert_allclose(gsm_angle(time)[[0, 77, 150]], one, atol=2e-7)


def test_features_by_hand() -> None:
    scale = Scale(20.0, 0.2)
    v = 20e-9 / np.sqrt(0.2e6 * 1.67262192e-27 * 4e-7 * np.pi)
    vector = np.array([[1.0, 2.0, 3.0]])
    got = normalise(vector, vector, np.array([0.1]), np.array([0.3]), vector, vector, scale)[0]
    e = 1e-3 / (v * 20e-9)
    wanted = [1 / 20, -3 / 20, 2 / 20, e, -3 * e, 2 * e, 0.5, 1.5]
    wanted += [1e3 / v, -3e3 / v, 2e3 / v]
    wanted += [k / np.sqrt(1836) for k in wanted[8:11]]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    assert len(FEATURES) == got.shape[0] == 14
