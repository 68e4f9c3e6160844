"""Training scenes, evaluation folds and scores, blocked by storm.

Sums are kept per storm, so that a block bootstrap only re-weights a few hundred rows. On simulated
scenes the truth is known, and scores are also given as a share of the best attainable on the very
same draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from terrella.learn.split import by_group
from terrella.tasks.ech.decode import Z80
from terrella.tasks.ech.inputs import open_files
from terrella.tasks.ech.prepare import prepare, reach
from terrella.tasks.ech.simulate import simulate
from terrella.tasks.ech.task import INPUTS, Evaluation, Options, Recipe
from terrella.types import Fold, Outputs, Refused, Scene, Windows

Floats = NDArray[np.floating]
CUTS = 200  # bins of probability for ROC-AUC: fine enough for its fourth digit
RELIABILITY = 10


@dataclasses.dataclass(frozen=True)
class Data:
    """The ``[data]`` table of a recipe file: simulated scenes to train on.

    Attributes:
        days: length of the simulated survey that is learned from.
        every: minutes between its samples.
        seed: of its storms; validation uses the next.
        held: share of days, beside the training days, that choose the epoch and calibrate.
    """

    days: int = 1460
    every: int = 10
    seed: int = 1
    held: float = 0.15


def _everywhere(options: Options) -> Options:
    return dataclasses.replace(options, amplitude_everywhere=True)


def training(paths: Sequence[Path], config: Mapping[str, Any], recipe: Recipe, options: Options
             ) -> tuple[list[Windows], list[Windows]]:  # fmt: skip
    """Rows to learn from and rows that choose the epoch, of other storms.

    Without paths both are simulated; with paths, orbit files must say what was seen
    (``amplitude_dB``, blank without a wave), and a share of their storms is held out.
    """
    data = Data(**config)
    options = _everywhere(options)
    if paths:
        parts = [s.windows for s in scenes(paths, recipe, options)]
        chosen = [by_group(w.groups["storm"], (1 - data.held, data.held), data.seed) for w in parts]
        return (
            [_only(w, masks[0]) for w, masks in zip(parts, chosen, strict=True)],
            [_only(w, masks[1]) for w, masks in zip(parts, chosen, strict=True)],
        )
    learned = _simulated(data.seed, data.days, recipe, options, data.every)
    held = _simulated(
        data.seed + 1, max(int(data.days * data.held), 2), recipe, options, data.every
    )
    return [learned.windows], [held.windows]


def _only(windows: Windows, mask: NDArray[np.bool_]) -> Windows:
    return dataclasses.replace(windows, valid=windows.valid & mask)


def _simulated(seed: int, days: float, recipe: Recipe, options: Options, every: int = 10) -> Scene:
    record = simulate(seed=seed, hours=24.0 * days, every=every)
    windows = prepare(record, recipe, options)
    groups = {"storm": np.array([f"{seed}:{s}" for s in record["storm"].values])}
    return Scene(record, dataclasses.replace(windows, groups=groups))


def scenes(paths: Sequence[Path], recipe: Recipe, options: Options) -> list[Scene]:
    """Index and orbit files to scenes whose truth is what was seen."""
    found = []
    before = reach(recipe, options)[0]
    for job in open_files(paths, options).jobs:
        record = job.source.fetch(INPUTS, job.start - before, job.stop)
        windows = prepare(record, recipe, options)
        if windows.y is None:
            raise Refused(
                f"{job.stem}: its orbit file does not say what was seen; add a column amplitude_dB "
                "(blank without a wave), or give an orbit file that has one"
            )
        found.append(Scene(record, windows))
    return found


def plan(paths: Sequence[Path], evaluation: Evaluation, recipe: Recipe, options: Options
         ) -> Iterable[Fold]:  # fmt: skip
    """One fold: held-out storms, with the training storms for the baselines."""
    options = _everywhere(options)
    if paths:
        parts = scenes(paths, recipe, options)
        masks = [by_group(s.windows.groups["storm"], (0.5, 0.5), evaluation.seed) for s in parts]
        learn = tuple(_only(s.windows, m[0]) for s, m in zip(parts, masks, strict=True))
        test = tuple(
            Scene(s.record, _only(s.windows, m[1])) for s, m in zip(parts, masks, strict=True)
        )
        yield Fold(
            "held-out", test, learn, data="given files", keys=("storm",),
            split="half of the storms (9-day blocks) for baselines, half to judge on",
        )  # fmt: skip
        return
    learn = (_simulated(Data.seed, Data.days / 4, recipe, options).windows,)
    scene = _simulated(evaluation.seed, evaluation.days, recipe, options)
    yield Fold(
        "held-out", (scene,), learn, keys=("storm",),
        data=f"simulated survey of {evaluation.days} days, seed {evaluation.seed}",
        split="storms of another seed than training",
    )  # fmt: skip


def judge(outputs: Outputs, scene: Scene, recipe: Recipe, options: Options) -> pd.DataFrame:
    """Sums of every storm, one row each; ``block`` is the storm."""
    windows = scene.windows
    assert windows.y is not None
    seen = windows.y["occurrence"].numpy().astype(float)
    heard = windows.y["amplitude"].numpy().astype(float)
    keep = np.broadcast_to(windows.valid[:, None], seen.shape) & np.isfinite(seen)
    block = np.broadcast_to(windows.groups["storm"][:, None], seen.shape)[keep]
    o, a = seen[keep], heard[keep]
    p = expit(outputs["logit"].astype(float))[keep]
    m, s = outputs["mean"].astype(float)[keep], outputs["spread"].astype(float)[keep]
    columns = {
        "n": np.ones(len(o)),
        "o": o,
        "correct": ((p >= 0.5) == (o > 0)) + 0 * p,
        "se": (p - o) ** 2,
    }
    columns |= _amplitude_columns(a, m, s)
    if "probability" in windows.extra:
        best = windows.extra["probability"][keep]
        mean = windows.extra["mean"][keep]
        columns |= {"best_correct": (best >= 0.5) == (o > 0), "best_se": (best - o) ** 2}
        columns["best_sse"] = np.where(np.isfinite(a), (a - mean) ** 2, 0.0)
    names, row = np.unique(block, return_inverse=True)
    # Sums by bincount keep NaN: a model that does not speak has no score, not a perfect one.
    sums = {k: np.bincount(row, np.asarray(v, float)) for k, v in columns.items()}
    return pd.concat([pd.DataFrame({"block": names, **sums}), _binned(p, o, row)], axis=1)


def _amplitude_columns(a: Floats, m: Floats, s: Floats) -> dict[str, Floats]:
    wave = np.isfinite(a)
    a, m, s = (np.where(wave, v, 0.0) for v in (a, m, s))
    return {
        "waves": wave.astype(float), "a": a, "a2": a**2, "sse": (a - m) ** 2,
        "inside": np.where(np.isnan(s), np.nan, wave * (np.abs(a - m) <= Z80 * s)),
    }  # fmt: skip


def _binned(p: Floats, o: Floats, row: NDArray[np.int64]) -> pd.DataFrame:
    """Waves, silences and summed probability of each storm in fine bins of probability."""
    storms = int(row.max()) + 1 if len(row) else 0
    at = row * CUTS + np.clip((np.nan_to_num(p) * CUTS).astype(int), 0, CUTS - 1)
    tables = [
        pd.DataFrame(
            np.bincount(at, v, storms * CUTS).reshape(storms, CUTS),
            columns=[f"{kind}{k}" for k in range(CUTS)],
        )
        for kind, v in (("yes", o + 0 * p), ("no", 1 - o + 0 * p), ("sum", p))
    ]
    return pd.concat(tables, axis=1)


def _fine(table: pd.DataFrame, weight: Floats, kind: str) -> Floats:
    found: Floats = weight @ table[[f"{kind}{k}" for k in range(CUTS)]].to_numpy(float)
    return found


def _sum(table: pd.DataFrame, weight: Floats, name: str) -> float:
    return float(weight @ table[name].to_numpy(float)) if name in table else float("nan")


def accuracy(table: pd.DataFrame, weight: Floats) -> float:
    """Share of samples whose occurrence (threshold 0.5) is right."""
    return _sum(table, weight, "correct") / _sum(table, weight, "n")


def brier(table: pd.DataFrame, weight: Floats) -> float:
    """Mean squared error of the probability."""
    return _sum(table, weight, "se") / _sum(table, weight, "n")


def _skill(table: pd.DataFrame, weight: Floats, name: str) -> float:
    rate = _sum(table, weight, "o") / _sum(table, weight, "n")
    return 1 - _sum(table, weight, name) / _sum(table, weight, "n") / (rate * (1 - rate))


def brier_skill(table: pd.DataFrame, weight: Floats) -> float:
    """1 - Brier score over that of the rate of occurrence in the rows judged."""
    return _skill(table, weight, "se")


def roc_auc(table: pd.DataFrame, weight: Floats) -> float:
    """Area under the ROC curve, from probabilities in 200 bins."""
    yes, no = _fine(table, weight, "yes"), _fine(table, weight, "no")
    below = np.cumsum(no) - no
    return float((yes * (below + no / 2)).sum() / (yes.sum() * no.sum()))


def calibration_error(table: pd.DataFrame, weight: Floats) -> float:
    """Mean distance of probability from frequency over ten bins, weighted by their samples."""
    yes, no, total = (_fine(table, weight, k) for k in ("yes", "no", "sum"))
    parts = [v.reshape(RELIABILITY, -1).sum(1) for v in (yes, yes + no, total)]
    return float(np.abs(parts[0] - parts[2]).sum() / parts[1].sum())


def _r2(table: pd.DataFrame, weight: Floats, name: str) -> float:
    waves, total = _sum(table, weight, "waves"), _sum(table, weight, "a")
    return 1 - _sum(table, weight, name) / (_sum(table, weight, "a2") - total**2 / waves)


def r2(table: pd.DataFrame, weight: Floats) -> float:
    """Explained share of the variance of amplitude, over the waves that were seen."""
    return _r2(table, weight, "sse")


def rmse(table: pd.DataFrame, weight: Floats) -> float:
    """Root mean squared error of amplitude, dB."""
    return float(np.sqrt(_sum(table, weight, "sse") / _sum(table, weight, "waves")))


def coverage_80(table: pd.DataFrame, weight: Floats) -> float:
    """Share of amplitudes inside their 80 % interval."""
    return _sum(table, weight, "inside") / _sum(table, weight, "waves")


def accuracy_of_best(table: pd.DataFrame, weight: Floats) -> float:
    """Accuracy over the best attainable on the same simulated draws."""
    return _sum(table, weight, "correct") / _sum(table, weight, "best_correct")


def brier_skill_of_best(table: pd.DataFrame, weight: Floats) -> float:
    """Brier skill over the best attainable on the same simulated draws."""
    return _skill(table, weight, "se") / _skill(table, weight, "best_se")


def r2_of_best(table: pd.DataFrame, weight: Floats) -> float:
    """R2 over the best attainable on the same simulated draws."""
    return _r2(table, weight, "sse") / _r2(table, weight, "best_sse")


def attainable(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
    """The simulation's own probability and mean: nobody can do better. Blank on observations."""

    def predictor(windows: Windows) -> Outputs:
        assert windows.y is not None
        blank = np.full(windows.y["occurrence"].shape, np.nan)
        chance = windows.extra.get("probability", blank)
        mean = windows.extra.get("mean", blank)
        return {"logit": logit(np.clip(chance, 1e-9, 1 - 1e-9)), "mean": mean,
                "spread": np.full_like(mean, 4.0)}  # fmt: skip

    return predictor
