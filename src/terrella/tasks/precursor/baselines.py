"""What the network must beat: the majority, what says when and where, and boosted trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from terrella.tasks.precursor.features import features
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE, Recipe
from terrella.types import Outputs, Windows

Predictor = Callable[[Windows], Outputs]
HEADS = {"magnitude": len(MAGNITUDE), "azimuth": len(AZIMUTH)}
SURE = 1e-6
TREES = 80


def lookup(
    train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str], target: str, classes: int
) -> np.ndarray:
    """Class frequencies of the training rows with the same ``columns``.

    Args:
        train: rows with ``columns`` and ``target`` (class numbers).
        test: rows with ``columns``.
        columns: what is looked up; none: the overall frequencies.
        target: column of class numbers, -1 left out.
        classes: how many.

    Returns:
        (rows of test, classes) probabilities; where nothing was seen, the overall frequencies.
    """
    known = train[train[target] >= 0]
    overall = np.bincount(known[target], minlength=classes) + 1e-9
    base = overall / overall.sum()
    out = np.tile(base, (len(test), 1))
    if not columns or known.empty:
        return out
    # One virtual row of the overall frequencies keeps a rare key from being certain.
    for key, group in known.groupby(list(columns)):
        count = np.bincount(group[target], minlength=classes) + base
        same = (test[list(columns)] == np.array(key, dtype=object)).all(axis=1).to_numpy()
        out[same] = count / count.sum()
    return out


def _table_of(windows: Windows) -> pd.DataFrame:
    table: pd.DataFrame = windows.extra["table"]
    return table


def _labelled(windows: Windows) -> pd.DataFrame:
    """A training part's table; its labels are those of ``y``, which a null may have exchanged."""
    assert windows.y is not None
    return _table_of(windows).assign(**{head: windows.y[head].numpy() for head in HEADS})


def _shortcut(*columns: str) -> Callable[..., Predictor]:
    def baseline(train: Sequence[Windows], recipe: Recipe) -> Predictor:
        known = pd.concat([_labelled(w) for w in train], ignore_index=True)
        return lambda windows: {
            head: np.log(np.clip(lookup(known, _table_of(windows), columns, head, n), SURE, 1))
            for head, n in HEADS.items()
        }

    return baseline


majority = _shortcut()
station_only = _shortcut("station")
kp_only = _shortcut("kp_class")
hour_only = _shortcut("hour")
station_month = _shortcut("station", "month")


def lightgbm(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """Boosted trees on band powers and polarisation, nothing of when and where among them."""
    x = np.concatenate([features(w).values for w in train])
    truth = pd.concat([_labelled(w) for w in train], ignore_index=True)
    trees = {head: _grow(x, truth[head].to_numpy(int), n) for head, n in HEADS.items()}

    def predictor(windows: Windows) -> Outputs:
        given = features(windows).values
        return {
            head: np.log(np.clip(one.predict(given, num_threads=1), SURE, 1)).astype(np.float32)
            for head, one in trees.items()
        }

    return predictor


def _grow(x: np.ndarray, y: np.ndarray, classes: int) -> Any:
    import lightgbm as gbm

    known = y >= 0
    count = np.bincount(y[known], minlength=classes)
    # As the network by default: every class weighs the same, so that rare ones are ever said.
    weight = known.sum() / (np.maximum(count, 1) * max((count > 0).sum(), 1))
    settings = {
        "objective": "multiclass", "num_class": classes, "learning_rate": 0.05, "num_leaves": 8,
        "min_data_in_leaf": 10, "feature_fraction": 0.6, "bagging_fraction": 0.7,
        "bagging_freq": 1, "lambda_l2": 1.0, "verbose": -1, "seed": 0, "deterministic": True,
        "force_row_wise": True, "num_threads": 1,
    }  # fmt: skip
    rows = gbm.Dataset(x[known], y[known], weight=weight[y[known]])
    return gbm.train(settings, rows, TREES)
