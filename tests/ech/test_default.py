"""The packaged weights: physics of the map, and skill on simulated storms they never saw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import terrella
from terrella.learn.metrics import calibration_error
from terrella.task import Model, run
from terrella.tasks.ech import judge, scores
from terrella.tasks.ech.inputs import Places
from terrella.tasks.ech.predict import predict
from terrella.tasks.ech.task import Evaluation

GRID = "L=2:6.5:0.25,MLT=0:24:1,MLAT=-20:20:2.5"
NOON = np.datetime64("2013-03-17T12:00", "ns")


@pytest.fixture(scope="module")
def model() -> Model:
    return terrella.load("ech")


def _map(model: Model, sme: float, symh: float) -> xr.Dataset:
    """The map under steady indices."""
    time = NOON - np.arange(2881)[::-1] * np.timedelta64(1, "m")
    coords = {"time": time, "flag": ("time", np.zeros(2881, np.uint8))}
    attrs = {"units": "nT", "cadence": 60.0, "source": "steady"}
    record = {
        n: xr.DataArray(np.full(2881, v), coords, "time", n, attrs)
        for n, v in (("SME", sme), ("SYM_H", symh))
    }
    step = np.timedelta64(60, "s").astype("timedelta64[ns]")
    source = Places(record, None, GRID, step, NOON)
    options = model.options(grid=GRID, amplitude_everywhere=True)
    return run(model, source, NOON, NOON + step, options).series.isel(time=0)


def test_physics_of_the_map(model: Model) -> None:
    quiet, active = _map(model, 80.0, -5.0), _map(model, 500.0, -40.0)
    belt = active.sel(L=slice(4.5, 6.0))
    chance, power = belt["probability"], belt["amplitude"]
    night = {"MLT": [22.0, 23.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}
    noon = {"MLT": [11.0, 12.0, 13.0]}
    for field, more in ((chance, 0.1), (power, 3.0)):
        at_equator = field.sel(MLAT=0)
        assert at_equator.sel(night).mean() > at_equator.sel(noon).mean() + more
        assert field.sel(MLAT=0).sel(night).mean() > field.sel(MLAT=15).sel(night).mean() + more
    calm = quiet.sel(L=slice(4.5, 6.0))
    assert chance.sel(MLAT=0).mean() > calm["probability"].sel(MLAT=0).mean() + 0.1
    assert power.sel(MLAT=0).mean() > calm["amplitude"].sel(MLAT=0).mean() + 3
    inside = active["probability"].sel(MLAT=0, L=2.0).mean()
    assert inside < 0.1 * chance.sel(MLAT=0).mean(), "no waves inside the plasmapause"
    np.testing.assert_array_equal(chance.sel(MLAT=10), chance.sel(MLAT=-10))


def test_skill_on_storms_never_seen(model: Model) -> None:
    options = model.options()
    chosen = Evaluation(days=60, seed=9500, learn=10)
    fold = next(judge.plan([], chosen, model.recipe, options))
    scene = fold.test[0]
    table = judge.judge(predict(model.network, scene.windows), scene, model.recipe, options)
    one = np.ones(len(table))
    assert scores.accuracy_of_best(table, one) > 0.97
    assert scores.brier_skill_of_best(table, one) > 0.97
    assert scores.r2_of_best(table, one) > 0.95
    assert scores.coverage_80(table, one) == pytest.approx(0.8, abs=0.03)
    assert calibration_error(table, one) < 0.03


def test_a_refused_place_is_marked_not_hidden(model: Model) -> None:
    far = _map(model, 300.0, -20.0)["extrapolation"]
    assert (far.sel(MLAT=0, L=slice(3, 5)) == 0).all()
    assert torch.isfinite(model.network.coverage.low).all()
    storm = _map(model, 6000.0, -900.0)["extrapolation"]
    assert ((storm & 2) == 2).all()
