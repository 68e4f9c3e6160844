"""How this task is trained and judged: whole simulated paths."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella.learn.metrics import ratio, reliability
from terrella.tasks.reconnection.derive import FEATURES
from terrella.tasks.reconnection.network import CLASSES
from terrella.tasks.reconnection.prepare import prepare
from terrella.tasks.reconnection.simulate import simulate
from terrella.tasks.reconnection.task import INPUTS, Evaluation, Options, Recipe
from terrella.types import Fold, Outputs, Record, Refused, Scene, Windows

RATE = 128.0  # samples a second of simulated burst E for training and judging: noise is per sample
KNOWN = 0.05  # spread of log B0 with which a user knows it
FAST = 0.65  # V; ions that flow faster along x for a twentieth of a path make it one of fast flow
RIGHT = "B0 right"
FOLDS: dict[str, tuple[float, float] | None] = {  # factors of the true B0 and n0
    RIGHT: (1.0, 1.0), "B0 x 0.8": (0.8, 1.0), "B0 x 1.2": (1.2, 1.0), "B0 and n0 estimated": None,
}  # fmt: skip
COUNTS = [f"c{i}{j}" for i in range(CLASSES) for j in range(CLASSES)]

accuracy = ratio("right", "rows")
mean_confidence = ratio("confidence", "rows")
brier = ratio("brier", "rows")
abstained = ratio("unsure", "rows")
accuracy_when_named = ratio("right_named", "named")


def macro_f1(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Mean of the classes' F1 from summed confusion counts; an absent class is left out."""
    # Column by column: taking many out of a table at once is slow.
    total = np.array([weight @ table[c].to_numpy(float) for c in COUNTS]).reshape(CLASSES, CLASSES)
    there = total.sum(1) > 0
    if not there.any():
        return float("nan")
    hit = np.diag(total)
    score = 2 * hit / np.maximum(total.sum(0) + total.sum(1), 1e-9)
    return float(score[there].mean())


def judge(outputs: Outputs, scene: Scene, recipe: Recipe, options: Options) -> pd.DataFrame:
    """Count right and wrong labels of one path.

    Returns:
        One row (a path is a block): confusion counts ``c<truth><label>``, sums of right labels,
        confidence and Brier scores, reliability of the confidence of the class named, and the
        path's ``activity``: how fast its ions flow.
    """
    windows = scene.windows
    if windows.y is None:
        raise Refused("judging needs the true region; files of `terrella simulate` have it")
    keep = windows.valid
    truth = windows.y["region"].numpy()[keep]
    p = outputs["probability"][keep]
    best, confidence = p.argmax(1), p.max(1)
    right = best == truth
    unsure = confidence < (outputs["abstain"][keep] if "abstain" in outputs else 0.0)
    counts = np.bincount(truth * CLASSES + best, minlength=CLASSES**2).astype(float)
    row: dict[str, Any] = {
        "block": str(windows.groups["path"][0]) if len(windows) else "",
        "activity": _activity(windows),
        "rows": len(truth), "right": right.sum(), "confidence": confidence.sum(),
        "brier": ((p - np.eye(CLASSES)[truth]) ** 2).sum(),
        "unsure": unsure.sum(), "named": (~unsure).sum(), "right_named": (right & ~unsure).sum(),
        **dict(zip(COUNTS, counts, strict=True)),
        **reliability(confidence, right, np.zeros(len(truth), int), 1),
    }  # fmt: skip
    return pd.DataFrame(row, index=[0])


def _activity(windows: Windows) -> str:
    """Level of a path's ion flow along x, in Alfven speeds; ``""`` where no row is valid."""
    flow = windows.x["features"][:, windows.extra["place"], FEATURES.index("vix")].numpy()
    if not windows.valid.any():
        return ""
    fast = np.quantile(np.abs(flow[windows.valid]), 0.95) >= FAST
    return f"ion flow {'>=' if fast else '<'} {FAST:g} V"


