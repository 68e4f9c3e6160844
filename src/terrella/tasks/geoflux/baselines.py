"""What the network must beat: each fitted on the training rows, made probabilistic alike.

Every baseline gives a centre, a constant scale and the same conformal table from rows that it was
not fitted on, so that intervals and CRPS are compared on equal terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from terrella.learn.split import apart
from terrella.tasks.geoflux import conformal, features
from terrella.tasks.geoflux.daily import LEADS
from terrella.tasks.geoflux.network import PublishedLSTM
from terrella.tasks.geoflux.prepare import EMBARGO, blocks
from terrella.tasks.geoflux.task import Recipe
from terrella.types import Outputs, Windows

Centre = Callable[[Windows], np.ndarray]  # windows -> (rows, leads)
FOLDS = 4  # of the fits that fill a table
PENALTY = 300.0  # of ridge, in standardised units
TREES = 300
CLASSES = (2.0, 3.0, 4.0, 5.0)  # edges of the classes of Kp
FEW = 10  # days at which a cell of a lookup counts half


def _crossfit(fit: Callable[[Windows, np.ndarray], Centre], train: Sequence[Windows],
              recipe: Recipe) -> Callable[[Windows], Outputs]:  # fmt: skip
    """Fit on all rows; fill the table from fits that left out every fourth block of time."""
    windows = _joined(train)
    truth = _truth(windows)
    fold = blocks(windows, recipe) % FOLDS
    error = np.full(truth.shape, np.nan)
    good = windows.valid
    for k in range(FOLDS):
        learn = good & apart(windows.time, windows.time[fold == k], EMBARGO)
        held = good & (fold == k)
        if learn.sum() > 50 and held.any():
            error[held] = (truth - fit(windows, learn)(windows))[held]
    centre = fit(windows, good)
    known = np.isfinite(error)
    if not known.any(0).all():
        error = np.where(good[:, None], truth - centre(windows), np.nan)
    scale = np.sqrt(np.nanmean(error**2, 0))
    table = conformal.table_of(error / scale)

    def predictor(rows: Windows) -> Outputs:
        mean = centre(rows)
        return {
            "mean": mean.astype(np.float32),
            "scale": np.broadcast_to(scale, mean.shape).astype(np.float32),
            "table": np.broadcast_to(table, (len(mean), *table.shape)),
        }

    return predictor


def _joined(train: Sequence[Windows]) -> Windows:
    if len(train) == 1:
        return train[0]
    ys = [w.y for w in train if w.y is not None]
    return Windows(
        x={k: torch.cat([w.x[k] for w in train]) for k in train[0].x},
        time=np.concatenate([w.time for w in train]),
        valid=np.concatenate([w.valid for w in train]),
        y={k: torch.cat([y[k] for y in ys]) for k in ys[0]},
        extra={"lags": np.concatenate([w.extra["lags"] for w in train])},
    )


def _truth(windows: Windows) -> np.ndarray:
    assert windows.y is not None
    return windows.y["log_flux"].numpy().astype(float)


def _last(windows: Windows, otherwise: float) -> np.ndarray:
    """Latest known daily log10 flux of each row, (rows,)."""
    days = features.columns(windows, [f"day {i}" for i in range(features.DAYS)])
    best = np.full(len(days), otherwise)
    for k in reversed(range(days.shape[1])):
        best = np.where(np.isfinite(days[:, k]), days[:, k], best)
    return best


def _mean(windows: Windows, learn: np.ndarray) -> float:
    return float(np.nanmean(_truth(windows)[learn]))


def persistence(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """The last known day goes on."""

    def fit(windows: Windows, learn: np.ndarray) -> Centre:
        usual = _mean(windows, learn)
        return lambda rows: np.repeat(_last(rows, usual)[:, None], len(LEADS), 1)

    return _crossfit(fit, train, recipe)


def climatology(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """A mean with its yearly and half-yearly wave."""

    def design(rows: Windows) -> np.ndarray:
        wave = features.columns(rows, ("sin year", "cos year", "sin half-year", "cos half-year"))
        return np.concatenate([np.ones((len(wave), 1)), wave], 1)

    return _crossfit(lambda w, learn: _least_squares(design, w, learn, 1e-3), train, recipe)


def month_and_kp(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """The mean of each month and class of Kp yesterday: season and activity, but no flux."""

    def fit(windows: Windows, learn: np.ndarray) -> Centre:
        truth, cell = _truth(windows)[learn], _cell(windows)[learn]
        known = np.isfinite(truth)
        usual = np.nanmean(truth, 0)
        shape = 12 * (len(CLASSES) + 1)
        total, count = (
            np.stack([np.bincount(cell, part, shape) for part in values.T], 1)
            for values in (np.where(known, truth, 0.0), known.astype(float))
        )
        few = FEW * max(24 // recipe.every, 1)  # rows; a cell of few days says what all days say
        table: np.ndarray = (total + few * usual) / (count + few)
        return lambda rows: table[_cell(rows)]

    return _crossfit(fit, train, recipe)


def _cell(windows: Windows) -> np.ndarray:
    """Month and class of the largest Kp of the last day, as one number; no Kp is the top class."""
    month = windows.time.astype("datetime64[M]").astype(int) % 12
    Kp = features.columns(windows, ("Kp max 0-24 h",))[:, 0]
    number: np.ndarray = month * (len(CLASSES) + 1) + np.digitize(Kp, CLASSES)
    return number


def autoregression(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """AR(27): a line through the daily log10 flux of the last 27 days, one for each lead."""

    def fit(windows: Windows, learn: np.ndarray) -> Centre:
        usual = _mean(windows, learn)

        def design(rows: Windows) -> np.ndarray:
            lags = np.where(np.isfinite(rows.extra["lags"]), rows.extra["lags"], usual)
            return np.concatenate([np.ones((len(lags), 1)), lags], 1)

        return _least_squares(design, windows, learn, 1e-3)

    return _crossfit(fit, train, recipe)


def ridge(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """Ridge regression of the change from the last day on the network's own features."""

    def fit(windows: Windows, learn: np.ndarray) -> Centre:
        values = windows.x["features"].numpy().astype(float)[learn]
        known = np.isfinite(values)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, values, 0).sum(0) / count
        std = np.sqrt(np.where(known, (values - mean) ** 2, 0).sum(0) / count)
        std = np.where(std > 1e-6, std, 1.0)
        usual = _mean(windows, learn)

        def design(rows: Windows) -> np.ndarray:
            scaled = (rows.x["features"].numpy().astype(float) - mean) / std
            scaled = np.clip(np.nan_to_num(scaled), -5, 5)
            return np.concatenate([np.ones((len(scaled), 1)), scaled], 1)

        return _least_squares(design, windows, learn, PENALTY, lambda r: _last(r, usual))

    return _crossfit(fit, train, recipe)


