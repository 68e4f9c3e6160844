"""What a network must beat: climatology, ridge and gradient-boosted trees, on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from terrella.tasks.ech.features import HISTORIES
from terrella.tasks.ech.task import Recipe
from terrella.types import Outputs, Refused, Windows

Floats = NDArray[np.floating]
ROWS = 80_000  # learned from; more moved no score of these
LEVEL_STEP, HOUR_STEP, LAT_STEP = 0.5, 2.0, 5.0
SHRINK = 20.0  # samples of the overall mean that are added to each bin of a climatology


def _flat(windows: Windows) -> tuple[Floats, Floats]:
    """Place features (n, 4) and histories (n, 220) of every point of every row."""
    place = windows.x["place"].numpy()
    rows, points = place.shape[:2]
    past = np.concatenate([windows.x[h].numpy() for h in HISTORIES], 1)
    return place.reshape(-1, 4), np.repeat(past, points, 0).reshape(rows * points, -1)


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


def cells(level: Floats, hour: Floats, lat: Floats | None = None) -> NDArray[np.int64]:
    """Number of the (L, MLT) or (L, MLT, |MLAT|) bin of each place."""
    key = (level / LEVEL_STEP).astype(np.int64) * 100 + (hour / HOUR_STEP).astype(np.int64)
    return key if lat is None else key * 100 + (np.abs(lat) / LAT_STEP).astype(np.int64)


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
    hour = np.arctan2(place[:, 2], place[:, 1]) * 12 / np.pi % 24
    lat = np.degrees(np.arccos(np.clip(place[:, 3], 0, 1) ** (1 / 6)))
    return cells(place[:, 0], hour, lat)


def climatology(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """Rate of occurrence and mean amplitude in bins of L, MLT and |MLAT|."""
    place, _, o, a = _learned(train)
    wave = np.isfinite(a)
    key = _cells(place)
    chance, mean = table_of(key, o), table_of(key[wave], a[wave])
    spread = float(np.std(a[wave] - mean(key[wave])))

    def predictor(windows: Windows) -> Outputs:
        k = _cells(_flat(windows)[0])
        return _outputs(windows, chance(k), mean(k), spread)

    return predictor


def _smooth(place: Floats, past: Floats) -> Floats:
    """Inputs as a linear model likes them: harmonics of place, asinh of the histories."""
    level, cos, sin = place[:, :1], place[:, 1:2], place[:, 2:3]
    extra = [level**2, cos * cos - sin * sin, 2 * sin * cos, level * cos, level * sin]
    return np.concatenate([place, *extra, np.arcsinh(past / 100)], 1)


def ridge(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
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


def lightgbm(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """Gradient-boosted trees on the 224 raw inputs."""
    place, past, o, a = _learned(train)
    wave = np.isfinite(a)
    inputs = _raw(place, past)
    first, second = trees("binary").fit(inputs, o > 0), trees("regression")
    second.fit(inputs[wave], a[wave])
    return _fitted(first, second, _raw, float(np.std(a[wave] - second.predict(inputs[wave]))))


def trees(objective: str, seed: int = 0) -> Any:
    """The LightGBM model that every comparison of this task uses."""
    import lightgbm as gbm

    kind = gbm.LGBMClassifier if objective == "binary" else gbm.LGBMRegressor
    return kind(
        n_estimators=250, learning_rate=0.04, num_leaves=15, min_child_samples=50, subsample=0.8,
        subsample_freq=1, colsample_bytree=0.5, n_jobs=1, verbose=-1, random_state=seed,
    )  # fmt: skip


def _raw(place: Floats, past: Floats) -> Floats:
    return np.concatenate([place, past], 1)


def _fitted(first: Any, second: Any, inputs: Callable[[Floats, Floats], Floats], spread: float
            ) -> Callable[[Windows], Outputs]:  # fmt: skip
    def predictor(windows: Windows) -> Outputs:
        x = inputs(*_flat(windows))
        return _outputs(windows, first.predict_proba(x)[:, 1], second.predict(x), spread)

    return predictor
