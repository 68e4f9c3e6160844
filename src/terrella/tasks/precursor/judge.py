"""How this task is judged: folds that keep earthquakes, stations and time apart, and scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from terrella.learn.metrics import ratio, reliability
from terrella.learn.split import apart, deal
from terrella.tasks.precursor.decode import softmax
from terrella.tasks.precursor.labels import NORMAL_AZIMUTH, NORMAL_MAGNITUDE, SECTORS
from terrella.tasks.precursor.rows import (
    choose,
    gather,
    halves,
    invented,
    shifted,
    simulated,
    subset,
)
from terrella.tasks.precursor.simulate import World
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE, Evaluation, Options, Recipe
from terrella.types import Fold, NoData, Outputs, Refused, Scene, Windows

SEED = 42  # of the deal of groups to folds
STORM = 3.0  # Kp from which a window is called disturbed
SIDES = 3  # parts that stations are dealt to when everything is kept apart
KEYS = {
    "loeo": ("earthquake",), "loso": ("station",), "blocks": ("block",),
    "all": ("earthquake", "station", "block"), "random": (),
}  # fmt: skip
WORDS = {
    "loeo": "earthquakes left out", "loso": "stations left out", "blocks": "time blocks left out",
    "all": "stations, earthquakes and time left out", "random": "random windows left out",
}  # fmt: skip
LEAKS = "windows of one earthquake, station and day lie on both sides"
MIDDLE = np.array([np.nan if n == "Normal" else 45.0 * SECTORS.index(n) for n in AZIMUTH])


def plan(
    paths: Sequence[Path], evaluation: Evaluation, recipe: Recipe, options: Options
) -> Iterator[Fold]:
    """Folds of the files given; or the given weights on a simulated world.

    That world has the signal; one without it is judged aside.
    """
    if not paths:
        yield from _worlds(evaluation, recipe, options)
        return
    every = gather(paths, recipe, options, every=evaluation.shifts > 0)
    made = "simulated" if invented(paths) else ""
    yield from divide(choose(every, recipe, options), evaluation, recipe, made)
    if evaluation.shifts:
        for k, moved in shifted(paths, every, evaluation.shifts, recipe, options):
            yield from divide(moved, evaluation, recipe, made, f"catalogue shift {k}")


def _worlds(evaluation: Evaluation, recipe: Recipe, options: Options) -> Iterator[Fold]:
    data = f"simulated world, seed {evaluation.seed}, signal of strength {evaluation.strength:g}"
    words = "worlds of other seeds, blocks of one earthquake; a world without a signal aside"
    for strength in (evaluation.strength, 0.0):
        made, other = (
            simulated(
                World(seed=evaluation.seed + k, strength=strength, quakes=evaluation.quakes),
                recipe, options,
            )
            for k in (0, 1)  # baselines learn from another world, never from the rows tested
        )  # fmt: skip
        yield Fold(
            f"strength {strength:g}", (Scene({}, made),), (other,), data=data,
            split=words, keys=("earthquake",), exchange="station", aside=strength == 0,
        )  # fmt: skip


def divide(
    windows: Windows, evaluation: Evaluation, recipe: Recipe, data: str = "", null: str = ""
) -> Iterator[Fold]:
    """Folds of one set of labelled windows.

    Args:
        windows: precursors and matched normals.
        evaluation: how to divide.
        recipe: of the network.
        data: words before the count of windows ("simulated").
        null: what destroyed the truth, for a set that is a null.

    Yields:
        Folds; those whose training side has fewer than two earthquakes are left out, which the
        words of the split and one warning say.

    Raises:
        NoData: not a single fold is left.
    """
    parts, poor = [], 0
    for name, train, test in divisions(windows, evaluation):
        try:
            parts.append((name, halves(windows, train, SEED), test))
        except Refused:
            poor += 1
    kind, embargo = evaluation.split, np.timedelta64(round(evaluation.embargo * 86_400), "s")
    stations, quakes = (len(np.unique(windows.groups[k])) for k in ("station", "earthquake"))
    if not parts:
        raise NoData(
            f"split {kind!r}: no fold has two earthquakes to learn from and rows to test on "
            f"({len(windows)} windows, {stations} stations, {quakes} earthquakes); give more data, "
            "fewer folds or a shorter embargo"
        )
    words = WORDS[kind]
    if poor:
        some = f"{poor} of {poor + len(parts)} folds without two earthquakes to learn from"
        warnings.warn(f"left out: {some}", UserWarning, stacklevel=2)
        words += f", {some} not used"
    tested = sum(len(test) for *_, test in parts)
    count = f"{tested} of {len(windows)} windows of {stations} stations"
    for name, sides, test in parts:
        learned, held = (subset(windows, rows, recipe) for rows in sides)
        yield Fold(
            name, (Scene({}, subset(windows, test, recipe)),), (learned,), (held,),
            refit=evaluation.refit, data=f"{data}, {count}".removeprefix(", "), split=words,
            keys=KEYS[kind], embargo=embargo if kind in ("blocks", "all") else None,
            exchange="station", leaks=LEAKS if kind == "random" else "", null=null,
        )  # fmt: skip


def divisions(
    windows: Windows, evaluation: Evaluation
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, training rows and test rows of each fold.

    ``loeo`` deals declustered earthquakes (a precursor and its matched normals stay together);
    ``loso`` leaves one station out; ``blocks`` deals stretches of time and leaves out of training
    what lies within the embargo of a test row; ``all`` is the three together: tested are a third of
    the stations in one stretch, and training keeps only rows of other stations and stretches that
    share no earthquake with them and lie outside the embargo.
    """
    kind, count = evaluation.split, evaluation.folds
    station, quake, block = (windows.groups[k] for k in ("station", "earthquake", "block"))
    stations, number = np.unique(station, return_inverse=True)
    stretches, stretch = np.unique(block, return_inverse=True)
    if kind == "random":
        where = np.random.default_rng(SEED).permutation(len(windows)) % count
    elif kind == "loso":
        where = number
    elif kind == "loeo":
        where = deal(quake, count, SEED)
    else:  # whole blocks, one after the other: the embargo then costs least
        where = stretch * min(count, len(stretches)) // len(stretches)
    part = np.zeros_like(where)
    if kind == "all":
        part = deal(station, min(SIDES, len(stations)), SEED)
    for k in np.unique(where):
        for s in np.unique(part):
            test = (where == k) & (part == s)
            train = where != k
            if kind == "all":
                train &= (part != s) & ~np.isin(quake, quake[test])
            if kind in ("blocks", "all"):
                embargo = np.timedelta64(round(evaluation.embargo * 86_400), "s")
                train &= apart(windows.time, windows.time[test], embargo)
            name = str(stations[k]) if kind == "loso" else f"fold {k + 1}"
            name += f", stations {s + 1}" if kind == "all" else ""
            if test.any():
                yield name, np.flatnonzero(train), np.flatnonzero(test)


