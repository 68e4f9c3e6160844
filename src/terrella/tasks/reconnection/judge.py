"""How this task is trained and judged: whole simulated paths, published weights beside ours."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella.learn.metrics import ratio
from terrella.tasks.reconnection.network import CLASSES, predict
from terrella.tasks.reconnection.prepare import prepare
from terrella.tasks.reconnection.simulate import simulate
from terrella.tasks.reconnection.task import INPUTS, Evaluation, Options, Recipe
from terrella.types import Fold, Outputs, Record, Refused, Scene, Windows

RATE = 128.0  # samples a second of simulated burst E for training and judging: noise is per sample
KEEP = 15  # one row in so many is trained on: neighbours differ by little but noise
BINS = 10
KNOWN = 0.05  # spread of log B0 with which a user knows it
NAME = "waters2025"
COUNTS = [f"c{i}{j}" for i in range(CLASSES) for j in range(CLASSES)]
Predictor = Callable[[Windows], Outputs]

accuracy = ratio("right", "rows")
mean_confidence = ratio("confidence", "rows")
abstained = ratio("unsure", "rows")
accuracy_when_named = ratio("right_named", "named")


def macro_f1(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Mean of the classes' F1 from summed confusion counts; an absent class is left out."""
    total = (weight @ table[COUNTS].to_numpy(float)).reshape(CLASSES, CLASSES)
    there = total.sum(1) > 0
    if not there.any() or not np.isfinite(total).all():
        return float("nan")
    hit = np.diag(total)
    score = 2 * hit / np.maximum(total.sum(0) + total.sum(1), 1e-9)
    return float(score[there].mean())


