from __future__ import annotations

import dataclasses
import inspect
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from terrella import registry
from terrella.learn.compare import scores
from terrella.learn.evaluate import evaluate
from terrella.learn.metrics import calibration_error
from terrella.learn.split import blind, guard
from terrella.task import Judging
from terrella.tasks.reconnection import baselines, judge
from terrella.tasks.reconnection.derive import FEATURES
from terrella.tasks.reconnection.prepare import features, running
from terrella.tasks.reconnection.simulate import export, simulate
from terrella.tasks.reconnection.task import Evaluation, Options, Recipe
from terrella.types import Fold, NoData, Refused, Scene, Windows
from terrella.weights import import_published, load

RECIPE = Recipe(before=4, after=4)
HOW = Evaluation(paths=2, train_paths=3, seconds=15.0)
BEST = 1.0  # of a flow in V that is far above the threshold


def made(region: np.ndarray, seed: int = 0, probe: int = 1, name: str = "a") -> Windows:
    """Rows whose features are noise, but for Bx, which is the number of the region."""
    rng = np.random.default_rng((seed, probe))
    base = rng.normal(0, 0.1, (len(region) + 8, 14)).astype(np.float32)
    base[4:-4, 0] += region
    view = torch.from_numpy(base).unfold(0, 9, 1).transpose(1, 2)
    time = np.datetime64("2017-07-11", "ns") + np.arange(len(region)) * np.timedelta64(30, "ms")
    return Windows(
        {"features": view}, time, np.ones(len(region), bool),
        {"path": np.full(len(region), name)}, {"region": torch.from_numpy(region)},
        {"place": 4, "probe": np.full(len(region), str(probe))},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folds() -> list[Fold]:
    return list(judge.plan([], HOW, RECIPE, Options()))


def test_one_fold_is_the_whole_and_the_wrong_scales_are_set_aside(folds: list[Fold]) -> None:
    assert [f.name for f in folds] == [
        "B0 right", "B0 x 0.8", "B0 x 1.2", "B0 and n0 estimated",
    ]  # fmt: skip
    assert [f.aside for f in folds] == [False, True, True, True]
    for fold in folds:
        guard(fold)
        assert fold.keys == ("path",)
    right, small = (f.test[0].windows.x["features"][:, 4] for f in folds[:2])
    bx = slice(0, 3)
    torch.testing.assert_close(small[:, bx], right[:, bx] / 0.8)
    with pytest.raises(Refused, match="path"):
        guard(dataclasses.replace(folds[0], train=(folds[0].test[0].windows,)))


def test_scenes_in_files_are_judged_one_by_one(tmp_path: Path) -> None:
    for seed in (970_001, 970_002):
        record = simulate(seed, 15 / 3600, probes="1,2", field_rate=128.0)
        export(record, tmp_path / str(seed))
    paths = sorted(tmp_path.iterdir())
    (fold,) = judge.plan(paths, HOW, RECIPE, Options())
    guard(fold)
    assert [s.windows.groups["path"][0] for s in fold.test] == [
        "simulated-970001", "simulated-970002",
    ]  # fmt: skip
    assert fold.data == "2 simulated intervals with truth"
    assert all(s.windows.y is not None and len(s.windows) > 900 for s in fold.test)
    for file in paths[0].glob("*_truth.nc"):
        file.unlink()
    with pytest.raises(Refused, match=r"970001.*no true regions"):
        list(judge.plan(paths, HOW, RECIPE, Options()))


def test_the_judge_counts_by_hand() -> None:
    truth = np.array([0, 0, 1, 2])
    windows = dataclasses.replace(made(truth), valid=np.array([True, True, True, False]))
    p = np.full((4, 6), 0.02, np.float32)
    for row, (named, sure) in enumerate([(0, 0.9), (1, 0.6), (1, 0.9), (0, 0.9)]):
        p[row, named] = sure
    outputs = {"probability": p, "abstain": np.full(4, 0.7, np.float32)}
    table = judge.judge(outputs, Scene({}, windows), RECIPE, Options())
    weight = np.ones(1)
    assert len(table) == 1 and table["block"][0] == "a"
    # Region 0: one of two found, nothing else called so; region 1: found, and one called so.
    assert judge.macro_f1(table, weight) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert judge.accuracy(table, weight) == pytest.approx(2 / 3)
    assert judge.abstained(table, weight) == pytest.approx(1 / 3)
    assert judge.accuracy_when_named(table, weight) == 1.0
    assert judge.mean_confidence(table, weight) == pytest.approx(0.8)
    # Nine in ten came true twice of two, six in ten never.
    assert calibration_error(table, weight) == pytest.approx((0.2 + 0.6) / 3)
    squares = [0.01 + 5 * 0.0004, 0.98**2 + 0.36 + 4 * 0.0004, 0.01 + 5 * 0.0004]
    assert judge.brier(table, weight) == pytest.approx(sum(squares) / 3, rel=1e-3)


def test_an_absent_region_is_left_out_of_the_mean() -> None:
    table = pd.DataFrame([dict.fromkeys(judge.COUNTS, 0.0) | {"c00": 5.0, "c03": 5.0}])
    assert judge.macro_f1(table, np.ones(1)) == pytest.approx(2 / 3)


def test_paths_are_told_apart_by_their_flow() -> None:
    windows = made(np.zeros(200, int))
    said = []
    for share in (0.0, 0.2):
        view = windows.x["features"].clone()
        view[: int(share * 200), 4, FEATURES.index("vix")] = -BEST
        seen = dataclasses.replace(windows, x={"features": view})
        said.append(judge._activity(seen))
    assert said == ["ion flow < 0.65 V", "ion flow >= 0.65 V"]
    nothing = dataclasses.replace(windows, valid=np.zeros(200, bool))
    assert judge._activity(nothing) == ""


def test_truth_is_needed() -> None:
    windows = blind(made(np.zeros(9, int)))
    with pytest.raises(Refused, match="true region"):
        judge.judge({"probability": np.ones((9, 6))}, Scene({}, windows), RECIPE, Options())
    for fit in (baselines.majority, baselines.lightgbm):
        with pytest.raises(Refused, match="true regions"):
            fit((windows,), RECIPE)


def test_majority_and_place_know_nothing_that_was_measured() -> None:
    region = np.repeat([0, 1, 1, 1, 2], 4000)
    train, other = made(region), made(region, seed=5)
    for fit in (baselines.majority, baselines.where_in_interval):
        predictor = fit((train,), RECIPE)
        p = predictor(blind(other))["probability"]
        np.testing.assert_array_equal(p, predictor(blind(train))["probability"])
        np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
        wanted = np.ones_like(region) if fit is baselines.majority else region
        np.testing.assert_array_equal(p.argmax(1), wanted)


def test_a_probe_never_seen_gets_the_rate_of_its_part_of_the_interval() -> None:
    front, back = np.repeat([0, 1], 5000), np.repeat([2, 1], 5000)
    predictor = baselines.where_in_interval((made(front), made(back, probe=2)), RECIPE)
    first = [predictor(blind(made(front, probe=k)))["probability"][0] for k in (1, 2, 3)]
    assert [int(p.argmax()) for p in first[:2]] == [0, 2]
    assert first[2][0] == pytest.approx(first[2][2], abs=1e-6)


def test_running_means_are_those_of_each_window() -> None:
    windows = made(np.arange(40) % 3)
    view = windows.x["features"]
    for seen in (view, view[::2].clone()):  # views of one series, and copies
        np.testing.assert_allclose(
            running(seen, 2, 7), seen[:, 2:7].double().mean(1).numpy(), atol=1e-12
        )
    found = features(windows)
    assert found.names[:14] == FEATURES
    np.testing.assert_array_equal(found.values[:, :14], view[:, 4].numpy())
    spread = view.double().std(1, unbiased=False).numpy()
    np.testing.assert_allclose(found.values[:, 14:], spread, atol=1e-9)
    gap = dataclasses.replace(windows, valid=np.arange(40) != 7)
    assert np.isnan(features(gap).values[7]).all() and np.isfinite(features(gap).values[8]).all()


def test_trees_find_what_centroids_cannot() -> None:
    """The region depends on what went before, not on the sample."""
    region = np.repeat(np.arange(200) % 2, 15)
    train, test = (made(np.zeros(3000, int), seed=s) for s in (1, 2))
    for windows in (train, test):
        base = windows.x["features"].as_strided((3008, 14), (14, 1))
        base[:-8, 1] += torch.from_numpy(region).float()  # four samples early
        assert windows.y is not None
        windows.y["region"] = torch.from_numpy(region)
    right = [
        (fit((train,) * 8, RECIPE)(blind(test))["probability"].argmax(1) == region).mean()
        for fit in (baselines.lightgbm, baselines.nearest_centroid)
    ]
    assert right[0] > 0.95 > 0.85 > right[1]


def test_published_weights_are_absent_until_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: list[Fold]
) -> None:
    from safetensors.torch import save_file

    from terrella.tasks.reconnection.network import Published

    monkeypatch.setenv("TERRELLA_WEIGHTS", str(tmp_path / "weights"))
    with pytest.raises(NoData, match="not imported"):
        baselines.waters2025(folds[0].train, RECIPE)
    torch.manual_seed(0)
    save_file(Published().state_dict(), tmp_path / "w.safetensors")
    import_published("reconnection", [tmp_path / "w.safetensors"], "waters2025")
    windows = folds[0].test[0].windows
    p = baselines.waters2025(folds[0].train, RECIPE)(blind(windows))["probability"]
    assert p.shape == (len(windows), 6)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)