def _least_squares(
    design: Callable[[Windows], np.ndarray], windows: Windows, learn: np.ndarray, penalty: float,
    base: Callable[[Windows], np.ndarray] = lambda rows: np.zeros(len(rows)),
) -> Centre:  # fmt: skip
    A, y = design(windows)[learn], (_truth(windows) - base(windows)[:, None])[learn]
    solved = []
    for k in range(y.shape[1]):
        there = np.isfinite(y[:, k])
        X = A[there]
        shrink = penalty * np.eye(X.shape[1])
        shrink[0, 0] = 0.0
        solved.append(np.linalg.solve(X.T @ X + shrink, X.T @ y[there, k]))
    p = np.stack(solved, 1)
    return lambda rows: base(rows)[:, None] + design(rows) @ p


def lightgbm(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """Boosted trees of the change from the last day, on the network's own rows and features."""
    import lightgbm as gbm

    settings = {
        "objective": "regression", "learning_rate": 0.04, "num_leaves": 15,
        "feature_fraction": 0.3, "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0,
        "min_data_in_leaf": 20 * max(24 // recipe.every, 1), "verbose": -1, "seed": 0,
        "deterministic": True,
        "force_row_wise": True, "num_threads": 1,  # a few thousand rows: more threads only wait
    }  # fmt: skip

    def fit(windows: Windows, learn: np.ndarray) -> Centre:
        usual = _mean(windows, learn)
        X = windows.x["features"].numpy()
        change = _truth(windows) - _last(windows, usual)[:, None]
        trees = []
        for k in range(len(LEADS)):
            rows = learn & np.isfinite(change[:, k])
            data = gbm.Dataset(X[rows], change[rows, k], free_raw_data=True)
            trees.append(gbm.train(settings, data, TREES))

        def centre(rows: Windows) -> np.ndarray:
            ahead = [np.asarray(t.predict(rows.x["features"].numpy())) for t in trees]
            made: np.ndarray = _last(rows, usual)[:, None] + np.stack(ahead, 1)
            return made

        return centre

    return _crossfit(fit, train, recipe)


def published_lstm(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """The published LSTM on five days of flux, r0 and sum of Kp."""

    def fit(windows: Windows, learn: np.ndarray) -> Centre:
        rows = np.flatnonzero(learn)
        days, truth = windows.x["days"][rows], torch.from_numpy(_truth(windows)[rows]).float()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = PublishedLSTM(Recipe(network="lstm", hidden=24))
            network.fit_scale({"days": days})
            optimiser = torch.optim.Adam(network.parameters(), 5e-3)
            order = torch.Generator().manual_seed(0)
            for _ in range(EPOCHS):
                for part in torch.randperm(len(rows), generator=order).split(256):  # type: ignore[no-untyped-call]
                    optimiser.zero_grad()
                    error = truth[part] - network(days[part], days[part])["mean"]
                    torch.nan_to_num(error).square().mean().backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
        network.eval()

        def centre(rows: Windows) -> np.ndarray:
            with torch.inference_mode():
                mean: np.ndarray = network(rows.x["days"], rows.x["days"])["mean"].numpy()
            return mean.astype(float)

        return centre

    return _crossfit(fit, train, recipe)


EPOCHS = 20