def calibration_error(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Mean distance of confidence from accuracy over ten bins of confidence, by their rows."""
    p = weight @ table[[f"p{k}" for k in range(BINS)]].to_numpy(float)
    y = weight @ table[[f"y{k}" for k in range(BINS)]].to_numpy(float)
    rows = float(weight @ table["rows"].to_numpy(float))
    return float(np.abs(p - y).sum() / rows) if rows else float("nan")


def judge(outputs: Outputs, scene: Scene, recipe: Recipe, options: Options) -> pd.DataFrame:
    """Count right and wrong labels of one path.

    Returns:
        One row (a path is a block): confusion counts ``c<truth><label>``, sums of right labels,
        confidence and reliability bins; NaN where a baseline could not be had.
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
    box = np.minimum((np.nan_to_num(confidence) * BINS).astype(int), BINS - 1)
    row: dict[str, Any] = {
        "block": str(windows.groups["path"][0]) if len(windows) else "",
        "rows": len(truth), "right": right.sum(), "confidence": confidence.sum(),
        "unsure": unsure.sum(), "named": (~unsure).sum(), "right_named": (right & ~unsure).sum(),
        **{f"p{k}": confidence[box == k].sum() for k in range(BINS)},
        **{f"y{k}": right[box == k].sum() for k in range(BINS)},
    }  # fmt: skip
    counts = np.bincount(truth * CLASSES + best, minlength=CLASSES**2).astype(float)
    row |= dict(zip(COUNTS, counts, strict=True))
    if np.isnan(p).any():
        row |= {k: np.nan for k in row if k not in ("block", "rows", "named")}
    return pd.DataFrame([row])


def sample(windows: Windows, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A share of a path's rows: paths differ more than the samples of one."""
    rows = np.flatnonzero(windows.valid)
    chosen = np.sort(rng.choice(rows, max(len(rows) // KEEP, min(len(rows), 1)), replace=False))
    return chosen, np.ones(len(chosen), np.float32)


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
        scenes = [_slim(s.windows) for s in _from_files(paths, recipe, options)]
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
        _slim(_simulated(seed + k, seconds, recipe, options, _wrong_scale(seed + k, wrong)).windows)
        for k in range(count + held)
    ]
    return made[:count], made[count:]


def plan(
    paths: Sequence[Path], evaluation: Evaluation, recipe: Recipe, options: Options
) -> Iterator[Fold]:
    """The given weights on held-out paths: with the true B0, with B0 wrong by 20 %, estimated."""
    e = evaluation
    first = e.seed + e.paths
    train = tuple(
        _slim(_simulated(first + k, e.seconds, recipe, options, (1.0, 1.0)).windows)
        for k in range(e.train_paths)
    )
    if paths:
        scenes = tuple(_from_files(paths, recipe, options))
        split = "whole intervals; baselines learn from simulated paths"
        data = f"{len(scenes)} intervals with truth"
        yield Fold("files", scenes, train, data=data, split=split, keys=("path",))
        return
    data = f"simulated, {e.paths} paths of {e.seconds:g} s, seeds {e.seed}..{first - 1}"
    split = "held-out paths, a path is a block"
    for name, scale in (("B0 right", (1.0, 1.0)), ("B0 x 0.8", (0.8, 1.0)),
                        ("B0 x 1.2", (1.2, 1.0)), ("B0 and n0 estimated", None)):  # fmt: skip
        scenes = tuple(
            _simulated(e.seed + k, e.seconds, recipe, options, scale) for k in range(e.paths)
        )
        yield Fold(name, scenes, train, data=data, split=split, keys=("path",))


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
    from terrella.tasks.reconnection.inputs import open_files

    opened = open_files(paths, options)
    if opened.refused:
        raise Refused(opened.refused[0].why)
    for job in opened.jobs:
        record: Record = job.source.fetch(INPUTS, job.start, job.stop)
        if not any(k.endswith("_truth") for k in record):
            raise Refused(
                f"{job.stem}: holds no true regions (mms*_truth.nc) to judge against; "
                "folders of `terrella simulate reconnection` do"
            )
        yield Scene(record, _slim(prepare(record, recipe, options)))


def _slim(windows: Windows) -> Windows:
    """Without the derived quantities, which only a product needs."""
    extra = {k: v for k, v in windows.extra.items() if k != "crossings"}
    return dataclasses.replace(windows, extra=extra)


def nearest_centroid(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """Each sample goes to the nearest class mean in standardised features; no context."""
    x, y = _samples(train)
    mean, spread = x.mean(0), x.std(0) + 1e-9
    z = (x - mean) / spread
    centres = np.stack([z[y == k].mean(0) if (y == k).any() else np.full(z.shape[1], 1e3)
                        for k in range(CLASSES)])  # fmt: skip

    def predictor(windows: Windows) -> Outputs:
        at = (windows.x["features"][:, windows.extra["place"]].numpy() - mean) / spread
        square = ((at[:, None, :] - centres) ** 2).sum(2) / at.shape[1]
        like = np.exp(-0.5 * (square - square.min(1, keepdims=True)))
        return {"probability": (like / like.sum(1, keepdims=True)).astype(np.float32)}

    return predictor


def waters2025(train: Sequence[Windows], recipe: Recipe) -> Predictor:
    """The published weights, where imported under that name, each class renamed to ours.

    The published classes have no names, so each is given the region it most often meets on the
    training paths, which is the kindest reading of them. Without the weights every score is nan.
    """
    network = _published()
    if network is None:
        return lambda windows: {"probability": np.full((len(windows), CLASSES), np.nan, np.float32)}
    counts = np.zeros((CLASSES, CLASSES))
    for windows in train:
        if windows.y is not None:
            label = _run_published(network, windows).argmax(1)[windows.valid]
            np.add.at(counts, (label, windows.y["region"].numpy()[windows.valid]), 1)
    # A class that the training paths never show keeps its number.
    named = np.where(counts.sum(1) > 0, counts.argmax(1), np.arange(CLASSES))
    renaming = np.eye(CLASSES, dtype=np.float32)[named]
    return lambda windows: {"probability": _run_published(network, windows) @ renaming}


def _run_published(network: Any, windows: Windows) -> np.ndarray:
    """Published network in ``overlap`` mode, context up to the sample itself."""
    place = windows.extra["place"]
    first = max(place - 31, 0)
    past = windows.x["features"][:, first : place + 1]
    part = dataclasses.replace(
        windows, x={"features": past}, extra={**windows.extra, "mode": "overlap"}
    )
    return predict(network, part)["probability"]


@lru_cache(maxsize=1)
def _published() -> Any:
    from terrella.weights import load

    try:
        return load("reconnection", NAME).network
    except Refused:
        return None


def _samples(train: Sequence[Windows]) -> tuple[np.ndarray, np.ndarray]:
    if not train:
        raise Refused("nearest-centroid: no training paths to learn from")
    x = [w.x["features"][:, w.extra["place"]].numpy()[w.valid] for w in train]
    y = [w.y["region"].numpy()[w.valid] for w in train if w.y is not None]
    return np.concatenate(x), np.concatenate(y)
