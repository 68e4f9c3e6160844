"""A task small enough to plant faults in: two classes, two inputs, stations and days."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from terrella.learn.metrics import calibration_error, ratio, reliability
from terrella.task import Baseline, Metric, Plain, Task
from terrella.types import Features, Fold, Outputs, Scene, Windows


@dataclass(frozen=True)
class Recipe:
    """``sharpen`` multiplies the logits: 1 is as learnt."""

    sharpen: float = 1.0


class Line(nn.Module):
    """A line through what is measured, and a number for each station."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.measured, self.station = nn.Linear(2, 1), nn.Linear(6, 1)

    def forward(self, measured: torch.Tensor, station: torch.Tensor) -> dict[str, torch.Tensor]:
        logit = self.measured(measured) + self.station(station)
        return {"logit": self.recipe.sharpen * logit[:, 0]}


def loss(outputs: dict[str, Any], y: dict[str, Any], weight: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(outputs["logit"], y["class"], weight)


def world(
    seed: int, days: int = 60, signal: float = 1.5, shortcut: float = 0.0, first: int = 0
) -> Windows:
    """Rows of six stations: a signal in what is measured, and a shortcut through the station."""
    rng = np.random.default_rng(seed)
    day = np.repeat(np.arange(first, first + days), 12)
    station = np.tile(np.arange(6), 2 * days)
    x = rng.normal(size=(len(day), 2)).astype(np.float32)
    # Days differ, as real ones do: rows of one day are not independent.
    mood = rng.normal(0, 0.5, days)[day - first]
    logit = signal * x[:, 0] + shortcut * np.where(station < 3, -1.0, 1.0) + mood
    y = (rng.random(len(day)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    time = np.datetime64("2020-01-01", "ns") + (day * 24 + np.arange(len(day)) % 12).astype("m8[h]")
    return Windows(
        x={"measured": torch.from_numpy(x), "station": torch.eye(6)[station]},
        time=time, valid=np.ones(len(day), bool),
        groups={"day": day.astype(str), "station": station.astype(str)},
        y={"class": torch.from_numpy(y)},
        extra={"station": station, "true_chance": 1 / (1 + np.exp(-logit))},
    )  # fmt: skip


def judge(outputs: Outputs, scene: Scene, recipe: Recipe, options: Any) -> pd.DataFrame:
    w = scene.windows
    assert w.y is not None
    y, p = w.y["class"].numpy(), 1 / (1 + np.exp(-outputs["logit"].astype(float)))
    return pd.DataFrame({
        "block": w.groups["day"], "rows": 1.0, "right": ((p > 0.5) == (y > 0)) * 1.0,
        "activity": np.where(w.extra["station"] < 3, "west", "east"), **reliability(p, y),
    })  # fmt: skip


def _constant(value: Callable[[Windows], np.ndarray]) -> Callable[[Windows], Outputs]:
    return lambda windows: {"logit": value(windows).astype(np.float32)}


def majority(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    rate = float(np.mean(np.concatenate([w.y["class"].numpy() for w in train if w.y])))
    return _constant(lambda w: np.full(len(w), np.log(rate / (1 - rate))))


def by_station(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    station = np.concatenate([w.extra["station"] for w in train])
    y = np.concatenate([w.y["class"].numpy() for w in train if w.y])
    rate = np.array([y[station == k].mean() for k in range(6)]).clip(0.01, 0.99)
    return _constant(lambda w: np.log(rate / (1 - rate))[w.extra["station"]])


def attainable(scene: Scene, recipe: Recipe) -> Outputs:
    p = scene.windows.extra["true_chance"]
    return {"logit": np.log(p / (1 - p))}


def features(windows: Windows) -> Features:
    return Features(("a", "b"), windows.x["measured"].numpy())


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("not part of an evaluation")


TOY = Task(
    name="toy", summary="two classes", inputs=(), targets=("class",), recipe=Recipe,
    options=Plain, evaluation=Plain, open=_never, reach=_never, prepare=_never, network=Line,
    loss=loss, decode=_never, plot=_never, simulate=_never, export=_never, training=_never,
    plan=_never, judge=judge,
    metrics={
        "accuracy": Metric(ratio("right", "rows")),
        "calibration_error": Metric(calibration_error, "less"),
    },
    primary=("accuracy",),
    baselines={
        "majority": Baseline("trivial", majority), "station": Baseline("metadata", by_station),
    },
    features=features, attainable=attainable,
)  # fmt: skip


def fold(seed: int = 0, **settings: Any) -> Fold:
    """Three worlds of other days: to learn from, to choose the epoch by, and to test on."""
    learned, held, tested = (
        world(seed * 10 + k, days=d, first=f, **settings)
        for k, (d, f) in enumerate([(120, 0), (30, 130), (60, 170)])
    )
    return Fold(
        "later", (Scene({}, tested),), (learned,), (held,), refit=True, data="simulated toy",
        split="later days", keys=("day",), embargo=np.timedelta64(24, "h"), exchange="station",
    )  # fmt: skip


def with_baseline(name: str, kind: Any, fit: Callable[..., Any]) -> Task:
    """The task with one baseline more."""
    return dataclasses.replace(TOY, baselines={**TOY.baselines, name: Baseline(kind, fit)})
