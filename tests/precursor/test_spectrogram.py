"""Images: equal to scipy's spectrogram, gaps masked, windows the same however files are cut."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from terrella.tasks.precursor.quality import FLAGS
from terrella.tasks.precursor.spectrogram import (
    Chain,
    batches,
    bridge,
    check,
    highpass,
    images,
    power,
    resizer,
)
from terrella.types import Refused

N = 21_600


def walk(n: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    level = np.array([[38_000.0], [100.0], [-25_000.0]])
    return level + np.cumsum(random.normal(0, 0.05, (3, n)), 1)


@pytest.mark.parametrize("kind", ["walk", "white", "tone", "steep"])
def test_equal_to_scipy_within_a_thousandth_of_a_db(kind: str) -> None:
    random = np.random.default_rng(1)
    data = {
        "walk": walk(N) - 38_000.0,
        "white": random.normal(0, 1, (3, N)),
        "tone": np.sin(2 * np.pi * 0.1 * np.arange(N)) + 1e-6 * random.normal(0, 1, (3, N)),
        "steep": np.cumsum(np.cumsum(random.normal(0, 1, (3, N)), 1), 1),
    }[kind]
    chain = Chain()
    frequency, time, expected = signal.spectrogram(
        data, 1.0, "hann", 256, 128, detrend="constant", scaling="density", mode="psd"
    )
    found = power(data, chain)
    assert found.shape == expected.shape == (3, 129, 167)
    np.testing.assert_allclose(frequency, chain.frequency)
    np.testing.assert_allclose(time, chain.offset)
    told = expected > expected.max() * 1e-12
    difference = 10 * np.log10(found[told] / expected[told])
    assert np.abs(difference).max() < 1e-3


def test_highpass_is_what_it_says() -> None:
    chain = Chain()
    t = np.arange(4 * N)
    for frequency, gain in ((0.01, 1.0), (0.1, 1.0), (0.0001, 0.0)):
        wave = np.sin(2 * np.pi * frequency * t)
        middle = highpass(wave, chain)[N : 3 * N]
        assert middle.std() * np.sqrt(2) == pytest.approx(gain, abs=0.02)


def test_brightness_means_the_same_everywhere() -> None:
    chain = Chain(low=-60, high=40)
    for level, value in ((-60, 0.0), (-10, 0.5), (40, 1.0), (80, 1.0), (-200, 0.0)):
        made = images(np.full((129, 167), level, np.float32), chain)
        assert made.shape == (224, 224)
        np.testing.assert_allclose(made, value, atol=1e-6)


def test_low_frequency_at_the_bottom_and_time_to_the_right() -> None:
    chain = Chain()
    t = np.arange(N)
    tone = np.where(t > N / 2, np.sin(2 * np.pi * 0.05 * t), 0.0)
    made = images(np.float32(10 * np.log10(power(tone, chain) + 1e-12)), chain)
    row, column = np.unravel_index(made.argmax(), made.shape)
    assert abs(chain.rows[row] - 0.05) < 0.006 and column > 112
    assert chain.rows[0] == 0.5 and chain.rows[-1] == 0.0
    np.testing.assert_allclose(resizer(129, 224).sum(1), 1.0, rtol=1e-6)


def one(field: np.ndarray, flags: np.ndarray | None = None, **settings: float) -> object:
    chain = Chain(**settings)  # type: ignore[arg-type]
    marks = np.zeros(field.shape[1], np.uint8) if flags is None else flags
    return next(iter(batches(field, marks, chain)))


def test_a_60_s_gap_is_masked_and_rings_nowhere() -> None:
    field = walk(N)
    whole = one(field)
    field[:, 9000:9060] = np.nan
    made = one(field)
    assert made.flags[0] == FLAGS["masked"]  # type: ignore[attr-defined]
    lost = made.lost[0, 0]  # type: ignore[attr-defined]
    starts = np.arange(167) * 128
    np.testing.assert_array_equal(lost, (starts < 9060) & (starts + 256 > 9000))
    far = np.r_[0:70, 120:224]
    difference = (made.image - whole.image)[0][..., far]  # type: ignore[attr-defined]
    assert np.abs(difference).max() < 0.03, "3 dB: nothing of the gap is seen elsewhere"


def test_a_short_gap_is_bridged_and_flagged() -> None:
    field = walk(N)
    field[1, 500:507] = np.nan
    made = one(field)
    assert made.flags[0] == FLAGS["interpolated"]  # type: ignore[attr-defined]
    assert not made.lost.any()  # type: ignore[attr-defined]


def test_a_window_with_too_little_is_dropped() -> None:
    field = walk(N)
    field[:, 3000:12_000] = np.nan
    made = one(field)
    assert made.flags[0] & FLAGS["dropped"]  # type: ignore[attr-defined]
    field = walk(N)
    field[2] = np.nan
    assert one(field).flags[0] & FLAGS["dropped"]  # type: ignore[attr-defined]


def test_a_step_is_taken_out_and_masked() -> None:
    field, flags = walk(N), np.zeros(N, np.uint8)
    whole = one(field)
    field[2, 10_000:] += 3000.0
    flags[10_000] = FLAGS["step"]
    made = one(field, flags)
    assert made.flags[0] == FLAGS["step"] | FLAGS["masked"]  # type: ignore[attr-defined]
    far = np.r_[0:80, 125:224]
    assert np.abs((made.image - whole.image)[0][..., far]).max() < 0.05  # type: ignore[attr-defined]


def test_batches_do_not_change_the_images() -> None:
    field = walk(10 * N)
    flags = np.zeros(field.shape[1], np.uint8)
    few = np.concatenate([b.image for b in batches(field, flags, Chain(), size=3)])
    many = np.concatenate([b.image for b in batches(field, flags, Chain(), size=50)])
    assert few.shape == (10, 3, 224, 224)
    assert np.abs(few - many).max() < 0.004, "less than one step of a byte"


def test_bridge_never_fills_with_zeros() -> None:
    field = walk(100)
    field[0, 10:20] = np.nan
    field[0, :3] = np.nan
    joined, short, long = bridge(field, 10)
    assert joined[0].min() > 37_000
    assert short[0, 10:20].all() and long[0, :3].all() and not short[1:].any()


@pytest.mark.parametrize("bad", [{"overlap": 1.0}, {"window": 300.0}, {"cadence": 600.0}])
def test_impossible_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(Refused):
        check(Chain(**bad))  # type: ignore[arg-type]
