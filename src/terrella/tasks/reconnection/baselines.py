"""What the network must beat, from the commonest region to boosted trees and published weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from terrella.steps.window import base
from terrella.tasks.reconnection.network import CLASSES, around, predict
from terrella.tasks.reconnection.prepare import sample
from terrella.tasks.reconnection.task import Recipe
from terrella.types import NoData, Outputs, Refused, Windows

Array = np.ndarray
Predictor = Callable[[Windows], Outputs]
NAME = "waters2025"
PARTS = 10  # of an interval, for what knows only when
FEW = 500.0  # rows that pull a class rate towards the overall one
# One thread: on shared cores, threads that wait for each other take many times as long.
SETTINGS: dict[str, Any] = {
    "objective": "multiclass", "num_class": CLASSES, "learning_rate": 0.08, "num_leaves": 31,
    "min_data_in_leaf": 60, "feature_fraction": 0.3, "bagging_fraction": 0.5, "bagging_freq": 1,
    "max_bin": 127, "verbose": -1, "seed": 0, "deterministic": True, "force_row_wise": True,
    "num_threads": 1,
}  # fmt: skip
ROUNDS = 120


def majority(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """How often each region is met in the training paths, everywhere: the commonest is named."""
    truth = np.concatenate(_truth(train))
    rate = np.bincount(truth, minlength=CLASSES) / len(truth)
    return lambda windows: _said(np.tile(rate, (len(windows), 1)))


def where_in_interval(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """Rate of each region by probe and tenth of the interval: what knows when, not what.

    A probe that the training paths do not have gets the rate of that tenth over all probes.
    """
    truth = np.concatenate(_truth(train))
    part, probe = (np.concatenate(c) for c in zip(*(_when(w) for w in train), strict=True))
    overall = np.bincount(truth, minlength=CLASSES) / len(truth)
    by_part = _rates(part, truth, PARTS, np.tile(overall, (PARTS, 1)))
    by_probe = _rates(probe * PARTS + part, truth, 5 * PARTS, np.tile(by_part, (5, 1)))

    def predictor(windows: Windows) -> Outputs:
        part, probe = _when(windows, every=True)
        return _said(by_probe[probe * PARTS + part])

    return predictor


def _rates(key: Array, truth: Array, keys: int, prior: Array) -> Array:
    counts = np.bincount(key * CLASSES + truth, minlength=keys * CLASSES).reshape(keys, CLASSES)
    rate: Array = (counts + FEW * prior) / (counts.sum(1, keepdims=True) + FEW)
    return rate


def _when(windows: Windows, every: bool = False) -> tuple[Array, Array]:
    """Tenth of its probe's interval, 0..9, and number of the probe, of the valid rows or all."""
    probe = windows.extra["probe"].astype(np.int64)
    share = np.zeros(len(windows))
    for who in np.unique(probe):
        time = windows.time[probe == who].astype(np.int64)
        share[probe == who] = (time - time.min()) / max(int(time.max() - time.min()), 1)
    part = np.minimum((share * PARTS).astype(np.int64), PARTS - 1)
    keep = slice(None) if every else windows.valid
    return part[keep], probe[keep]


def nearest_centroid(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """Each sample goes to the nearest class mean in standardised features; no context."""
    x = np.concatenate([_at(w)[w.valid] for w in train])
    y = np.concatenate(_truth(train))
    mean, spread = x.mean(0), x.std(0) + 1e-9
    z = (x - mean) / spread
    centres = np.stack([z[y == k].mean(0) if (y == k).any() else np.full(z.shape[1], 1e3)
                        for k in range(CLASSES)])  # fmt: skip

    def predictor(windows: Windows) -> Outputs:
        at = (_at(windows) - mean) / spread
        square = ((at[:, None, :] - centres) ** 2).sum(2) / at.shape[1]
        like = np.exp(-0.5 * (square - square.min(1, keepdims=True)))
        return _said(like / like.sum(1, keepdims=True))

    return predictor


def lightgbm(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """Boosted trees on a sample, its neighbours, and means and spreads around it."""
    import lightgbm as gbm

    rng = np.random.default_rng(0)
    picked = [sample(w, rng)[0] for w in train]
    x = np.concatenate([hand(w)[rows] for w, rows in zip(train, picked, strict=True)])
    truth = _truth(train, every=True)
    y = np.concatenate([t[rows] for t, rows in zip(truth, picked, strict=True)])
    trees = gbm.train(SETTINGS, gbm.Dataset(x, y), ROUNDS)

    def predictor(windows: Windows) -> Outputs:
        return _said(np.asarray(trees.predict(hand(windows), num_threads=1)))

    return predictor


def hand(windows: Windows) -> Array:
    """What trees see: ``around`` of every row, (rows, 14 * 18) float32."""
    view, place = windows.x["features"], int(windows.extra["place"])
    series = base(view)
    told = around(view if series is None else series, place, view.shape[1] - 1 - place)
    made: Array = told.reshape(len(view), -1).numpy()
    return made


def waters2025(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """The published weights, where imported under that name, each class renamed to ours.

    The published classes have no names, so each is given the region it most often meets on the
    training paths, which is the kindest reading of them.

    Raises:
        NoData: the weights are not imported.
    """
    from terrella.weights import load

    truth = _truth(train)
    try:
        network = load("reconnection", NAME).network
    except Refused:
        raise NoData("its weights are not imported (`terrella weights import`)") from None
    counts = np.zeros((CLASSES, CLASSES))
    for windows, true in zip(train, truth, strict=True):
        label = _published(network, windows).argmax(1)[windows.valid]
        np.add.at(counts, (label, true), 1)
    # A class that the training paths never show keeps its number.
    named = np.where(counts.sum(1) > 0, counts.argmax(1), np.arange(CLASSES))
    renaming = np.eye(CLASSES, dtype=np.float32)[named]
    return lambda windows: _said(_published(network, windows) @ renaming)


def _published(network: Any, windows: Windows) -> Array:
    """Probabilities in ``overlap`` mode, from context up to the sample itself."""
    place = windows.extra["place"]
    past = windows.x["features"][:, max(place - 31, 0) : place + 1]
    extra = {**windows.extra, "mode": "overlap"}
    outputs = predict(network, dataclasses.replace(windows, x={"features": past}, extra=extra))
    return outputs["probability"]


def _said(probability: Array) -> Outputs:
    return {"probability": probability.astype(np.float32)}


def _at(windows: Windows) -> Array:
    at: Array = windows.x["features"][:, windows.extra["place"]].numpy()
    return at


def _truth(train: Sequence[Windows], every: bool = False) -> list[Array]:
    """True regions of each path's valid rows, or of all its rows."""
    if not train or any(w.y is None for w in train):
        raise Refused("the baselines need training paths with their true regions")
    return [w.y["region"].numpy()[slice(None) if every else w.valid]
            for w in train if w.y is not None]  # fmt: skip
