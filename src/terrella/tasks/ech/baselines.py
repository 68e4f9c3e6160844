"""What a network must beat: a rate, a climatology of places, and models of the same inputs.

They take any windows of this task: histories by name, and ``place``, whose first features are L,
cos MLT, sin MLT and, if there is a fourth, cos^6 MLAT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from terrella.tasks.ech.task import Recipe
from terrella.types import NoData, Outputs, Refused, Windows

Floats = NDArray[np.floating]
Predictor = Callable[[Windows], Outputs]
ROWS = 80_000  # learned from; more moved no score of these
LEVEL_STEP, HOUR_STEP, LAT_STEP = 0.5, 2.0, 5.0
SHRINK = 20.0  # samples of the overall mean that are added to each bin of a climatology


def _flat(windows: Windows) -> tuple[Floats, Floats]:
    """Place features (n, P) and histories (n, T) of every point of every row."""
    place = windows.x["place"].numpy()
    rows, points = place.shape[:2]
    past = np.concatenate([v.numpy() for k, v in windows.x.items() if k != "place"], 1)
    return place.reshape(rows * points, -1), np.repeat(past, points, 0).reshape(rows * points, -1)


def _learned(train: Sequence[Windows]) -> tuple[Floats, Floats, Floats, Floats]:
    if not train:
        raise Refused("the baselines need training rows")
    places, pasts, seen, heard = [], [], [], []
    for w in train:
        assert w.y is not None
        points = w.x["place"].shape[1]
        keep = np.repeat(w.valid, points)
        place, past = _flat(w)
        places.append(place[keep])
        pasts.append(past[keep])
        seen.append(w.y["occurrence"].numpy().ravel()[keep])
        heard.append(w.y["amplitude"].numpy().ravel()[keep])
    place, past, o, a = (np.concatenate(v) for v in (places, pasts, seen, heard))
    known = np.flatnonzero(np.isfinite(o))
    some = np.random.default_rng(0).permutation(known)[:ROWS]
    return place[some], past[some], o[some], a[some]


def _outputs(windows: Windows, chance: Floats, mean: Floats, spread: float) -> Outputs:
    shape = windows.x["place"].shape[:2]
    return {
        "logit": logit(np.clip(chance, 1e-6, 1 - 1e-6)).reshape(shape),
        "mean": mean.reshape(shape),
        "spread": np.full(shape, spread),
    }


def table_of(key: NDArray[np.int64], value: Floats) -> Callable[[NDArray[np.int64]], Floats]:
    """Means of value by bin, drawn to the overall mean where a bin has few samples."""
    bins, index = np.unique(key, return_inverse=True)
    middle = float(value.mean())
    total = np.bincount(index, value) + SHRINK * middle
    means = total / (np.bincount(index) + SHRINK)

    def look(keys: NDArray[np.int64]) -> Floats:
        at = np.clip(np.searchsorted(bins, keys), 0, len(bins) - 1)
        found: Floats = np.where(bins[at] == keys, means[at], middle)
        return found

    return look


def _cells(place: Floats) -> NDArray[np.int64]:
    """Number of the bin of L, MLT and, where it is known, |MLAT| of each place."""
    hour = np.arctan2(place[:, 2], place[:, 1]) * 12 / np.pi % 24
    key: NDArray[np.int64]
    key = (place[:, 0] / LEVEL_STEP).astype(np.int64) * 100 + (hour / HOUR_STEP).astype(np.int64)
    if place.shape[1] < 4:
        return key
    lat = np.degrees(np.arccos(np.clip(place[:, 3], 0, 1) ** (1 / 6)))
    key = key * 100 + (lat / LAT_STEP).astype(np.int64)
    return key


def rate(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """The overall rate of occurrence and the mean amplitude, everywhere and always."""
    return _by_bin(train, lambda place: np.zeros(len(place), np.int64))


def climatology(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """Rate of occurrence and mean amplitude in bins of place: what place alone knows."""
    return _by_bin(train, _cells)


def _by_bin(train: Sequence[Windows], bins: Callable[[Floats], NDArray[np.int64]]) -> Predictor:
    place, _, o, a = _learned(train)
    wave = np.isfinite(a)
    key = bins(place)
    chance, mean = table_of(key, o), table_of(key[wave], a[wave])
    spread = float(np.std(a[wave] - mean(key[wave])))

    def predictor(windows: Windows) -> Outputs:
        k = bins(_flat(windows)[0])
        return _outputs(windows, chance(k), mean(k), spread)

    return predictor


def _smooth(place: Floats, past: Floats) -> Floats:
    """Inputs as a linear model likes them: harmonics of place, asinh of the histories."""
    level, cos, sin = place[:, :1], place[:, 1:2], place[:, 2:3]
    extra = [level**2, cos * cos - sin * sin, 2 * sin * cos, level * cos, level * sin]
    return np.concatenate([place, *extra, np.arcsinh(past / 100)], 1)


def ridge(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """Logistic and linear ridge on harmonics of place and asinh of the histories."""
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    place, past, o, a = _learned(train)
    wave = np.isfinite(a)
    inputs = _smooth(place, past)
    first = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(inputs, o > 0)
    second = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 8)))
    second.fit(inputs[wave], a[wave])
    return _fitted(first, second, _smooth, float(np.std(a[wave] - second.predict(inputs[wave]))))


def lightgbm(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """Gradient-boosted trees on the raw inputs."""
    place, past, o, a = _learned(train)
    wave = np.isfinite(a)
    inputs = _raw(place, past)
    first, second = _trees("binary").fit(inputs, o > 0), _trees("regression")
    second.fit(inputs[wave], a[wave])
    return _fitted(first, second, _raw, float(np.std(a[wave] - second.predict(inputs[wave]))))


def _trees(objective: str) -> Any:
    import lightgbm as gbm

    kind = gbm.LGBMClassifier if objective == "binary" else gbm.LGBMRegressor
    return kind(
        n_estimators=250, learning_rate=0.04, num_leaves=15, min_child_samples=50, subsample=0.8,
        subsample_freq=1, colsample_bytree=0.5, n_jobs=1, verbose=-1, random_state=0,
    )  # fmt: skip


def _raw(place: Floats, past: Floats) -> Floats:
    return np.concatenate([place, past], 1)


def _fitted(first: Any, second: Any, inputs: Callable[[Floats, Floats], Floats], spread: float
            ) -> Predictor:  # fmt: skip
    def predictor(windows: Windows) -> Outputs:
        x = inputs(*_flat(windows))
        return _outputs(windows, first.predict_proba(x)[:, 1], second.predict(x), spread)

    return predictor


def deepech(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """The published networks, where their weights are imported under that name.

    Their amplitudes have a reference level of their own, which was not published.
    """
    from terrella.tasks.ech.predict import predict
    from terrella.weights import load

    try:
        network = load("ech", "deepech").network
    except Refused:
        raise NoData("its weights are not imported (`terrella weights import`)") from None
    return lambda windows: predict(network, windows)
