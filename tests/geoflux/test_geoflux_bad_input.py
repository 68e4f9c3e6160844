"""Item by item: what is wrong with a file is handled and flagged, or refused in one clear line."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.geoflux_scenes import hours, source, write_csv

import terrella
from terrella.tasks.geoflux.decode import FLAGS, MEANING, decode
from terrella.tasks.geoflux.inputs import Inputs, open_files, without
from terrella.tasks.geoflux.prepare import prepare
from terrella.tasks.geoflux.task import Options, Recipe
from terrella.types import Product, Refused

LAST = -1


@pytest.fixture(scope="module")
def model() -> terrella.Model:
    return terrella.load("geoflux")


def run(model: terrella.Model, source: Inputs, **options: object) -> Product:
    time = source.series["flux"]["time"].values
    start, stop = time[0] + np.timedelta64(24, "h"), time[-1] + np.timedelta64(2, "h")
    return terrella.run(model, source, start, stop, Options(**options))  # type: ignore[arg-type]


def flagged(product: Product, name: str) -> np.ndarray:
    return (product.series["flags"].values & FLAGS[name]) > 0


def changed(source: Inputs, hour: slice, value: float, *names: str) -> Inputs:
    series = {k: v.copy(deep=True) for k, v in source.series.items()}
    for name in names or ("flux", "flux_08"):
        series[name].values[hour] = value
    return dataclasses.replace(source, series=series)


def test_a_missing_day_is_flagged_and_still_forecast(model: terrella.Model) -> None:
    whole = source(120)
    made = run(model, changed(whole, slice(-24, None), np.nan))
    assert flagged(made, "flux_missing")[LAST] and flagged(made, "flux_gap")[LAST]
    assert not flagged(made, "flux_missing")[:50].all()
    assert np.isfinite(made.series["flux"].values[LAST]).all()
    wide, narrow = (
        np.log10(p.series["flux_hi80"] / p.series["flux_lo80"]).values[LAST, 0]
        for p in (made, run(model, whole))
    )
    assert wide > narrow, "less is known, and the interval says so"


def test_a_missing_week_gives_no_forecast_and_says_why(model: terrella.Model) -> None:
    made = run(model, changed(source(120), slice(-24 * 8, None), np.nan))
    assert flagged(made, "week_missing")[LAST]
    assert np.isnan(made.series["flux"].values[LAST]).all()
    assert np.isnan(made.series["p_flux_1e3"].values[LAST]).all()
    assert np.isfinite(made.series["flux"].values[20]).all()
    assert made.events is not None and "week_missing" in made.events["flags"].iloc[LAST]


def test_missing_solar_wind_and_indices_are_flagged(model: terrella.Model) -> None:
    made = run(model, without(source(120), ("V", "n", "Pdyn", "T", "Bz", "Bt", "Kp", "SYM-H")))
    for name in ("solar_wind_missing", "indices_missing"):
        assert flagged(made, name).all()
    assert np.isfinite(made.series["flux"].values[40]).all()


def test_negative_flux_is_removed_and_flagged(model: terrella.Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flux = 10 ** rng.normal(2.5, 0.2, 24 * 60)
    flux[24 * 40 + 5] = -12.0
    path = write_csv(tmp_path / "a.csv", flux=flux)
    with pytest.warns(UserWarning, match="1 negative flux removed"):
        job = open_files([path], Options()).jobs[0]
    made = terrella.run(model, job.source, job.start, job.stop)
    assert flagged(made, "negative_removed").sum() == 1


def test_a_satellite_jump_is_flagged(model: terrella.Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 24 * 80
    flux = 10 ** (2.0 + 0.3 * np.sin(np.arange(n) / 24 * 2 * np.pi) + rng.normal(0, 0.05, n))
    flux[n // 2 :] *= 20
    job = open_files([write_csv(tmp_path / "a.csv", n, flux)], Options()).jobs[0]
    made = terrella.run(model, job.source, job.start, job.stop)
    shifted = flagged(made, "level_shift")
    assert not shifted[: n // 48 - 2].any() and shifted[n // 48 + 1 : n // 48 + 20].all()
    assert "may shift on 2016-02-10" in made.series.attrs["remarks"]


def test_a_change_of_satellite_is_never_mixed_in(tmp_path: Path) -> None:
    a = write_csv(tmp_path / "a.csv", 24 * 90)
    table = tmp_path / "two.toml"
    table.write_text(
        '[a]\nmatch = "/a.csv$"\nheader = []\nsatellite = "goes13"\nwidth = 2\n'
        'columns.1 = { name = "flux", units = "cm-2 s-1 sr-1" }\n'
        '[b]\nmatch = "/b.csv$"\nsatellite = "goes15"\nwidth = 2\n'
        'columns.1 = { name = "flux", units = "cm-2 s-1 sr-1" }\n'
    )
    body = a.read_text().splitlines()[1:]
    a.write_text("\n".join(body) + "\n")
    later = [line for line in body if line >= "2016-01-20"]
    scaled = [f"{t},{2 * float(v):.6g}" for t, v in (line.split(",") for line in later)]
    more = [
        f"{np.datetime_as_string(t, 's')},200" for t in hours(48, np.datetime64("2016-03-31", "ns"))
    ]
    (tmp_path / "b.csv").write_text("\n".join(scaled + more) + "\n")
    paths = [a, tmp_path / "b.csv"]
    plain = open_files(paths, Options(columns=str(table))).jobs[0].source
    assert plain.series["flux"].attrs["satellite"] == "goes15"
    assert plain.series["flux"]["time"].values[0] == np.datetime64("2016-01-20", "ns")
    both = open_files(paths, Options(columns=str(table), calibrate="goes13:goes15")).jobs[0].source
    flux = both.series["flux"]
    assert flux["time"].values[0] == np.datetime64("2016-01-01", "ns")
    first = float(body[0].split(",")[1])
    assert flux.values[0] == pytest.approx(2 * first, rel=0.02), "put on the scale of goes15"
    with pytest.raises(Refused, match="'goes14' is not in these files; they have goes13, goes15"):
        open_files(paths, Options(columns=str(table), calibrate="goes14:goes15"))


def test_unsorted_and_doubled_times_are_put_right_and_flagged(
    model: terrella.Model, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "a.csv", 24 * 40)
    head, *body = path.read_text().splitlines()
    clean = open_files([path], Options()).jobs[0].source.series["flux"]
    mixed = [*body[500:], *body[:520]]
    path.write_text("\n".join([head, *mixed]) + "\n")
    with pytest.warns(UserWarning, match="out of order; sorted, 20 doubled times kept once"):
        job = open_files([path], Options()).jobs[0]
    np.testing.assert_array_equal(job.source.series["flux"].values, clean.values)
    made = terrella.run(model, job.source, job.start, job.stop)
    assert flagged(made, "times_repaired").all()


def test_a_fluence_is_not_a_flux(tmp_path: Path) -> None:
    n = 24 * 40
    daily = np.full(n, 86400 * 300.0)
    with pytest.raises(Refused, match="if it is a daily fluence, say so: units 'cm-2 sr-1 day-1'"):
        open_files([write_csv(tmp_path / "a.csv", n, daily)], Options())
    said = write_csv(tmp_path / "b.csv", n, **{"flux_08 [cm-2 sr-1 day-1]": daily})
    source = open_files([said], Options()).jobs[0].source
    np.testing.assert_allclose(source.series["flux_08"].values, 300.0)
    odd = write_csv(tmp_path / "c.csv", n, **{"flux_08 [furlongs]": daily})
    with pytest.raises(Refused, match="comes in 'furlongs'"):
        open_files([odd], Options())


def test_kp_times_ten(tmp_path: Path) -> None:
    n = 24 * 40
    tenths = np.tile([10.0, 27.0, 53.0], n // 3)
    with pytest.raises(Refused, match="Kp reaches 53"):
        open_files([write_csv(tmp_path / "a.csv", n, **{"Kp [1]": tenths})], Options())
    said = write_csv(tmp_path / "b.csv", n, **{"Kp [0.1]": tenths})
    source = open_files([said], Options()).jobs[0].source
    assert source.series["Kp"].values.max() == pytest.approx(5.3)


@pytest.mark.parametrize(
    ("issue", "why"),
    [("2016-13-01", "is not a time"), ("2031-01-01", "the flux runs from"),
     ("2016-02-02:2016-02-01", "is before the first"), ("yesterday", "is not a time")],
)  # fmt: skip
def test_issue_times_that_cannot_be(tmp_path: Path, issue: str, why: str) -> None:
    path = write_csv(tmp_path / "a.csv")
    with pytest.raises(Refused, match=why):
        open_files([path], Options(issue=issue))


@pytest.mark.parametrize(
    ("issue", "rows", "first"),
    [("2016-02-01", 1, "2016-02-01T00"), ("2016-02-01:2016-02-10", 10, "2016-02-01T00"),
     ("2016-02-01T06", 1, "2016-02-01T06"),
     ("2016-02-01T06:00:2016-02-03T06:00", 3, "2016-02-01T06"),
     ("", 60, "2016-01-02T00")],
)  # fmt: skip
def test_issue_times(
    model: terrella.Model, tmp_path: Path, issue: str, rows: int, first: str
) -> None:
    path = write_csv(tmp_path / "a.csv")
    options = Options(issue=issue)
    job = open_files([path], options).jobs[0]
    made = terrella.run(model, job.source, job.start, job.stop, options)
    assert len(made.series["time"]) == rows
    assert made.series["time"].values[0] == np.datetime64(first, "ns")


def test_alert_levels_can_be_set(model: terrella.Model) -> None:
    made = run(model, source(60), alerts="flux:500,fluence:2e8").series
    assert made["p_flux_5e2"].attrs["threshold"] == 500
    assert made["p_fluence_2e8"].values.shape == made["flux"].shape
    with pytest.raises(Refused, match="--alerts"):
        run(model, source(60), alerts="flux:many")


def test_fluence_is_the_flux_of_a_day(model: terrella.Model) -> None:
    made = run(model, source(60)).series
    for suffix in ("", "_lo80", "_hi95"):
        np.testing.assert_allclose(
            made["fluence" + suffix], 86400 * made["flux" + suffix], rtol=1e-5
        )
    assert (made["flux_lo95"] <= made["flux_lo50"]).all()
    assert (made["flux_lo50"] <= made["flux"]).all() and (made["flux"] <= made["flux_hi50"]).all()


def test_two_hours_are_too_few(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", 20)
    with pytest.raises(Refused, match=r"a\.csv: the flux runs from .* a day of it at least"):
        open_files([path], Options())
    job = open_files([write_csv(tmp_path / "b.csv", 30)], Options()).jobs[0]
    with pytest.raises(Refused, match="a forecast needs two days"):
        prepare(dict(job.source.series), Recipe(), Options())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"every": 0}, "--every 0: .* divisor of 24"),
        ({"every": 5}, "--every 5: .* divisor of 24"),
        ({"alerts": "foo"}, "^--alerts 'foo'"),
        ({"issue": "2018-06-01T06:30"}, "^--issue .*whole hours"),
        ({"issue": "2018-06-02:2018-06-01"}, "^--issue .*before the first"),
        ({"calibrate": "a"}, "^--calibrate 'a'"),
    ],
)
def test_options_are_checked_before_files(options: dict[str, object], says: str) -> None:
    with pytest.raises(Refused, match=says):
        open_files([Path("nosuch")], Options(**options))  # type: ignore[arg-type]


def test_a_missing_columns_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", 60)
    with pytest.raises(Refused, match=r"gone\.toml: no such file"):
        open_files([path], Options(columns=str(tmp_path / "gone.toml")))


def test_level_shift_owns_up_to_hindsight() -> None:
    assert "hindsight" in MEANING["level_shift"]


def test_no_flux_at_all(tmp_path: Path) -> None:
    n = 100
    path = tmp_path / "wind.csv"
    lines = [f"{np.datetime_as_string(t, 's')},400" for t in hours(n)]
    path.write_text("time,V [km s-1]\n" + "\n".join(lines) + "\n")
    with pytest.raises(Refused, match="no >2 MeV electron flux"):
        open_files([path], Options())


def test_a_bad_file_in_a_folder_is_left_out_and_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("nonsense\n")
    opened = open_files([tmp_path], Options())
    assert [r.what for r in opened.refused] == [str(tmp_path / "b.csv")]
    assert len(opened.jobs) == 1


def test_decode_refuses_a_span_without_issue_times(model: terrella.Model) -> None:
    scene = source(40)
    windows = prepare(dict(scene.series), model.recipe, Options())
    from terrella.predict import predict

    outputs = predict(model.network, windows)
    time = windows.time[5] + np.timedelta64(1, "h")
    span = (time, time + np.timedelta64(2, "h"))
    with warnings.catch_warnings(), pytest.raises(Refused, match="no issue time"):
        decode(outputs, windows, dict(scene.series), span, model.recipe, Options())
