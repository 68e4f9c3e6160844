"""What the network must beat: nothing at all, place alone, boosted trees, the published network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from terrella.predict import predict
from terrella.steps.window import as_tensor, slide
from terrella.tasks.precipitation.prepare import channels, published_features, sample
from terrella.tasks.precipitation.task import CLASSES, Recipe
from terrella.types import NoData, Outputs, Refused, Windows

Predictor = Callable[[Windows], Outputs]
OFFSETS = (-12, -6, -3, -2, -1, 1, 2, 3, 6, 12)  # samples at which trees see the neighbours
AROUND = 15  # samples either side that make the background
ROUNDS = 200
LEVEL_STEP, HOUR_STEP = 0.5, 2.0
SURE = 1e-6


def _logits(p: np.ndarray) -> Outputs:
    return {"logits": np.log(np.clip(p, SURE, 1.0)).astype(np.float32)}


def _truth(train: Sequence[Windows]) -> list[np.ndarray]:
    if not train or any(w.y is None for w in train):
        raise Refused("the baselines need training days with their truth")
    return [w.y["class"].numpy() for w in train if w.y is not None]


def none(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """The rate of each class in the training days, everywhere: no event is ever found."""
    rate = np.bincount(np.concatenate(_truth(train)), minlength=len(CLASSES)).astype(float)
    rate /= rate.sum()
    return lambda windows: _logits(np.tile(rate, (len(windows), 1)))


def level_and_hour(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """The rate of each class in bins of L and MLT: what place alone knows."""
    key = np.concatenate([_bins(w) for w in train])
    truth = np.concatenate(_truth(train))
    shape = int(key.max()) + 1
    counts = np.stack([np.bincount(key[truth == k], minlength=shape) for k in range(len(CLASSES))])
    rate = (counts.sum(1) / counts.sum())[:, None]
    table = ((counts + 20.0 * rate) / (counts.sum(0) + 20.0)).T  # few samples: the overall rate

    def predictor(windows: Windows) -> Outputs:
        found = _bins(windows)
        known = found < shape
        return _logits(np.where(known[:, None], table[np.where(known, found, 0)], rate[:, 0]))

    return predictor


def _bins(windows: Windows) -> np.ndarray:
    L, MLT = (windows.extra[k][windows.extra["middle"]] for k in ("L", "MLT"))
    level = np.clip(np.nan_to_num(L, nan=0.0) / LEVEL_STEP, 0, 40).astype(int)
    hour = (np.nan_to_num(MLT, nan=0.0) % 24 / HOUR_STEP).astype(int)
    key: np.ndarray = level * int(24 / HOUR_STEP) + hour
    return key


def lightgbm(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """Boosted trees on the counts of a sample, its neighbours and its background."""
    import lightgbm as gbm

    truth = _truth(train)
    rng = np.random.default_rng(0)
    picked = [sample(w, rng) for w in train]
    x = np.concatenate([hand(w)[rows] for w, (rows, _) in zip(train, picked, strict=True)])
    y = np.concatenate([t[rows] for t, (rows, _) in zip(truth, picked, strict=True)])
    weight = np.concatenate([w for _, w in picked])
    settings = {
        "objective": "multiclass", "num_class": len(CLASSES), "learning_rate": 0.05,
        "num_leaves": 15, "min_data_in_leaf": 40, "lambda_l2": 10.0, "feature_fraction": 0.5,
        "verbose": -1, "seed": 0, "deterministic": True, "force_row_wise": True, "num_threads": 1,
    }  # fmt: skip
    trees = gbm.train(settings, gbm.Dataset(x, y, weight=weight), ROUNDS)

    def predictor(windows: Windows) -> Outputs:
        return _logits(np.asarray(trees.predict(hand(windows), num_threads=1)))

    return predictor


def hand(windows: Windows) -> np.ndarray:
    """Features for trees: counts, neighbours less centre, background, 0 over 90 degrees.

    Returns:
        (rows, 8 + 80 + 8 + 4) float32, NaN where a flux is missing.
    """
    seen = channels(windows.extra["flux"])
    near = [_shifted(seen, k) - seen for k in OFFSETS]
    known = np.nan_to_num(seen)
    total = np.cumsum(np.pad(known, ((AROUND + 1, AROUND), (0, 0)), mode="edge"), 0)
    around = (total[2 * AROUND + 1 :] - total[: -2 * AROUND - 1]) / (2 * AROUND + 1)
    ratio = seen[:, 0::2] - seen[:, 1::2]
    made: np.ndarray = np.concatenate([seen, *near, seen - around, ratio], 1, dtype=np.float32)
    rows: np.ndarray = made[windows.extra["middle"]]
    return rows


def _shifted(values: np.ndarray, by: int) -> np.ndarray:
    at = np.clip(np.arange(len(values)) + by, 0, len(values) - 1)
    moved: np.ndarray = values[at]
    return moved


def capannolo2022(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """The published network, where its weights are imported under that name."""
    from terrella.weights import load

    try:
        model: Any = load("precipitation", "capannolo2022")
    except Refused:
        raise NoData("its weights are not imported (`terrella weights import`)") from None
    length, own = model.recipe.window, recipe.window

    def predictor(windows: Windows) -> Outputs:
        # Its windows are shorter than ours: those that speak for the same samples.
        first = windows.extra["middle"].start - length // 2
        flux = published_features(windows.extra["flux"])
        x = slide(as_tensor(flux), length)[first : first + len(windows)]
        outputs: Outputs = predict(model.network, replace(windows, x={"flux": x}))
        return outputs

    if length > own:
        raise NoData(f"its window of {length} samples is longer than {own}")
    return predictor