def training(
    paths: Sequence[Path], config: Mapping[str, Any], recipe: Recipe, options: Options
) -> tuple[list[Windows], list[Windows]]:
    """Paths to learn from and paths to choose the epoch and calibrate by.

    Args:
        paths: folders or files of ``terrella simulate``, or none.
        config: ``paths``, ``validation_paths``, ``seconds``, ``seed``, and ``wrong``, the share of
            learning paths that are shown with B0 off by 10 to 55 percent.
        recipe, options: as for a run.
    """
    if paths:
        scenes = [s.windows for s in _from_files(paths, recipe, options)]
        if len(scenes) < 2:
            raise Refused(
                "training needs two intervals at least: one to learn from, one to check on"
            )
        held = max(len(scenes) // 6, 1)
        return scenes[:-held], scenes[-held:]
    count, held, seed = (
        int(config.get(k, d)) for k, d in (("paths", 300), ("validation_paths", 40), ("seed", 0))
    )
    seconds, wrong = float(config.get("seconds", 60.0)), float(config.get("wrong", 0.3))
    if seed + count + held > Evaluation.seed:
        raise Refused(f"[data] seed: seeds from {Evaluation.seed} on are kept for judging")
    made = [
        _simulated(seed + k, seconds, recipe, options, _wrong_scale(seed + k, wrong)).windows
        for k in range(count + held)
    ]
    return made[:count], made[count:]


def plan(
    paths: Sequence[Path], evaluation: Evaluation, recipe: Recipe, options: Options
) -> Iterator[Fold]:
    """The given weights on held-out paths with the true B0; set aside, with a B0 that is not."""
    e = evaluation
    first = e.seed + e.paths
    train = tuple(
        _simulated(first + k, e.seconds, recipe, options, (1.0, 1.0)).windows
        for k in range(e.train_paths)
    )
    if paths:
        scenes = tuple(_from_files(paths, recipe, options))
        split = "whole intervals, an interval is a block; baselines learn from simulated paths"
        names = [str(s.windows.groups["path"][0]) for s in scenes]
        made = "simulated " if any(n.startswith("simulated") for n in names) else ""
        data = f"{len(scenes)} {made}intervals with truth"
        yield Fold("files", scenes, train, data=data, split=split, keys=("path",))
        return
    data = f"simulated, {e.paths} paths of {e.seconds:g} s, seeds {e.seed}..{first - 1}"
    split = "held-out paths, a path is a block"
    for name, scale in FOLDS.items():
        scenes = tuple(
            _simulated(e.seed + k, e.seconds, recipe, options, scale) for k in range(e.paths)
        )
        yield Fold(name, scenes, train, data=data, split=split, keys=("path",),
                   aside=name != RIGHT)  # fmt: skip


def _wrong_scale(seed: int, share: float) -> tuple[float, float]:
    rng = np.random.default_rng((seed, 99))
    b = rng.normal(0, KNOWN)
    if rng.random() < share:
        b = rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 0.45)
    return float(np.exp(b)), float(np.exp(rng.normal(0, 2 * KNOWN)))


def _simulated(
    seed: int, seconds: float, recipe: Recipe, options: Options, scale: tuple[float, float] | None
) -> Scene:
    record = simulate(seed, seconds / 3600, field_rate=RATE)
    truth = record["mms1_truth"].attrs
    b0, n0 = (None, None) if scale is None else (truth["b0"] * scale[0], truth["n0"] * scale[1])
    given = dataclasses.replace(options, b0=b0, n0=n0, event="")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # B0 is wrong here on purpose
        return Scene({}, _slim(prepare(record, recipe, given)))


def _from_files(paths: Sequence[Path], recipe: Recipe, options: Options) -> Iterator[Scene]:
    """Scenes of inputs with truth. A folder stands alone: simulated scenes share their dates."""
    from terrella.tasks.reconnection.inputs import open_files

    loose = [p for p in paths if not p.is_dir()]
    for part in [[p] for p in paths if p.is_dir()] + ([loose] if loose else []):
        opened = open_files(part, options)
        if opened.refused:
            raise Refused(opened.refused[0].why)
        for job in opened.jobs:
            record: Record = job.source.fetch(INPUTS, job.start, job.stop)
            if not any(k.endswith("_truth") for k in record):
                raise Refused(
                    f"{part[0]}: holds no true regions (mms*_truth.nc) to judge against; "
                    "folders of `terrella simulate reconnection` do"
                )
            yield Scene({}, _slim(prepare(record, recipe, options)))


def _slim(windows: Windows) -> Windows:
    """Without the derived quantities, which only a product needs."""
    extra = {k: v for k, v in windows.extra.items() if k != "crossings"}
    return dataclasses.replace(windows, extra=extra)
