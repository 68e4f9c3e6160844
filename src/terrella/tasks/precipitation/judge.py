"""How this task is trained and judged: whole orbits, events matched with the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella.learn.metrics import f1, ratio, reliability
from terrella.steps.events import match, runs
from terrella.tasks.precipitation.decode import find, on_time_axis
from terrella.tasks.precipitation.prepare import open_files, orbits, prepare
from terrella.tasks.precipitation.simulate import simulate
from terrella.tasks.precipitation.task import CLASSES, INPUTS, Evaluation, Options, Recipe
from terrella.types import Fold, Outputs, Record, Refused, Scene, Windows

precision_REP, precision_CSS = (ratio(f"hit_{c}", f"found_{c}") for c in CLASSES[1:])
recall_REP, recall_CSS = (ratio(f"caught_{c}", f"true_{c}") for c in CLASSES[1:])
f1_REP, f1_CSS = (f1(f"hit_{c}", f"false_{c}", f"missed_{c}") for c in CLASSES[1:])
false_alarms = ratio("false", "orbits")
brier = ratio("brier", "samples")


def judge(outputs: Outputs, scene: Scene, recipe: Recipe, options: Options) -> pd.DataFrame:
    """Count hits, misses and false alarms of each orbit.

    An event hits a true one of its class if they overlap within the tolerance; each counts
    once. Scored are the samples that a window speaks for.

    Returns:
        One row an orbit, all columns sums: counts by class, Brier sums, reliability bins.
    """
    record, windows = scene.record, scene.windows
    truth = record["truth"].to_numpy()
    tolerance = int(windows.extra.get("tolerance", Evaluation.tolerance))
    probability = on_time_axis(outputs["logits"], windows, len(truth), options)
    found = find(probability, record, options)
    labels = orbits(
        record["L"]["time"].to_numpy(), record["lat"].to_numpy(), record["L"].attrs["satellite"]
    )
    names, orbit = np.unique(labels, return_inverse=True)
    columns: dict[str, Any] = {"block": names, "orbits": np.ones(len(names)), "false": 0.0}
    for k, label in enumerate(CLASSES[1:], 1):
        real = runs(truth == k)
        hit, caught = match(found[label], real, tolerance)
        where, there = orbit[found[label][0]], orbit[real[0]]
        for column, at, which in (
            ("hit", where, hit), ("false", where, ~hit), ("found", where, hit | True),
            ("caught", there, caught), ("missed", there, ~caught), ("true", there, caught | True),
        ):  # fmt: skip
            counted = np.bincount(at[which], minlength=len(names)).astype(float)
            columns[f"{column}_{label}"] = counted
            if column == "false":
                columns["false"] = columns["false"] + counted
    known = ~np.isnan(probability[:, 0])
    p, where = probability[known], orbit[known]
    errors = ((p - np.eye(len(CLASSES))[truth[known]]) ** 2).sum(1)
    columns["brier"] = np.bincount(where, errors, len(names))
    columns["samples"] = np.bincount(where, minlength=len(names)).astype(float)
    columns |= reliability(p[:, 1:].sum(1), truth[known] > 0, where, len(names))
    return pd.DataFrame(columns)


def training(
    paths: Sequence[Path], config: Mapping[str, Any], recipe: Recipe, options: Options
) -> tuple[list[Windows], list[Windows]]:
    """Windows to learn from and to choose the epoch by: other days, so other orbits.

    Args:
        paths: SEM-2 files with the truth in them (``terrella simulate`` writes such), or none.
        config: ``days``, ``validation_days``, ``seed`` of simulated days where no files are given.
        recipe, options: as for a run.
    """
    if paths:
        scenes = list(_from_files(paths, recipe, options, 3))
        if len(scenes) < 2:
            raise Refused("training needs two files at least: one to learn from, one to check on")
        held = max(len(scenes) // 6, 1)
        return [s.windows for s in scenes[:-held]], [s.windows for s in scenes[-held:]]
    days, held, seed = (
        int(config.get(k, d)) for k, d in (("days", 40), ("validation_days", 8), ("seed", 0))
    )
    if seed + days + held > Evaluation.seed:
        raise Refused(f"[data] seed: seeds from {Evaluation.seed} on are kept for judging")
    made = [_simulated(seed + k, recipe, options, 3).windows for k in range(days + held)]
    return made[:days], made[days:]


def plan(
    paths: Sequence[Path], evaluation: Evaluation, recipe: Recipe, options: Options
) -> Iterator[Fold]:
    """The given weights on whole days, with their truth."""
    if paths:
        scenes = tuple(_from_files(paths, recipe, options, evaluation.tolerance))
        some = "file" if len(scenes) == 1 else "files"
        data = f"{len(scenes)} simulated {some}"  # no other has the truth in it
    else:
        seeds = range(evaluation.seed, evaluation.seed + evaluation.days)
        scenes = tuple(_simulated(s, recipe, options, evaluation.tolerance) for s in seeds)
        data = f"simulated, {evaluation.days} days, seeds {seeds[0]}..{seeds[-1]}"
    split = f"held-out days, blocks of one orbit, tolerance {evaluation.tolerance} samples"
    # The baselines have something to learn, too; they may see some of the training days.
    train = tuple(
        _simulated(s, recipe, options, evaluation.tolerance).windows
        for s in range(evaluation.learn)
    )
    yield Fold("held-out", scenes, train, data=data, split=split, keys=("orbit",))


def _simulated(seed: int, recipe: Recipe, options: Options, tolerance: int) -> Scene:
    # A date of its own, before any SEM-2 data, keeps the orbits of each day apart by name as well.
    start = np.datetime_as_string(np.datetime64("1960-01-01") + seed, "D")
    return _scene(simulate(seed, 24.0, start), recipe, options, tolerance)


def _scene(record: Record, recipe: Recipe, options: Options, tolerance: int) -> Scene:
    windows = prepare(record, recipe, options)
    windows.extra["tolerance"] = tolerance
    return Scene(record, windows)


def _from_files(
    paths: Sequence[Path], recipe: Recipe, options: Options, tolerance: int
) -> Iterator[Scene]:
    opened = open_files(paths, options)
    if opened.refused:
        raise Refused(opened.refused[0].why)
    for job in opened.jobs:
        record = job.source.fetch(INPUTS, job.start, job.stop)
        if "truth" not in record:
            raise Refused(
                f"{job.files[0]}: holds no truth (truth_class) to judge against; "
                "files from `terrella simulate precipitation` do"
            )
        yield _scene(record, recipe, options, tolerance)