def test_the_whole_is_judged_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRELLA_WEIGHTS", str(tmp_path))
    task, model = registry.get("reconnection"), load("reconnection")
    options = model.options()

    def once() -> tuple[pd.DataFrame, set[str]]:
        plan = task.plan([], HOW, model.recipe, options)
        how = Judging(draws=20, rolls=3)
        found = evaluate(task, plan, model.recipe, options, model=model, judging=how)
        return scores(found, how)[0], set(found.absent)

    (table, absent), (again, _) = once(), once()
    pd.testing.assert_frame_equal(table, again)
    assert absent == {"waters2025"}
    assert {"all", *judge.FOLDS} <= set(table["group"])
    whole, right = (table[table["group"] == g] for g in ("all", "B0 right"))
    np.testing.assert_array_equal(whole["value"].to_numpy(), right["value"].to_numpy())
    said = table.set_index(["group", "metric", "model"])["value"]
    assert said["all", "macro_f1", "terrella"] > said["all", "macro_f1", "majority"] + 0.2


def test_seeds_of_training_stay_below_those_of_judging() -> None:
    with pytest.raises(Refused, match="kept for judging"):
        judge.training([], {"paths": 5, "validation_paths": 2, "seed": 899_994}, RECIPE, Options())
    learnt, held = judge.training(
        [], {"paths": 2, "validation_paths": 1, "seconds": 15.0}, RECIPE, Options()
    )
    names = [str(w.groups["path"][0]) for w in (*learnt, *held)]
    assert all(a != b for a, b in pairwise(sorted(names)))


def test_the_judges_draws_are_not_those_of_b0() -> None:
    from typer.testing import CliRunner

    from terrella.cli import app

    shown = CliRunner().invoke(app, ["evaluate", "reconnection", "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "--draws" in shown.output and "--judging-draws" in shown.output
    assert "--rolls" in shown.output, "names that no other group has stay as they are"


def test_flags_of_one_name_reach_their_own_group() -> None:
    from terrella.flags import with_flags

    def command(options: dict[str, object] | None = None, judging: Judging | None = None) -> object:
        return options, judging

    inner = with_flags(command, Options, "options", "", optional=True)
    both = with_flags(inner, Judging, "judging", "")
    names = inspect.signature(both).parameters
    assert {"draws", "judging_draws", "rolls"} <= names.keys()
    given = {n: p.default for n, p in names.items()} | {"draws": 3, "judging_draws": 70}
    options, judging = both(**given)
    assert options == {"draws": 3} and judging == Judging(draws=70)
