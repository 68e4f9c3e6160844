"""Training scenes, evaluation folds and sums to score, blocked by storm.

Sums are kept per storm and level of activity, so that a block bootstrap only re-weights a few
hundred rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from terrella.learn.metrics import reliability
from terrella.learn.split import apart, by_group
from terrella.tasks.ech.decode import Z80
from terrella.tasks.ech.inputs import REACH, open_files
from terrella.tasks.ech.prepare import prepare, reach
from terrella.tasks.ech.simulate import SCATTER, simulate
from terrella.tasks.ech.task import INPUTS, Evaluation, Options, Recipe
from terrella.types import Fold, Outputs, Refused, Scene, Windows

Floats = NDArray[np.floating]
CUTS = 200  # bins of probability for ROC-AUC: fine enough for its fourth digit


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
        windows.extra["year"] = windows.time.astype("datetime64[Y]").astype(str)
        found.append(Scene(record, windows))
    return found


def plan(
    paths: Sequence[Path], evaluation: Evaluation, recipe: Recipe, options: Options
) -> Iterator[Fold]:
    """One fold: held-out storms, with other storms for the baselines, and for the recipe if asked.

    Storms of files share a clock: a row to learn from whose 48 h of indices touch those of a test
    row is left out.
    """
    options = _everywhere(options)
    if paths:
        test, learn, held = _dealt(scenes(paths, recipe, options), evaluation)
        data, embargo = "given files", REACH
        split = "half of the storms (9-day blocks if unnamed) to learn from, half to judge"
    else:
        test = (_simulated(evaluation.seed, evaluation.days, recipe, options),)
        learn = (_simulated(Data.seed, evaluation.learn, recipe, options).windows,)
        held = ()
        if evaluation.refit:  # the last part chooses the epoch
            days = max(int(evaluation.learn * Data.held), 2)
            learn = (*learn, _simulated(Data.seed + 1, days, recipe, options).windows)
        data = f"simulated survey of {evaluation.days} days, seed {evaluation.seed}"
        split, embargo = "storms of another seed than training", None
    if not evaluation.refit:
        learn, held = learn + held, ()
    yield Fold(
        "held-out", test, learn, held, refit=evaluation.refit, data=data, split=split,
        keys=("storm",), embargo=embargo,
    )  # fmt: skip


def _dealt(
    parts: Sequence[Scene], evaluation: Evaluation
) -> tuple[tuple[Scene, ...], tuple[Windows, ...], tuple[Windows, ...]]:
    """Test, training and validation parts of scenes from files, by storm."""
    storms = np.concatenate([s.windows.groups["storm"] for s in parts])
    edges = np.cumsum([len(s.windows) for s in parts])[:-1]
    masks = [np.split(m, edges) for m in by_group(storms, (0.5, 0.4, 0.1), evaluation.seed)]
    test = tuple(Scene(s.record, _only(s.windows, m)) for s, m in zip(parts, masks[0], strict=True))
    tested = np.concatenate([s.windows.time[s.windows.valid] for s in test])
    learn, held = (
        tuple(
            _only(s.windows, m & apart(s.windows.time, tested, REACH))
            for s, m in zip(parts, side, strict=True)
        )
        for side in masks[1:]
    )
    return test, learn, held


def judge(outputs: Outputs, scene: Scene, recipe: Recipe, options: Options) -> pd.DataFrame:
    """Sums of every storm and level of activity, one row each.

    Args:
        outputs: ``logit``, ``mean``, ``spread``, (rows, points) each.
        scene: windows with targets, one group (its labels are the blocks), and in ``extra``
            ``activity`` and, for scores by year, ``year`` (rows,).
        recipe, options: not used; every task's judge is called alike.

    Returns:
        ``block``, ``activity`` and, where years are known, ``group``; sums of errors, ROC bins and
        reliability.
    """
    windows = scene.windows
    assert windows.y is not None
    (block,) = windows.groups.values()
    labels = {"block": block, "activity": windows.extra["activity"]}
    labels |= {"group": windows.extra["year"]} if "year" in windows.extra else {}
    parts = pd.DataFrame(labels)[windows.valid].groupby(list(labels))
    names = parts.size().index.to_frame(index=False)
    seen = windows.y["occurrence"].numpy().astype(float)[windows.valid]
    keep = np.isfinite(seen)
    row = np.broadcast_to(parts.ngroup().to_numpy()[:, None], seen.shape)[keep]

    def known(values: Any) -> Floats:
        found: Floats = np.asarray(values, float)[windows.valid][keep]
        return found

    o, a, p = seen[keep], known(windows.y["amplitude"].numpy()), expit(known(outputs["logit"]))
    unknown = np.full(windows.y["occurrence"].shape, np.nan)
    best, mean = (known(windows.extra.get(f"true_{n}", unknown)) for n in ("probability", "mean"))
    columns: dict[str, Floats] = {
        "n": np.ones(len(o)), "o": o,
        "se": (p - o) ** 2, "correct": ((p >= 0.5) == (o > 0)) + 0 * p,
        "best_correct": ((best >= 0.5) == (o > 0)) + 0 * best, "best_se": (best - o) ** 2,
        **_amplitude_columns(a, known(outputs["mean"]), known(outputs["spread"]), mean),
    }  # fmt: skip
    # Sums by bincount keep NaN: a model that does not speak has no score, not a perfect one.
    sums = {k: np.bincount(row, v, len(names)) for k, v in columns.items()}
    sums |= reliability(p, o, row, len(names)) | _binned(p, o, row, len(names))
    return pd.concat([names, pd.DataFrame(sums)], axis=1)


def _amplitude_columns(a: Floats, m: Floats, s: Floats, best: Floats) -> dict[str, Floats]:
    wave = np.isfinite(a)
    a, m, s, best = (np.where(wave, v, 0.0) for v in (a, m, s, best))
    return {
        "waves": wave.astype(float), "a": a, "a2": a**2, "sse": (a - m) ** 2,
        "inside": np.where(np.isnan(s), np.nan, wave * (np.abs(a - m) <= Z80 * s)),
        "best_sse": (a - best) ** 2,
    }  # fmt: skip


def _binned(p: Floats, o: Floats, row: NDArray[np.int64], rows: int) -> dict[str, Floats]:
    """Waves and silences of each row of the table in fine bins of probability."""
    at = row * CUTS + np.clip((np.nan_to_num(p) * CUTS).astype(int), 0, CUTS - 1)
    made: dict[str, Floats] = {}
    for kind, value in (("yes", o + 0 * p), ("no", 1 - o + 0 * p)):
        sums = np.bincount(at, value, rows * CUTS).reshape(rows, CUTS).astype(float)
        made |= {f"{kind}{k}": sums[:, k] for k in range(CUTS)}
    return made


def attainable(scene: Scene, recipe: Recipe) -> Outputs:
    """The simulation's own probability and mean: nobody can do better."""
    chance, mean = (scene.windows.extra[f"true_{n}"] for n in ("probability", "mean"))
    return {"logit": logit(np.clip(chance, 1e-9, 1 - 1e-9)), "mean": mean,
            "spread": np.full_like(mean, SCATTER)}  # fmt: skip
