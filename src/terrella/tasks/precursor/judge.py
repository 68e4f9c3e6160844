"""How this task is trained and judged: labelled windows, folds that do not leak, shortcuts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella.tasks.precursor import skill
from terrella.tasks.precursor.labels import NORMAL_AZIMUTH, NORMAL_MAGNITUDE, Rule, match_normals
from terrella.tasks.precursor.prepare import chain_of, prepare, reach, windows_of
from terrella.tasks.precursor.simulate import World
from terrella.tasks.precursor.simulate import scene as simulate_scene
from terrella.tasks.precursor.split import codes, folds
from terrella.tasks.precursor.stations import open_files, rule
from terrella.tasks.precursor.task import AZIMUTH, INPUTS, MAGNITUDE, Evaluation, Options, Recipe
from terrella.types import Fold, NoData, Outputs, Refused, Scene, Windows

HELD = 0.2  # share of a fold's training earthquakes that choose its epoch
KEYS = {
    "loeo": ("earthquake",), "loso": ("station",), "blocks": ("block",),
    "all": ("earthquake", "station"), "random": (),
}  # fmt: skip


def gather(paths: Sequence[Path], recipe: Recipe, options: Options, every: bool = False) -> Windows:
    """Images and labels of all inputs as one set of rows.

    Args:
        paths: magnetometer files with a catalogue and station list, or labelled images.
        recipe, options: as for a run.
        every: keep windows that are neither precursor nor matched normal too.

    Raises:
        Refused: an input was refused, or nothing is labelled.
    """
    opened = open_files(paths, options)
    if opened.refused:
        raise Refused(opened.refused[0].why)
    images, tables = [], []
    before, after = reach(recipe, options)
    for job in opened.jobs:
        record = job.source.fetch(INPUTS, job.start - before, job.stop + after)
        made = prepare(record, recipe, options)
        length = np.timedelta64(0 if "image" in record else round(recipe.window * 1e9), "ns")
        start = made.time - length
        kept = np.flatnonzero((start >= job.start) & (start < job.stop) & made.valid)
        images.append(made.x["image"][kept].numpy())
        tables.append(made.extra["table"].iloc[kept])
    if not tables:
        raise NoData("no window in the inputs")
    table = pd.concat(tables, ignore_index=True)
    if (table["kind"] == "unknown").all():
        raise Refused(
            "these windows have no labels: give the earthquake catalogue and the station list "
            "(CSV) among the inputs"
        )
    return choose(np.concatenate(images), table, recipe, options, every)


def choose(
    image: np.ndarray, table: pd.DataFrame, recipe: Recipe, options: Options, every: bool
) -> Windows:
    """Precursors and matched normals of a table, where that choice has not been made yet."""
    if every or "pair" in table:
        return windows_of(image, table, recipe)
    chosen = match_normals(table, rule(options))
    return windows_of(image[chosen.index.to_numpy()], chosen, recipe)


def subset(windows: Windows, rows: np.ndarray, recipe: Recipe) -> Windows:
    """Some rows of a set, with class weights of their own."""
    return windows_of(windows.x["image"].numpy()[rows], windows.extra["table"].iloc[rows], recipe)


def halves(windows: Windows, recipe: Recipe, seed: int) -> tuple[Windows, Windows]:
    """Rows to learn from, and rows of other earthquakes that choose the epoch."""
    groups = codes(windows.groups["earthquake"])
    ahead = windows.extra["table"]["kind"].to_numpy() == "precursor"
    names = np.unique(groups[ahead])
    if len(names) < 2:
        raise Refused(
            f"{len(names)} earthquakes with precursor windows: two at least are needed, one to "
            "learn from and one to choose the epoch by"
        )
    every = np.unique(groups)
    random = np.random.default_rng(seed)
    some = random.permutation(names)[: max(round(HELD * len(names)), 1)]
    calm = np.setdiff1d(every, names)
    some_calm = random.permutation(calm)[: round(HELD * len(calm))]
    held = np.isin(groups, np.concatenate([some, some_calm]))
    return subset(windows, np.flatnonzero(~held), recipe), subset(
        windows, np.flatnonzero(held), recipe
    )


def simulated(world: World, recipe: Recipe, options: Options) -> Windows:
    """Labelled windows of a simulated world."""
    how = Rule(seed=world.seed, lead=4.0, quiet=4.0)
    made = simulate_scene(world, chain_of(recipe, options), how)
    return windows_of(made.image, made.table.assign(flags=np.uint8(0)), recipe)


def training(
    paths: Sequence[Path], config: Mapping[str, Any], recipe: Recipe, options: Options
) -> tuple[list[Windows], list[Windows]]:
    """Windows to learn from and to choose the epoch by: other earthquakes.

    Args:
        paths: as for :func:`gather`; none: a simulated world.
        config: ``seed``, ``strength``, ``stations``, ``days``, ``quakes`` of that world.
        recipe, options: as for a run.
    """
    seed = int(config.get("seed", 0))
    if paths:
        whole = gather(paths, recipe, options)
    else:
        if seed >= Evaluation.seed:
            raise Refused(f"[data] seed: seeds from {Evaluation.seed} on are kept for judging")
        known = {k: v for k, v in config.items() if k in World.__dataclass_fields__}
        whole = simulated(World(**known), recipe, options)
    # Only earthquakes are kept apart here: the other labels are shared, and the card says so.
    return tuple(
        [replace(part, groups={"earthquake": part.groups["earthquake"]})]
        for part in halves(whole, recipe, seed)
    )  # type: ignore[return-value]


def plan(
    paths: Sequence[Path], evaluation: Evaluation, recipe: Recipe, options: Options
) -> Iterator[Fold]:
    """Folds of the files given; or the given weights on worlds with and without a signal."""
    if paths:
        windows = gather(paths, recipe, options)
        data = f"{len(windows)} windows of {len(paths)} inputs"
        yield from divide(windows, evaluation, recipe, data)
        return
    data = f"simulated worlds, seed {evaluation.seed}, strength {evaluation.strength:g} and 0"
    for strength in (evaluation.strength, 0.0):
        world = World(seed=evaluation.seed, strength=strength)
        made = simulated(world, recipe, options)
        # Shortcuts are fitted on another world of the same stations' kind, never on the test rows.
        other = simulated(World(seed=evaluation.seed + 1, strength=strength), recipe, options)
        yield Fold(
            f"strength {strength:g}", (Scene({}, made),), (other,), data=data,
            split="worlds of other seeds; blocks of one earthquake",
        )  # fmt: skip


def divide(
    windows: Windows, evaluation: Evaluation, recipe: Recipe, data: str, seed: int = 42
) -> Iterator[Fold]:
    """Folds of one set of labelled windows."""
    table = windows.extra["table"].assign(cluster=codes(windows.groups["earthquake"]))
    words = {
        "loeo": "earthquakes left out", "loso": "stations left out",
        "blocks": f"time blocks left out, embargo {evaluation.embargo:g} d",
        "all": f"stations, earthquakes and time left out, embargo {evaluation.embargo:g} d",
        "random": "random rows (leaks)",
    }[evaluation.split]  # fmt: skip
    parts = folds(table, evaluation.split, evaluation.folds, evaluation.embargo, seed)
    for k, (train, test) in enumerate(parts):
        whole = subset(windows, train, recipe)
        try:
            learned, held = halves(whole, recipe, seed)
        except Refused:
            continue
        name = f"fold {k + 1}"
        if evaluation.split == "loso":
            name = str(windows.groups["station"][test[0]])
        yield Fold(
            name, (Scene({}, subset(windows, test, recipe)),), (learned,), (held,),
            refit=evaluation.refit, data=data, split=words, keys=KEYS[evaluation.split],
        )  # fmt: skip


def judge(outputs: Outputs, scene: Scene, recipe: Recipe, options: Options) -> pd.DataFrame:
    """One row a window: truth and answer of both heads, with its earthquake as the block."""
    windows = scene.windows
    assert windows.y is not None
    table = windows.extra["table"]
    rows = np.flatnonzero(windows.valid & (windows.y["magnitude"].numpy() >= 0))
    out = pd.DataFrame({"block": windows.groups["earthquake"][rows]})
    for name in ("magnitude", "azimuth"):
        out[f"{name}_truth"] = windows.y[name].numpy()[rows]
        out[f"{name}_given"] = outputs[name][rows].argmax(1)
    out["sector_given"] = skill.sector_only(outputs["azimuth"][rows].astype(np.float64))
    bearing = table["bearing"].to_numpy(np.float64) if "bearing" in table else np.nan
    out["bearing"] = np.broadcast_to(bearing, len(table))[rows]
    # A matched normal carries its precursor's earthquake but has no bearing of its own.
    out.loc[out["azimuth_truth"] == NORMAL_AZIMUTH, "bearing"] = np.nan
    return out


def _confusion(name: str, classes: int) -> Callable[[pd.DataFrame, np.ndarray], np.ndarray]:
    def made(table: pd.DataFrame, weight: np.ndarray) -> np.ndarray:
        truth, given = (table[f"{name}_{k}"].to_numpy(np.int64) for k in ("truth", "given"))
        return skill.confusion(truth, given, classes, weight)

    return made


_M, _A = _confusion("magnitude", len(MAGNITUDE)), _confusion("azimuth", len(AZIMUTH))


def magnitude_accuracy(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Share of windows with the right magnitude class."""
    return skill.accuracy(_M(table, weight))


