from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from terrella.tasks.geoflux import calibrate
from terrella.tasks.geoflux.inputs import open_source
from terrella.tasks.geoflux.task import Options
from terrella.types import Refused

DAYS = np.datetime64("2014-01-01") + np.arange(800)


def pair(
    rng: np.random.Generator, bend: float = 0.0, outliers: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(2.5, 0.9, len(DAYS))
    y = calibrate.line(np.array([-0.3, 1.1, bend]), x, 2.6) + rng.normal(0, 0.08, len(DAYS))
    wild = rng.random(len(DAYS)) < outliers
    return x, np.where(wild, y + rng.uniform(1, 2, len(DAYS)), y)


def test_a_straight_line_is_found_and_stays_straight() -> None:
    x, y = pair(np.random.default_rng(0))
    made = calibrate.fit(x, y, DAYS, "goes13", "goes15")
    assert made.bend == 0.0
    assert made.slope == pytest.approx(1.1, abs=0.02)
    assert made.offset == pytest.approx(-0.3, abs=0.05)
    assert made.lo < float(np.median(-0.3 + 0.1 * x)) < made.hi


def test_a_bend_is_found() -> None:
    x, y = pair(np.random.default_rng(1), bend=-0.5)
    made = calibrate.fit(x, y, DAYS, "goes13", "goes15")
    assert made.bend == pytest.approx(-0.5, abs=0.12)
    away = np.log10(made.apply(10**x)) - y
    assert abs(np.median(away)) < 0.02


def test_outliers_do_not_move_it() -> None:
    x, y = pair(np.random.default_rng(2), outliers=0.1)
    made = calibrate.fit(x, y, DAYS, "a", "b", kind="straight")
    clean = -0.3 + 1.1 * np.median(x)
    robust = abs(float(made.offset + made.slope * np.median(x)) - clean)
    plain = np.polyval(np.polyfit(x, y, 1), np.median(x)) - clean
    assert robust < 0.03 < plain


def test_too_little_overlap_is_refused() -> None:
    x, y = pair(np.random.default_rng(3))
    y[40:] = np.nan
    with pytest.raises(Refused, match="share 40 days"):
        calibrate.fit(x, y, DAYS, "goes13", "goes15")


@pytest.mark.parametrize("text", ["goes13", "goes13:", "a:b,c:d", "a:a"])
def test_a_pair_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="--calibrate"):
        calibrate.pairs(text)


def test_recent_days_count_most_and_drift_is_measured() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(2.5, 0.9, len(DAYS))
    years = np.arange(len(DAYS)) / 365.25
    y = x - 0.1 * years + rng.normal(0, 0.05, len(DAYS))
    made = calibrate.fit(x, y, DAYS, "a", "b", kind="straight", draws=5)
    rest = np.log10(made.apply(10**x)) - y
    assert calibrate.drift(rest, DAYS) == pytest.approx(0.1, abs=0.01)
    assert abs(np.median(rest[-200:])) < abs(np.median(rest[:200]))
    assert np.isnan(calibrate.drift(rest[:30], DAYS[:30]))


@pytest.mark.realdata
def test_goes13_to_goes15_holds_on_years_not_fitted(realdata: Path) -> None:
    from terrella.tasks.geoflux.commands import daily_of

    folder = realdata / "geoflux"
    x, day = daily_of(open_source([folder], Options(satellite="goes13")).series["flux"])
    y, day_y = daily_of(open_source([folder], Options(satellite="goes15")).series["flux"])
    days, i, j = np.intersect1d(day, day_y, return_indices=True)
    x, y = x[i], y[j]
    years = days.astype("datetime64[Y]").astype(int) + 1970
    before, after = [], []
    for year in range(2014, 2018):
        out = years == year
        made = calibrate.fit(x, np.where(out, np.nan, y), days, "goes13", "goes15", draws=20)
        ratio = (np.log10(made.apply(10**x)) - y)[out]
        after.append(float(np.nanmedian(ratio)))
        before.append(float(np.nanmedian((x - y)[out])))
    assert np.abs(after).max() < 0.02
    assert np.abs(before).max() > 0.02, "there was something to calibrate"


@pytest.mark.realdata
def test_calibration_fills_gaps_and_is_told(realdata: Path) -> None:
    plain = open_source([realdata / "geoflux"], Options())
    filled = open_source([realdata / "geoflux"], Options(calibrate="goes13:goes15"))
    assert plain.series["flux"].attrs["satellite"] == "goes15"
    flux = filled.series["flux"]
    assert flux.attrs["calibration"][0]["satellite"] == "goes13"
    assert np.isfinite(flux.values).sum() > np.isfinite(plain.series["flux"].values).sum() + 10000
    # What is scored stays the reference's own.
    own = filled.series["truth_flux"]
    assert np.isfinite(own.values).sum() == np.isfinite(plain.series["flux"].values).sum()


@pytest.mark.realdata
def test_the_past_alone_leaves_less_than_equal_weights(
    realdata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from terrella.tasks.geoflux.commands import daily_of

    folder = realdata / "geoflux"
    x, day = daily_of(open_source([folder], Options(satellite="goes13")).series["flux"])
    y, day_y = daily_of(open_source([folder], Options(satellite="goes15")).series["flux"])
    days, i, j = np.intersect1d(day, day_y, return_indices=True)
    x, y = x[i], y[j]
    past = days < np.datetime64("2016-01-01")
    left = []
    for memory in (calibrate.MEMORY, 1e9):
        monkeypatch.setattr(calibrate, "MEMORY", memory)
        made = calibrate.fit(x, np.where(past, y, np.nan), days, "a", "b", draws=2)
        left.append(abs(float(np.nanmedian((np.log10(made.apply(10**x)) - y)[~past]))))
    assert left[0] < left[1] - 0.005
