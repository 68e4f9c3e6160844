"""Intervals are steered by outcomes after training, the same however issue times are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.geoflux_scenes import source

import terrella
from terrella.tasks.geoflux import conformal, network
from terrella.tasks.geoflux.decode import FLAGS, STEERED, steer
from terrella.tasks.geoflux.prepare import folds, prepare
from terrella.tasks.geoflux.task import Options, Recipe
from terrella.types import Product

DAY = np.timedelta64(24, "h")
START = np.datetime64("2018-06-01", "ns")
LEARNT = 17897  # 2019-01-01 in days from 1970


def rows(n: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    table = conformal.table_of(rng.normal(size=(500, 3)))
    made = {
        "mean": np.zeros((n, 3)), "scale": np.ones((n, 3)), "table": table[None],
        "learnt": np.full(n, LEARNT, np.float32),
    }  # fmt: skip
    return made, rng.normal(size=(n, 3)), START + np.arange(n) * DAY


def test_outcomes_of_training_do_not_steer() -> None:
    outputs, truth, time = rows(320)
    quantile, steered = steer(outputs, truth, time)
    first = int((np.datetime64("2019-01-01", "ns") - START) / DAY)
    assert steered[: first + 1].max() == 0 and steered[-1] > STEERED
    trained = truth.copy()
    for k in range(3):  # lead k + 1 of row r is the day r + k
        trained[: first - k, k] *= 0.01
    np.testing.assert_array_equal(steer(outputs, trained, time)[0], quantile)
    trained[first] += 50.0
    assert (steer(outputs, trained, time)[0] != quantile).any()


def test_the_packaged_weights_and_new_ones_know_the_end_of_training() -> None:
    assert float(terrella.load("geoflux").network.state_dict()["learnt"]) == LEARNT
    recipe = Recipe(members=2, hidden=4)
    scene = source(60)
    windows = prepare(dict(scene.series), recipe, Options())
    end = scene.series["flux"]["time"].values[-1] + np.timedelta64(1, "h")
    for shape in ("ensemble", "lstm"):
        net = network.build(Recipe(network=shape, members=2, hidden=4))  # type: ignore[arg-type]
        settle = net.settle
        assert callable(settle)
        settle(folds(windows, recipe)[1:])
        told = net(**windows.x)["learnt"]
        days = (end - np.datetime64(0, "ns")) / DAY
        assert told[0] == pytest.approx(days, abs=1.0) and told[0] <= days
        assert isinstance(told, torch.Tensor)


def run(first: str, last: str, every: int, days: int = 150) -> Product:
    model = terrella.load("geoflux")
    model.network.get_buffer("learnt").fill_(0.0)
    start, stop = np.datetime64(first, "ns"), np.datetime64(last, "ns")
    return terrella.run(model, source(days), start, stop, Options(every=every))


def test_an_issue_time_has_one_forecast_however_it_is_asked_for() -> None:
    end = source(150).series["flux"]["time"].values[-1].astype("datetime64[D]")
    day, early = str(end - 10), str(end - 60)
    alone, inside, often = (
        run(day, str(end - 9), 24),
        run(early, str(end), 24),
        run(day, day + "T01", 6),
    )
    for other in (inside, often):
        for name in ("flux", "flux_lo80", "flux_hi95", "flags"):
            one, two = (p.series[name].sel(time=day).values for p in (alone, other))
            np.testing.assert_allclose(one.squeeze(), two.squeeze(), rtol=1e-4)
    assert not int(alone.series["flags"][0]) & FLAGS["unsteered"]