def magnitude_f1(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Mean F1 of the magnitude classes."""
    return skill.f1(_M(table, weight))


def magnitude_mcc(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Matthews correlation of the magnitude classes."""
    return skill.mcc(_M(table, weight))


def azimuth_accuracy(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Share of windows with the right azimuth class, Normal among them."""
    return skill.accuracy(_A(table, weight))


def azimuth_f1(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Mean F1 of the azimuth classes."""
    return skill.f1(_A(table, weight))


def azimuth_mcc(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Matthews correlation of the azimuth classes."""
    return skill.mcc(_A(table, weight))


def precursor_mcc(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Matthews correlation of precursor against normal."""
    truth, given = (
        np.asarray(table[f"magnitude_{k}"] == NORMAL_MAGNITUDE, np.int64)
        for k in ("truth", "given")
    )
    return skill.mcc(skill.confusion(truth, given, 2, weight))


def sector_accuracy(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Right sectors among precursor windows alone, Normal not allowed as an answer."""
    ahead = table["bearing"].notna().to_numpy()
    hit = (table["sector_given"] == table["azimuth_truth"]).to_numpy()
    total = weight[ahead].sum()
    return float(weight[ahead] @ hit[ahead] / total) if total else float("nan")


def circular_error(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Mean angle (degrees) from bearing to the sector given, precursors alone; 90 by chance."""
    ahead = table["bearing"].notna().to_numpy()
    error = skill.circular_error(
        table["bearing"].to_numpy(float)[ahead], table["sector_given"].to_numpy(np.int64)[ahead]
    )
    total = weight[ahead].sum()
    return float(weight[ahead] @ error / total) if total else float("nan")


def _shortcut(name: str) -> Callable[..., Callable[[Windows], Outputs]]:
    columns = skill.SHORTCUTS[name]

    def baseline(train: Sequence[Windows], recipe: Recipe) -> Callable[[Windows], Outputs]:
        known = pd.concat([w.extra["table"] for w in train], ignore_index=True)

        def predictor(windows: Windows) -> Outputs:
            table = windows.extra["table"]
            return {
                head: np.log(skill.lookup(known, table, columns, head, n))
                for head, n in (("magnitude", len(MAGNITUDE)), ("azimuth", len(AZIMUTH)))
            }

        return predictor

    return baseline


majority = _shortcut("majority")
station_only = _shortcut("station only")
kp_only = _shortcut("Kp only")
hour_only = _shortcut("hour only")
station_month = _shortcut("station and month")
