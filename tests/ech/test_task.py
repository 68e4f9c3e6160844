"""Preparation, maps, products, simulation, judging and calibration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from terrella import product as products
from terrella import registry, verbs
from terrella.learn.metrics import calibration_error
from terrella.learn.split import blind, guard
from terrella.learn.train import Training
from terrella.task import Model, run
from terrella.tasks.ech import judge, scores
from terrella.tasks.ech.ablation import encoders
from terrella.tasks.ech.inputs import REACH, export, open_files
from terrella.tasks.ech.model import Lean
from terrella.tasks.ech.network import KINDS
from terrella.tasks.ech.predict import predict
from terrella.tasks.ech.prepare import prepare
from terrella.tasks.ech.simulate import drivers, simulate, truth
from terrella.tasks.ech.task import INPUTS, Evaluation, Options, Recipe
from terrella.types import NoData, Refused, Scene, Windows
from terrella.weights import Card

GRID = "L=2:7:1,MLT=0:24:3,MLAT=-10:10:5"
SMALL = Recipe(width=8, joint=16)
TASK = registry.get("ech")


@pytest.fixture(scope="module")
def record() -> dict[str, xr.DataArray]:
    return simulate(seed=1, hours=48)


@pytest.fixture(scope="module")
def files(record: dict[str, xr.DataArray], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return export(record, tmp_path_factory.mktemp("ech") / "scene")


@pytest.fixture(scope="module")
def model(record: dict[str, xr.DataArray]) -> Model:
    torch.manual_seed(0)
    network = Lean(SMALL)
    network.fit_scale(prepare(record, SMALL, Options()).x)
    return Model(TASK, network.eval(), SMALL, Card("ech", "small"))


def _windows(model: Model, files: list[Path], options: Options) -> Windows:
    job = open_files(files, options).jobs[0]
    before = TASK.reach(SMALL, options)[0]
    return prepare(job.source.fetch(INPUTS, job.start - before, job.stop), SMALL, options)


def _windows_of(path: Path, options: Options) -> Windows:
    job = open_files([path], options).jobs[0]
    return prepare(job.source.fetch(INPUTS, job.start - REACH, job.stop), SMALL, options)


def test_files_hold_what_was_simulated(
    record: dict[str, xr.DataArray], files: list[Path], model: Model
) -> None:
    assert [p.name for p in files] == ["scene.csv", "scene_probe1.csv", "scene_probe2.csv"]
    windows, direct = _windows(model, files, Options()), prepare(record, SMALL, Options())
    for name, value in windows.x.items():
        want = direct.x[name][:, :1] if name == "place" else direct.x[name]
        torch.testing.assert_close(value, want, atol=1e-3, rtol=1e-4)
    assert windows.y is not None and direct.y is not None
    torch.testing.assert_close(windows.y["occurrence"], direct.y["occurrence"][:, :1])


def test_a_map_equals_its_points(model: Model, files: list[Path]) -> None:
    everywhere = Options(grid=GRID, every="6h", amplitude_everywhere=True)
    windows = _windows(model, files[:1], everywhere)
    assert windows.x["place"].stride(0) == 0, "the grid is held once, not once an instant"
    shared = predict(model.network, windows)
    own = dataclasses.replace(windows, x={**windows.x, "place": windows.x["place"].contiguous()})
    plain = predict(model.network, own)
    for name, value in plain.items():
        np.testing.assert_allclose(shared[name], value, atol=2e-5, rtol=1e-4)
    half = float(1 / (1 + np.exp(-np.median(shared["logit"]))))
    windows.extra["threshold"] = half
    chosen = predict(model.network, windows)
    wanted = shared["logit"] >= np.log(half / (1 - half))
    assert 0.3 < wanted.mean() < 0.7
    np.testing.assert_array_equal(np.isfinite(chosen["mean"]), wanted)
    np.testing.assert_allclose(chosen["mean"][wanted], shared["mean"][wanted], rtol=1e-5)


def test_product_of_a_map(model: Model, files: list[Path], tmp_path: Path) -> None:
    options = Options(grid=GRID, every="6h", threshold=0.4)
    opened = open_files(files[:1], options)
    job = opened.jobs[0]
    made = run(model, job.source, job.start, job.stop, options).series
    assert dict(made.sizes) == {"time": 8, "L": 6, "MLT": 8, "MLAT": 5}
    np.testing.assert_array_equal(made["occurrence"] == 1, made["probability"] >= np.float32(0.4))
    assert (
        (made["amplitude_low"] < made["amplitude"]).where(made["amplitude"].notnull(), True).all()
    )
    assert made["extrapolation"].sel(L=7).all() and not made["extrapolation"].all()
    written = products.write(
        run(model, job.source, job.start, job.stop, options), tmp_path, "x", "ech"
    )
    with xr.open_dataset(written[0], engine="h5netcdf") as back:
        assert back["probability"].encoding["chunksizes"] == (1, 6, 8, 5)
        assert back.attrs["title"] and back["extrapolation"].attrs["flag_masks"].tolist() == [1, 2]


def test_a_long_map_is_streamed_and_filmed(
    model: Model, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from terrella.tasks.ech import inputs as module
    from terrella.tasks.ech.film import film

    options = Options(grid=GRID, every="2h")
    whole = open_files(files[:1], options)
    monkeypatch.setattr(module, "POINTS_A_JOB", 2000)
    pieces = open_files(files[:1], options)
    assert len(whole.jobs) == 1 and len(pieces.jobs) > 2
    verbs.finish(TASK, model, options, whole, tmp_path / "a", True)
    verbs.finish(TASK, model, options, pieces, tmp_path / "b", True)
    paths = [tmp_path / k / "scene_map.ech.nc" for k in "ab"]
    with (
        xr.open_dataset(paths[0], engine="h5netcdf") as a,
        xr.open_dataset(paths[1], engine="h5netcdf") as b,
    ):
        xr.testing.assert_allclose(a.load(), b.load(), atol=1e-5)
        assert a.sizes["time"] == 24
    film(paths[1], tmp_path / "storm.gif", "probability", 8, 6, 0.0)
    assert (tmp_path / "storm.gif").read_bytes()[:4] == b"GIF8"
    with pytest.raises(Refused, match=r"\.gif or \.mp4"):
        film(paths[1], tmp_path / "storm.avi")


def test_one_instant(model: Model, files: list[Path]) -> None:
    options = Options(grid=GRID, at="2013-01-01T06:30")
    job = open_files(files[:1], options).jobs[0]
    made = run(model, job.source, job.start, job.stop, options).series
    assert made["time"].values == [np.datetime64("2013-01-01T06:30")]
    early = Options(grid=GRID, at="2012-12-31T06:30")
    job = open_files(files[:1], early).jobs[0]
    with pytest.raises(Refused, match=r"SME begins .*48 h"):
        run(model, job.source, job.start, job.stop, early)
    late = Options(grid=GRID, at="2014-01-01T06:30")
    job = open_files(files[:1], late).jobs[0]
    with pytest.raises(Refused, match=r"SME ends at .*give a later file"):
        run(model, job.source, job.start, job.stop, late)


@pytest.mark.parametrize(("cadence", "at"), [("1min", "06:30:30"), ("5min", "06:33")])
def test_a_value_is_held_over_the_edge(
    files: list[Path], tmp_path: Path, cadence: str, at: str
) -> None:
    table = _table(files)[:: int(cadence[0])]
    path = tmp_path / "indices.csv"
    table.to_csv(path, index=False)
    windows = _windows_of(path, Options(grid=GRID, at=f"2013-01-01T{at}"))
    assert windows.valid.all() and not windows.extra["flag"].any()
    place = table["Date_UTC"].searchsorted("2012-12-30T06:30:00")
    assert float(windows.x["sme_hourly"][0, 0]) == pytest.approx(table["SME"].iloc[place])
    assert float(windows.x["sme_fast"][0, -1]) == pytest.approx(
        table["SME"].iloc[table["Date_UTC"].searchsorted("2013-01-01T06:30:00")]
    )


def test_an_orbit_between_the_minutes(files: list[Path], tmp_path: Path) -> None:
    time = pd.date_range("2013-01-01T10:02:30", periods=20, freq="30s")
    rows = pd.DataFrame({"time": time, "L": 5.0, "MLT": 3.0, "MLAT_deg": 1.0})
    rows.to_csv(tmp_path / "orbit.csv", index=False)
    table = _table(files)[::5]
    table.to_csv(tmp_path / "five.csv", index=False)
    windows = _windows_of(tmp_path / "five.csv", Options(orbit=str(tmp_path / "orbit.csv")))
    assert len(windows.time) == 20 and windows.valid.all()
    rows.assign(L=np.nan).to_csv(tmp_path / "orbit.csv", index=False)
    with pytest.raises(Refused, match=r"orbit\.csv: no place is known .* L is missing in every"):
        open_files([tmp_path / "five.csv"], Options(orbit=str(tmp_path / "orbit.csv")))


def test_a_gap_over_the_edge_is_bridged_alike(files: list[Path], tmp_path: Path) -> None:
    table = _table(files)
    whole = (table["Date_UTC"] < "2012-12-30T06:20:00") | (table["Date_UTC"] > "2012-12-30T06:40")
    table[whole].to_csv(tmp_path / "gap.csv", index=False)
    got = []
    for at in ("06:30", "06:25"):
        options = Options(grid=GRID, at=f"2013-01-01T{at}", bridge=30)
        windows = _windows_of(tmp_path / "gap.csv", options)
        assert windows.valid.all() and windows.extra["flag"][0] & 4
        got.append(float(windows.x["sme_hourly"][0, 0]))
    job = open_files([tmp_path / "gap.csv"], options).jobs[0]
    start = np.datetime64("2012-12-30T05:30", "ns")
    every = dataclasses.replace(job.source, every=np.timedelta64(5, "m"))  # type: ignore[type-var]
    fetched = every.fetch(INPUTS, start, job.stop)
    long = prepare(fetched, SMALL, options)
    np.testing.assert_allclose(long.x["sme_hourly"][-1, 0], got[1])
    with pytest.raises(Refused, match=r"gap of 2[01] min"):
        _windows_of(tmp_path / "gap.csv", dataclasses.replace(options, bridge=5))


def _table(files: list[Path]) -> pd.DataFrame:
    return pd.read_csv(files[0])


def test_a_gap_refuses_only_what_it_touches(
    model: Model, files: list[Path], tmp_path: Path
) -> None:
    table = _table(files)
    time = pd.to_datetime(table["Date_UTC"])
    gap = (time >= "2013-01-01T03:00") & (time < "2013-01-01T03:40")
    table.loc[gap, "SYM_H"] = 99999
    path = tmp_path / "gap.csv"
    table.to_csv(path, index=False)
    near = Options(grid=GRID, at="2013-01-01T06:02")
    job = open_files([path], near).jobs[0]
    with pytest.raises(Refused, match=r"SYM_H has a gap of 40 min .*last 5 h .*--bridge"):
        run(model, job.source, job.start, job.stop, near)
    bridged = dataclasses.replace(near, bridge=60.0)
    made = run(model, job.source, job.start, job.stop, bridged).series
    assert int(made["history_flag"][0]) & 4
    day = Options(grid=GRID, every="7min")
    job = open_files([path], day).jobs[0]
    made = run(model, job.source, job.start, job.stop, day).series
    lost = made["probability"].isnull().all(("L", "MLT", "MLAT"))
    assert 40 < int(lost.sum()) < 300, "5 h after the gap, and where an hourly value falls in it"
    np.testing.assert_array_equal(lost, (made["history_flag"].values & 16) > 0)
    assert (made["occurrence"].where(lost, -1) == -1).all()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.iloc[:2000], "too short for the 48 h"),
        (lambda t: t.assign(SME=-t["SME"]), "SME is -"),
        (lambda t: t.iloc[::10], "every 10 min"),
        (lambda t: t.iloc[::60], "--hourly"),
        (lambda t: t.assign(SYM_H=99999), "SYM_H holds fill values only"),
        (lambda t: t.drop(columns="SME"), r"no SME \(or AE\)"),
    ],
)
def test_bad_indices_are_one_line(files: list[Path], tmp_path: Path, change, why: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "bad.csv"
    change(_table(files)).to_csv(path, index=False)
    with pytest.raises(Refused, match=why) as refusal:
        open_files([path], Options(grid=GRID))
    assert "bad.csv" in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_orbit_outside_the_indices(files: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    path.write_text("time,L,MLT,MLAT\n2014-01-01T00:00,4,3,1\n2014-01-01T00:01,4,3,1\n")
    with pytest.raises(Refused, match=r"late\.csv: runs from 2014"):
        open_files([files[0], path], Options())
    source = open_files(files[:2], Options()).jobs[0].source
    with pytest.raises(NoData):
        source.fetch(INPUTS, np.datetime64("2015-01-01", "ns"), np.datetime64("2015-01-04", "ns"))
    with pytest.raises(Refused, match="no time step"):
        open_files(files[:1], Options(every="often"))
    with pytest.raises(Refused, match="--threshold"):
        open_files(files[:1], Options(threshold=1.5))


def test_simulated_physics() -> None:
    night, noon = truth(5.5, np.array([1.5, 12]), 0.0, 0.1, 4.0, 0.0)[0]
    equator, high = truth(5.5, 1.5, np.array([0.0, 15]), 0.1, 4.0, 0.0)[0]
    quiet, active = truth(5.5, 1.5, 0.0, np.array([0.0, 0.8]), 4.0, 0.0)[0]
    assert night > 3 * noon and equator > 2 * high and active > 1.1 * quiet
    inside, outside = truth(np.array([3.0, 5.5]), 1.5, 0.0, 0.1, 4.5, 0.0)[0]
    assert outside > 3 * inside
    force = drivers(np.full(4000, 700.0), np.full(4000, -50.0))
    np.testing.assert_allclose(force.plasmapause[-1], 5.6 - 0.46 * 2.3 * np.log(10))
    np.testing.assert_allclose(force.activity[-1], np.log10(7))


def test_draws_follow_the_probability_they_state() -> None:
    record = simulate(seed=2, hours=24 * 60)
    p, o = record["probability"].values.ravel(), record["occurrence"].values.ravel()
    bins = np.digitize(p, [0.1, 0.3, 0.6, 0.8])
    for k in range(5):
        here = bins == k
        assert abs(o[here].mean() - p[here].mean()) < 4 * np.sqrt(0.25 / here.sum())
    wave = o > 0
    miss = record["amplitude"].values.ravel()[wave] - record["mean"].values.ravel()[wave]
    assert abs(miss.std() - 4) < 0.2 and abs(miss.mean()) < 0.2
    assert len(np.unique(record["storm"])) >= 3


def test_scores_of_the_truth_are_the_best() -> None:
    record = simulate(seed=3, hours=24 * 40)
    windows = prepare(record, SMALL, Options(amplitude_everywhere=True))
    scene = Scene(record, windows)
    best = judge.attainable(scene, SMALL)
    table = judge.judge(best, scene, SMALL, Options())
    one = np.ones(len(table))
    for name in ("accuracy_of_best", "brier_skill_of_best", "r2_of_best"):
        assert getattr(scores, name)(table, one) == pytest.approx(1)
    assert scores.coverage_80(table, one) == pytest.approx(0.8, abs=0.03)
    assert calibration_error(table, one) < 0.03
    wrong = {**best, "logit": best["logit"] + 1.0}
    mute = judge.judge(
        {k: np.full_like(v, np.nan) for k, v in best.items()}, scene, SMALL, Options()
    )
    assert all(np.isnan(TASK.metrics[n](mute, one)) for n in TASK.metrics), "no answer, no score"
    worse = judge.judge(wrong, scene, SMALL, Options())
    assert scores.brier_skill_of_best(worse, one) < 0.97
    from sklearn.metrics import roc_auc_score

    seen = record["occurrence"].values.ravel()
    exact = roc_auc_score(seen, record["probability"].values.ravel())
    assert scores.roc_auc(table, one) == pytest.approx(exact, abs=2e-3)


def test_baselines_learn() -> None:
    learn = prepare(simulate(seed=4, hours=24 * 60, every=30), SMALL, Options())
    scene_record = simulate(seed=5, hours=24 * 60, every=30)
    scene = Scene(scene_record, prepare(scene_record, SMALL, Options(amplitude_everywhere=True)))
    outputs = {"best": judge.attainable(scene, SMALL)}
    for name, baseline in TASK.baselines.items():
        if name != "deepech":
            outputs[name] = baseline.fit((learn,), SMALL)(blind(scene.windows))
    with pytest.raises(NoData, match="not imported"):
        TASK.baselines["deepech"].fit((learn,), SMALL)
    found = {}
    for name, said in outputs.items():
        table = judge.judge(said, scene, SMALL, Options())
        one = np.ones(len(table))
        found[name] = scores.brier_skill(table, one), scores.r2(table, one)
    assert found["best"][0] > found["lightgbm"][0] > found["climatology"][0] > 0 > found["rate"][0]
    assert found["best"][1] > found["ridge"][1] > 0


def test_storms_are_judged_by_activity() -> None:
    record = simulate(seed=3, hours=24 * 40)
    windows = prepare(record, SMALL, Options(amplitude_everywhere=True))
    table = judge.judge(
        judge.attainable(Scene(record, windows), SMALL), Scene(record, windows), SMALL, Options()
    )
    assert not table.duplicated(["block", "activity"]).any() and "group" not in table
    storm = record["SYM_H"].sel(time=record["L"]["time"]).values < -50
    part = table[table["activity"] == "SYM-H < -50 nT"]
    assert part["n"].sum() == 2 * storm.sum() > 0
    assert table["n"].sum() == 2 * len(storm)
    assert not [k for k in blind(windows).extra if "probability" in k or "mean" in k]


def test_features_say_what_the_indices_did() -> None:
    record = simulate(seed=3, hours=24)
    windows = prepare(record, SMALL, Options())
    found = TASK.features(blind(windows))
    assert found.values.shape == (len(windows), 18) == (len(windows), len(found.names))
    column = dict(zip(found.names, found.values.T, strict=True))
    now = record["SYM_H"].sel(time=record["L"]["time"]).values
    np.testing.assert_allclose(np.sinh(column["asinh SYM-H now"]) * 100, now, atol=1e-3)
    assert (column["asinh SYM-H extreme 48 h"] <= column["asinh SYM-H mean 48 h"]).all()
    assert (column["asinh SME most 5 h"] >= column["asinh SME mean 5 h"]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_encoder_learns_a_little(kind: str) -> None:
    torch.manual_seed(0)
    windows = prepare(simulate(seed=6, hours=24 * 4), SMALL, Options())
    network = Lean(dataclasses.replace(SMALL, encoder=kind))
    network.fit_scale(windows.x)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = TASK.loss(network(**windows.x), windows.y, torch.ones(len(windows)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_encoders_are_rivals_of_each_other() -> None:
    rivals = encoders(TASK, SMALL, Training(epochs=1, batch=256))
    assert set(rivals) == set(KINDS) - {SMALL.encoder}
    fold = next(judge.plan([], Evaluation(days=4, learn=4, refit=True), SMALL, Options()))
    scene = fold.test[0]
    said = rivals["lstm"].fit(fold.train, SMALL)(blind(scene.windows))
    table = judge.judge(said, scene, SMALL, Options())
    assert np.isfinite(scores.brier_skill(table, np.ones(len(table))))


def test_calibration_mends_a_wrong_logit() -> None:
    rng = np.random.default_rng(0)
    raw = torch.from_numpy(rng.normal(0, 1, (4000, 1)).astype("f4"))
    seen = torch.from_numpy(
        (rng.random((4000, 1)) < 1 / (1 + np.exp(-2 * raw.numpy() + 1))).astype("f4")
    )
    heard = torch.where(seen > 0, 6 * torch.randn(4000, 1), torch.nan)
    network = Lean(SMALL)
    outputs = {"logit": raw, "mean": torch.zeros(4000, 1), "spread": torch.full((4000, 1), 3.0)}
    network.calibrate(outputs, {"occurrence": seen, "amplitude": heard})
    stages = network.stages
    assert float(stages.logit_gain) == pytest.approx(2, abs=0.25)
    assert float(stages.logit_shift) == pytest.approx(-1, abs=0.2)
    assert float(stages.spread_gain) == pytest.approx(2, abs=0.15)


def test_settling_reads_valid_rows_only() -> None:
    torch.manual_seed(0)
    windows = prepare(simulate(seed=8, hours=24 * 4), SMALL, Options())
    network = Lean(SMALL)
    network.fit_scale(windows.x)
    assert windows.y is not None
    y = {k: v.clone() for k, v in windows.y.items()}
    half = np.arange(len(windows)) < len(windows) // 2
    y["occurrence"][~torch.from_numpy(half)] = 1 - y["occurrence"][~torch.from_numpy(half)]
    network.settle([dataclasses.replace(windows, y=y, valid=windows.valid & half)], rows=100)
    with torch.no_grad():
        chance = torch.sigmoid(network(**windows.x)["logit"])[half]
    assert float(chance.mean()) == pytest.approx(float(y["occurrence"][half].mean()), abs=0.01)


def test_training_parts_share_no_storm(files: list[Path]) -> None:
    learned, held = judge.training([], {"days": 20, "held": 0.5}, SMALL, Options())
    assert not set(learned[0].groups["storm"]) & set(held[0].groups["storm"])
    fold = next(judge.plan([], Evaluation(days=10, learn=20), SMALL, Options()))
    guard(fold)
    assert not set(fold.train[0].groups["storm"]) & set(fold.test[0].windows.groups["storm"])
    assert fold.test[0].windows.extra["threshold"] == 0.0
    again = next(judge.plan([], Evaluation(days=10, learn=20, refit=True), SMALL, Options()))
    guard(again)
    assert again.refit and len(again.train) == 2 and not fold.refit
    with pytest.raises(Refused, match="groups"):
        judge.training(files, {}, SMALL, Options())  # two days are one storm: nothing to hold out


def test_files_are_judged_by_storms_apart_in_time(tmp_path: Path) -> None:
    made = export(simulate(seed=7, hours=24 * 200, every=120), tmp_path / "s")
    for refit in (False, True):
        fold = next(judge.plan(made, Evaluation(refit=refit), SMALL, Options()))
        guard(fold)
        assert len(fold.test) == 2 and bool(fold.validation) == refit
        tested = np.concatenate([s.windows.time[s.windows.valid] for s in fold.test])
        for part in fold.train + fold.validation:
            assert np.abs(part.time[part.valid][:, None] - tested).min() > REACH
    with pytest.raises(Refused, match="embargo"):
        guard(dataclasses.replace(fold, embargo=np.timedelta64(20, "D")))
