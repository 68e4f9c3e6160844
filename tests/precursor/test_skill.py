"""Scores, certificate, Molchan, false alarms, and studies of small simulated worlds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from terrella import registry
from terrella.learn.split import guard
from terrella.tasks.precursor import skill
from terrella.tasks.precursor.alarms import expected, false_alarms, molchan
from terrella.tasks.precursor.judge import divide, simulated, training
from terrella.tasks.precursor.report import QUICK, SMALL, explained, look
from terrella.tasks.precursor.simulate import World
from terrella.tasks.precursor.skill import UNKNOWN, certify
from terrella.tasks.precursor.task import Evaluation, Options
from terrella.types import Refused

TINY = World(seed=3, quakes=50, days=400.0, stations=3)


def test_mcc_and_f1_against_known_values() -> None:
    table = np.array([[50.0, 10.0], [5.0, 35.0]])
    assert skill.mcc(table) == pytest.approx(0.6969, abs=2e-3)
    assert skill.accuracy(table) == 0.85
    assert skill.f1(table) == pytest.approx((100 / 115 + 70 / 85) / 2)
    assert skill.mcc(np.array([[5.0, 0.0], [5.0, 0.0]])) == 0.0


def test_circular_error_goes_round() -> None:
    north = np.array([1])  # index of N
    assert skill.circular_error(np.array([350.0]), north)[0] == pytest.approx(10)
    assert skill.circular_error(np.array([180.0]), north)[0] == pytest.approx(180)


def cases(n: int, right: float, seed: int = 0) -> tuple[dict, dict, dict, np.ndarray]:
    random = np.random.default_rng(seed)
    ahead = random.random(n) < 0.5
    truth = {"magnitude": np.where(ahead, 1, 3), "azimuth": np.where(ahead, 2, 4)}
    said = np.where(random.random(n) < right, ahead, ~ahead)
    network = {"magnitude": np.eye(4)[np.where(said, 1, 3)],
               "azimuth": np.eye(9)[np.where(said, 2, 4)]}  # fmt: skip
    constant = {"magnitude": np.tile(np.eye(4)[3], (n, 1)),
                "azimuth": np.tile(np.eye(9)[4], (n, 1))}  # fmt: skip
    return truth, network, {"majority": constant}, np.arange(n) // 4


def test_a_certificate_says_skill_where_there_is_some() -> None:
    truth, network, shortcuts, groups = cases(400, 0.9)
    found = certify(truth, network, shortcuts, groups, "made up")
    assert found.skill and found.line.startswith("skill: precursor MCC 0.8")
    assert "beyond majority on made up" in found.line


@pytest.mark.parametrize("seed", range(5))
def test_a_certificate_says_no_where_there_is_none(seed: int) -> None:
    found = certify(*cases(400, 0.5, seed), "made up")
    assert not found.skill and found.line.startswith("no skill beyond majority shown on made up")


def test_what_a_shortcut_knows_is_no_skill() -> None:
    truth, network, _, groups = cases(400, 0.9)
    found = certify(truth, network, {"station only": network}, groups, "made up")
    assert not found.skill and found.gain.value == 0


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


def test_weights_without_a_certificate_are_no_prediction() -> None:
    from terrella.tasks.precursor.decode import skill_line

    assert skill_line(Options()) == (False, UNKNOWN)
    assert skill_line(Options(certificate="no skill beyond Kp only shown on x"))[0] is False
    assert skill_line(Options(certificate="skill: precursor MCC 0.2 [0.1, 0.3] ..."))[0] is True


@pytest.mark.parametrize("split", ["loeo", "loso", "blocks", "all"])
def test_folds_of_a_world_are_guarded(split: str) -> None:
    windows = simulated(TINY, SMALL, Options(explain="none"))
    plan = Evaluation(split=split, folds=3, embargo=3.0)  # type: ignore[arg-type]
    made = list(divide(windows, plan, SMALL, "simulated"))
    assert made
    for fold in made:
        guard(fold)
        assert fold.refit and len(fold.train[0]) and len(fold.validation[0])
        shared = set(fold.train[0].groups["earthquake"]) & set(
            fold.validation[0].groups["earthquake"]
        )
        assert not shared, "the epoch is chosen on other earthquakes of the training side"


def test_training_and_judging_worlds_are_apart() -> None:
    with pytest.raises(Refused, match="kept for judging"):
        training([], {"seed": 9000}, SMALL, Options())


def test_worlds_repeat_by_seed() -> None:
    first = simulated(TINY, SMALL, Options())
    again = simulated(TINY, SMALL, Options())
    other = simulated(dataclasses.replace(TINY, seed=4), SMALL, Options())
    assert bool((first.x["image"] == again.x["image"]).all())
    assert first.x["image"].shape != other.x["image"].shape or not bool(
        (first.x["image"] == other.x["image"]).all()
    )


def test_the_tool_is_silent_where_nothing_is() -> None:
    windows = simulated(dataclasses.replace(TINY, strength=0.0), SMALL, Options(explain="none"))
    found = look(windows, "loeo", "simulated world", folds=2, epochs=2)
    assert not found.certificate.skill and found.certificate.line.startswith("no skill beyond")
    assert set(found.outcome.baselines) == set(registry.get("precursor").baselines)


@pytest.mark.slow
def test_three_controlled_worlds() -> None:
    options = Options(explain="none")
    strong = simulated(World(seed=0, strength=6.0, quakes=160), SMALL, options)
    a = look(strong, "loeo", "world a", epochs=12)
    assert a.certificate.skill and a.certificate.gain.low > 0.5
    assert a.score("precursor-only azimuth accuracy") > 0.35
    assert a.score("circular error") < 60
    assert explained(strong) > 0.35, "the band is 0.2 of the axis"
    silent = [
        not look(simulated(World(seed=k), SMALL, options), "loeo", "world b").certificate.skill
        for k in range(20)
    ]
    assert sum(silent) >= 19
    planted = simulated(World(seed=0, shortcut=True), SMALL, options)
    naive = look(planted, "random", "world c", epochs=12)
    assert naive.score("magnitude accuracy") > 0.6
    assert not naive.certificate.skill
    assert not look(planted, "loeo", "world c", epochs=12).certificate.skill
    assert QUICK.epochs <= 12