def judge(outputs: Outputs, scene: Scene, recipe: Recipe, options: Options) -> pd.DataFrame:
    """One row a window: truth and answer of both heads, with its earthquake as the block.

    Returns:
        ``magnitude`` and ``azimuth``: cell of the confusion table, truth times classes plus answer,
        -1 where the truth is unknown; ``alarm``: the same of Normal or not. ``ahead`` is 1 for
        precursors of known bearing, and of these alone ``sector_hit`` and ``sector_error``
        (degrees) with Normal not allowed.
    """
    windows = scene.windows
    assert windows.y is not None
    table = windows.extra["table"]
    rows = np.flatnonzero(windows.valid & (windows.y["magnitude"].numpy() >= 0))
    truth = {h: windows.y[h].numpy()[rows] for h in ("magnitude", "azimuth")}
    p = {h: softmax(outputs[h][rows]) for h in truth}
    given = {h: p[h].argmax(1) for h in truth}
    normal = truth["magnitude"] == NORMAL_MAGNITUDE
    sectors = p["azimuth"].copy()
    sectors[:, NORMAL_AZIMUTH] = -1.0
    sector = sectors.argmax(1)
    # A matched normal carries its precursor's earthquake but has no bearing of its own.
    blank = np.full(len(table), np.nan)
    bearing = (table["bearing"].to_numpy(np.float64) if "bearing" in table else blank)[rows]
    known = truth["azimuth"] >= 0
    ahead = np.isfinite(bearing) & known & (truth["azimuth"] != NORMAL_AZIMUTH)
    error = np.abs((MIDDLE[sector] - bearing + 180.0) % 360.0 - 180.0)
    kp = table["kp"].to_numpy(np.float64)[rows]
    return pd.DataFrame({
        "block": windows.groups["earthquake"][rows],
        "activity": np.select([kp < STORM, kp >= STORM], ["Kp < 3", "Kp >= 3"], ""),
        "magnitude": truth["magnitude"] * len(MAGNITUDE) + given["magnitude"],
        "azimuth": np.where(known, truth["azimuth"] * len(AZIMUTH) + given["azimuth"], -1),
        "alarm": 2 * normal + (given["magnitude"] == NORMAL_MAGNITUDE),
        "ahead": ahead.astype(float),
        "sector_hit": (ahead & (sector == truth["azimuth"])).astype(float),
        "sector_error": np.where(ahead, error, 0.0),
        **reliability(1.0 - p["magnitude"][:, NORMAL_MAGNITUDE], ~normal),
    })  # fmt: skip


def confusion(table: pd.DataFrame, name: str, classes: int, weight: np.ndarray) -> np.ndarray:
    """(classes, classes) weighted counts, rows the truth, columns the answer."""
    cell = table[name].to_numpy()
    known = cell >= 0
    flat = np.bincount(cell[known], weight[known], classes**2)
    return flat.reshape(classes, classes)


def accuracy(table: np.ndarray) -> float:
    """Share on the diagonal of a confusion table; NaN where empty."""
    return float(np.trace(table) / table.sum()) if table.sum() else float("nan")


def f1(table: np.ndarray) -> float:
    """Mean F1 over the classes that occur in the truth."""
    there = table.sum(1) > 0
    hit, seen = np.diag(table)[there], (table.sum(0) + table.sum(1))[there]
    return float((2 * hit / seen).mean()) if there.any() else float("nan")


def mcc(table: np.ndarray) -> float:
    """Matthews correlation of several classes (Gorodkin 2004); 0 where it is not defined."""
    total = table.sum()
    given, truth = table.sum(0), table.sum(1)
    above = np.trace(table) * total - given @ truth
    below = np.sqrt((total**2 - given @ given) * (total**2 - truth @ truth))
    return float(above / below) if below > 0 else 0.0


def _of(
    score: Callable[[np.ndarray], float], name: str, classes: int
) -> Callable[[pd.DataFrame, np.ndarray], float]:
    return lambda table, weight: score(confusion(table, name, classes, weight))


precursor_mcc = _of(mcc, "alarm", 2)
magnitude_accuracy, magnitude_f1, magnitude_mcc = (
    _of(score, "magnitude", len(MAGNITUDE)) for score in (accuracy, f1, mcc)
)
azimuth_accuracy, azimuth_f1, azimuth_mcc = (
    _of(score, "azimuth", len(AZIMUTH)) for score in (accuracy, f1, mcc)
)
sector_accuracy = ratio("sector_hit", "ahead")
circular_error = ratio("sector_error", "ahead")
