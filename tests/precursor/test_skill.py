"""Scores, folds, baselines, Molchan, false alarms, and studies of small simulated worlds."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from terrella import registry
from terrella.learn.compare import scores
from terrella.learn.evaluate import Evaluation as Found
from terrella.learn.evaluate import Part
from terrella.learn.split import blind, guard
from terrella.task import Judging
from terrella.tasks.precursor import judge
from terrella.tasks.precursor.alarms import expected, false_alarms, molchan
from terrella.tasks.precursor.audit import confounding, labels_of
from terrella.tasks.precursor.features import BANDS, features
from terrella.tasks.precursor.judge import divide, plan
from terrella.tasks.precursor.rows import simulated, training
from terrella.tasks.precursor.simulate import BAND, World
from terrella.tasks.precursor.task import AZIMUTH, Evaluation, Options, Recipe
from terrella.tasks.precursor.watch import divided
from terrella.tasks.precursor.worlds import QUICK, SMALL, Look, explained, look
from terrella.types import NoData, Refused, Scene, Windows

TINY = World(seed=3, quakes=50, days=400.0, stations=3)
OPTIONS = Options(explain="none")
TASK = registry.get("precursor")


@pytest.fixture(scope="module")
def tiny() -> Windows:
    return simulated(TINY, SMALL, OPTIONS)


def test_mcc_and_f1_against_known_values() -> None:
    table = np.array([[50.0, 10.0], [5.0, 35.0]])
    assert judge.mcc(table) == pytest.approx(0.6969, abs=2e-3)
    assert judge.accuracy(table) == 0.85
    assert judge.f1(table) == pytest.approx((100 / 115 + 70 / 85) / 2)
    assert judge.mcc(np.array([[5.0, 0.0], [5.0, 0.0]])) == 0.0


def one_row(windows: Windows, bearing: float, magnitude: int = 1) -> Scene:
    """A window of a given bearing (degrees), its sector unknown to nobody."""
    table = windows.extra["table"].iloc[:1].assign(bearing=bearing, kp=4.0)
    truth = {"magnitude": torch.tensor([magnitude]), "azimuth": torch.tensor([AZIMUTH.index("N")])}
    some = {k: v[:1] for k, v in windows.groups.items()}
    return Scene({}, dataclasses.replace(
        windows, x={"image": windows.x["image"][:1]}, time=windows.time[:1], groups=some,
        valid=np.ones(1, bool), y=truth, extra={**windows.extra, "table": table},
    ))  # fmt: skip


def test_angles_go_round_and_normal_is_no_sector(tiny: Windows) -> None:
    # Normal is the most likely azimuth class, N the most likely sector.
    azimuth = np.full((1, len(AZIMUTH)), -5.0)
    azimuth[0, AZIMUTH.index("Normal")], azimuth[0, AZIMUTH.index("N")] = 3.0, 1.0
    outputs = {"magnitude": np.array([[0.0, 4.0, 0.0, 1.0]]), "azimuth": azimuth}
    for bearing, miss in ((350.0, 10.0), (170.0, 170.0), (10.0, 10.0)):
        row = judge.judge(outputs, one_row(tiny, bearing), SMALL, OPTIONS)
        assert judge.circular_error(row, np.ones(1)) == pytest.approx(miss)
        assert judge.sector_accuracy(row, np.ones(1)) == 1.0
        assert row["activity"][0] == "Kp >= 3"
        assert judge.azimuth_accuracy(row, np.ones(1)) == 0.0
        assert judge.magnitude_accuracy(row, np.ones(1)) == 1.0
        # 1 - P(Normal) of these logits is 0.951.
        assert row["rel_n9"][0] == 1 and row["rel_y9"][0] == 1
    normal = judge.judge(outputs, one_row(tiny, 10.0, magnitude=3), SMALL, OPTIONS)
    assert normal["rel_y9"][0] == 0 and normal["alarm"][0] == 2


def made_up(right: float, knowing: str = "", seed: int = 0) -> Found:
    """Rows of a network that is right so often, and of baselines; one of them may know as much."""
    random = np.random.default_rng(seed)
    ahead = random.random(400) < 0.5
    said = np.where(random.random(400) < right, ahead, ~ahead)

    def rows(alarm: np.ndarray) -> pd.DataFrame:
        cell = np.where(ahead, 1, 3) * 4 + np.where(alarm, 1, 3)
        zero = np.zeros(400)
        return pd.DataFrame({
            "block": np.arange(400) // 4, "activity": "", "magnitude": cell, "azimuth": 0,
            "alarm": 2 * ~ahead + ~alarm, "ahead": zero, "sector_hit": zero,
            "sector_error": zero, "aside": False,
            **judge.reliability(np.where(alarm, right, 1 - right), ahead),
        })  # fmt: skip

    never = rows(np.zeros(400, bool))
    tables = {"terrella": rows(said), **dict.fromkeys(TASK.baselines, never)}
    if knowing:
        tables[knowing] = tables["terrella"]
    part = Part("fold 1", (400, ""), (0, ""), (400, ""), ("earthquake",), "", True)
    return Found(TASK, "made up", "", "", (part,), tables)


def test_skill_is_shown_where_there_is_some() -> None:
    (gain,) = scores(made_up(0.9), Judging(draws=100))[1]
    assert gain.metric == "precursor_mcc" and gain.shown and 0.7 < gain.value < 0.9


@pytest.mark.parametrize("seed", range(5))
def test_no_skill_is_shown_where_there_is_none(seed: int) -> None:
    (gain,) = scores(made_up(0.5, seed=seed), Judging(draws=100))[1]
    assert not gain.shown


def test_what_a_shortcut_knows_is_no_skill() -> None:
    (gain,) = scores(made_up(0.9, "station-only"), Judging(draws=100))[1]
    assert not gain.shown and gain.value == 0 and gain.shortcut == "station-only"


def test_no_less_than_a_blind_guess_is_a_gain() -> None:
    """Worse than 0 is what a constant may score joined over folds; beating that is nothing."""
    found = made_up(0.5)
    table = found.tables["majority"]
    # Constants that change with the fold: all alarms where none are true, and the reverse.
    worse = table.assign(alarm=np.where(table["alarm"] >= 2, 2, 1))
    lost = dict.fromkeys(TASK.baselines, worse)
    found = dataclasses.replace(found, tables={**found.tables, **lost})
    (gain,) = scores(found, Judging(draws=50))[1]
    assert gain.score < -0.9 and abs(gain.value) < 0.2


def test_molchan_of_perfect_and_random_scores() -> None:
    random = np.random.default_rng(0)
    window = np.repeat(np.arange(0, 1000, 50), 5) + np.tile(np.arange(5), 20)
    event = np.repeat(np.arange(20), 5)
    weight = np.ones(1000)
    perfect = np.zeros(1000)
    perfect[window] = 1.0
    assert molchan(perfect, window, event, weight).area > 0.94
    areas = [molchan(random.random(1000), window, event, weight).area for _ in range(100)]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.01)
    assert molchan(np.zeros(1000), window, event, weight).area == pytest.approx(0.5)


def test_the_reference_is_each_stations_rate() -> None:
    windows = pd.DataFrame({"station": ["A", "A", "B"]})
    pairs = pd.DataFrame({"station": ["A"] * 10, "time": pd.date_range("2020-01-01", periods=10)})
    rate = expected(windows, pairs, 7.0)
    assert rate[0] == rate[1] == pytest.approx(10.5 / 9 * 7)
    assert 0 < rate[2] < rate[0]


def test_false_alarms_per_station_year() -> None:
    end = np.datetime64("2020-01-01", "ns") + np.arange(1461) * np.timedelta64(6, "h")
    alarm, near = np.zeros(1461, bool), np.zeros(1461, bool)
    alarm[10:14] = alarm[100] = alarm[200:203] = True
    near[202:210] = True
    made = false_alarms(np.full(1461, "AAA"), end, alarm, near, 21_600.0).set_index("station")
    assert made.loc["all", "alarms"] == 3 and made.loc["all", "false"] == 2
    assert made.loc["AAA", "per_year"] == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("split", ["loeo", "loso", "blocks", "all"])
def test_folds_of_a_world_are_guarded(tiny: Windows, split: str) -> None:
    how = Evaluation(split=split, folds=3, embargo=3.0)  # type: ignore[arg-type]
    made = list(divide(tiny, how, SMALL, "simulated"))
    assert made
    for fold in made:
        guard(fold)
        assert fold.refit and len(fold.train[0]) and len(fold.validation[0])
        assert fold.exchange == "station" and fold.keys and not fold.leaks
        assert (fold.embargo is not None) == (split in ("blocks", "all"))
        shared = set(fold.train[0].groups["earthquake"]) & set(
            fold.validation[0].groups["earthquake"]
        )
        assert not shared, "the epoch is chosen on other earthquakes of the training side"
    tested = np.concatenate([f.test[0].windows.extra["table"]["end"] for f in made])
    assert made[0].data == f"simulated, {len(tested)} of {len(tiny)} windows of 3 stations"


def test_a_row_within_the_embargo_is_seen(tiny: Windows) -> None:
    (first, *_) = divide(tiny, Evaluation(split="blocks", folds=3, embargo=3.0), SMALL)
    with pytest.raises(Refused, match="within the embargo"):
        guard(dataclasses.replace(first, embargo=np.timedelta64(60, "D")))


def test_the_naive_split_says_that_it_leaks(tiny: Windows) -> None:
    for fold in divide(tiny, Evaluation(split="random", folds=2), SMALL):
        assert fold.leaks
        with pytest.raises(Refused, match="earthquake"):
            guard(dataclasses.replace(fold, leaks="", keys=("earthquake",)))


def test_folds_without_enough_earthquakes_are_named_once(tiny: Windows) -> None:
    table = tiny.extra["table"]
    names = tiny.groups["earthquake"][table["kind"] == "precursor"]
    few = np.isin(tiny.groups["earthquake"], np.unique(names)[:2])
    part = judge.subset(tiny, np.flatnonzero(few), SMALL)
    how = Evaluation(split="loeo", folds=2)
    with warnings.catch_warnings(), pytest.raises(NoData, match="two earthquakes to learn from"):
        warnings.simplefilter("error")
        list(divide(part, how, SMALL))
    some = np.isin(tiny.groups["earthquake"], np.unique(names)[:3])
    part = judge.subset(tiny, np.flatnonzero(some), SMALL)
    with pytest.warns(UserWarning, match="left out: 1 of 2 folds") as seen:
        (fold,) = divide(part, how, SMALL)
    assert len(seen) == 1 and "1 of 2 folds" in fold.split


def test_the_world_without_a_signal_is_aside() -> None:
    folds = list(plan([], Evaluation(quakes=8), Recipe(window=3600.0, size=64), OPTIONS))
    assert [f.aside for f in folds] == [False, True]
    assert folds[0].data == folds[1].data and "simulated" in folds[0].data
    for fold in folds:
        guard(fold)


def test_training_and_judging_worlds_are_apart() -> None:
    with pytest.raises(Refused, match="kept for judging"):
        training([], {"seed": 9000}, SMALL, OPTIONS)


def test_worlds_repeat_by_seed(tiny: Windows) -> None:
    again = simulated(TINY, SMALL, OPTIONS)
    other = simulated(dataclasses.replace(TINY, seed=4), SMALL, OPTIONS)
    assert bool((tiny.x["image"] == again.x["image"]).all())
    assert tiny.x["image"].shape != other.x["image"].shape or not bool(
        (tiny.x["image"] == other.x["image"]).all()
    )
    assert not set(tiny.groups["earthquake"]) & set(other.groups["earthquake"])


def test_the_injected_signal_is_in_the_features_of_its_band() -> None:
    windows = simulated(World(seed=1, quakes=20, strength=6.0), SMALL, OPTIONS)
    found = features(blind(windows))
    assert found.values.shape == (len(windows), 8 * len(BANDS)) and len(found.names) <= 40
    ahead = (windows.extra["table"]["kind"] == "precursor").to_numpy()
    rise = found.values[ahead].mean(0) - found.values[~ahead].mean(0)
    by = dict(zip(found.names, rise, strict=True))
    inside = [n for n, (lo, hi) in BANDS.items() if lo < BAND[1] and hi > BAND[0]]
    assert all(by[f"Z {n}"] > 3 for n in inside), "dB"
    assert abs(by["Z Pc1 high"]) < 1 and abs(by["H Pc4-5"]) < 3


@pytest.mark.parametrize("name", list(TASK.baselines))
def test_a_baseline_learns_from_the_labels_it_is_given(tiny: Windows, name: str) -> None:
    """With all labels one class, every baseline says that class: it reads ``y`` alone."""
    assert tiny.y is not None
    ones = {k: torch.full_like(v, 2) if k in ("magnitude", "azimuth") else v
            for k, v in tiny.y.items()}  # fmt: skip
    fitted = TASK.baselines[name].fit((dataclasses.replace(tiny, y=ones),), SMALL)
    given = fitted(blind(tiny))
    assert (given["magnitude"].argmax(1) == 2).all() and (given["azimuth"].argmax(1) == 2).all()


def test_nothing_is_shared_by_what_is_learnt_and_what_is_watched(tiny: Windows) -> None:
    fold = divided(tiny, tiny, SMALL, 0.6, 7.0)
    guard(fold)
    later = fold.test[0].windows.time.min()
    assert (fold.train[0].time < later - np.timedelta64(7, "D")).all()


def test_the_tool_is_silent_where_nothing_is(tiny: Windows) -> None:
    found = look(tiny, "loeo", "simulated world", folds=2, epochs=2)
    assert found.body["skill"] == "not shown"
    assert found.body["verdict"].startswith("no skill beyond")
    assert {r["model"] for r in found.body["scores"]} == {"terrella", *TASK.baselines}
    assert "lightgbm" not in found.body["baselines"], "scored, but no rival in a controlled world"
    assert found.body["certifies"] == "recipe"
    assert any("simulated" in text for text in found.body["limits"])


def strong_world() -> tuple[Look, Windows]:
    windows = simulated(World(seed=0, strength=6.0, quakes=160), SMALL, OPTIONS)
    return look(windows, "loeo", "simulated world a", epochs=12), windows


@pytest.mark.slow
def test_a_strong_signal_is_found() -> None:
    found, windows = strong_world()
    assert found.body["skill"] == "shown" and found.gain["lo"] > 0.5
    assert found.score("precursor_mcc") > found.score("precursor_mcc", "lightgbm") - 0.1
    assert found.score("sector_accuracy") > 0.35
    assert found.score("circular_error") < 60
    assert explained(windows) > 0.35, "the band is 0.2 of the axis"


@pytest.mark.slow
def test_nothing_is_found_where_nothing_is() -> None:
    worlds = [simulated(World(seed=k), SMALL, OPTIONS) for k in range(20)]
    silent = [look(w, "loeo", "simulated world b").body["skill"] == "not shown" for w in worlds]
    assert sum(silent) >= 19


@pytest.mark.slow
def test_a_planted_shortcut_is_named() -> None:
    planted = simulated(World(seed=0, shortcut=True), SMALL, OPTIONS)
    naive = look(planted, "random", "simulated world c", epochs=12)
    assert naive.score("magnitude_accuracy") > 0.6
    assert naive.body["skill"] == "not shown" and "the split leaks" in naive.body["verdict"]
    strict = look(planted, "loeo", "simulated world c", epochs=12)
    assert strict.body["skill"] == "not shown"
    assert "a shortcut, station-only" in strict.body["verdict"]
    found = confounding(labels_of(planted.extra["table"]))
    assert any(f.level == "error" and "SMA" in f.message for f in found)
    assert QUICK.epochs <= 12
