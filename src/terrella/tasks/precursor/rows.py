"""Labelled rows: from files, from a simulated world, or from a catalogue moved in time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella.tasks.precursor.labels import (
    Rule,
    conditions,
    label_windows,
    match_normals,
    pairs,
    shift_catalogue,
)
from terrella.tasks.precursor.prepare import chain_of, prepare, reach, windows_of
from terrella.tasks.precursor.simulate import MADE, World, scene
from terrella.tasks.precursor.stations import Side, open_files, rule, side_tables
from terrella.tasks.precursor.task import INPUTS, Evaluation, Options, Recipe
from terrella.types import NoData, Refused, Windows

HELD = 0.2  # share of the earthquakes learnt from that choose the epoch


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
    whole = windows_of(np.concatenate(images), table, recipe)
    return whole if every else choose(whole, recipe, options)


def choose(windows: Windows, recipe: Recipe, options: Options) -> Windows:
    """Precursors and matched normals of a set, where that choice has not been made yet."""
    if matched(windows):
        return windows
    return _again(windows, match_normals(windows.extra["table"], rule(options)), recipe)


def matched(windows: Windows) -> bool:
    """Whether normals were matched already: a stored set, not magnetometer files."""
    return "pair" in windows.extra["table"]


def subset(windows: Windows, rows: np.ndarray, recipe: Recipe) -> Windows:
    """Some rows of a set, with class weights of their own."""
    return _again(windows, windows.extra["table"].iloc[rows], recipe)


def _again(windows: Windows, table: pd.DataFrame, recipe: Recipe) -> Windows:
    """The images that a table's index names, with the labels that it holds."""
    return windows_of(windows.x["image"].numpy()[table.index.to_numpy()], table, recipe)


def halves(windows: Windows, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, and rows of other earthquakes that choose the epoch.

    Args:
        windows: a labelled set.
        rows: those of it that may be learnt from.
        seed: of the draw of earthquakes.

    Raises:
        Refused: fewer than two earthquakes have precursor windows.
    """
    quake = windows.groups["earthquake"][rows]
    ahead = windows.extra["table"]["kind"].to_numpy()[rows] == "precursor"
    names = np.unique(quake[ahead])
    if len(names) < 2:
        raise Refused(
            f"{len(names)} earthquakes with precursor windows: two at least are needed, one to "
            "learn from and one to choose the epoch by"
        )
    random = np.random.default_rng(seed)
    some = random.permutation(names)[: max(round(HELD * len(names)), 1)]
    calm = np.setdiff1d(quake, names)
    some_calm = random.permutation(calm)[: round(HELD * len(calm))]
    held = np.isin(quake, np.concatenate([some, some_calm]))
    return rows[~held], rows[held]


def simulated(world: World, recipe: Recipe, options: Options) -> Windows:
    """Labelled windows of a simulated world, whose earthquakes are of no other world."""
    how = Rule(seed=world.seed, lead=4.0, quiet=4.0)
    made = scene(world, chain_of(recipe, options), how)
    table = made.table.assign(flags=np.uint8(0), world=f"world {world.seed}")
    return windows_of(made.image, table, recipe)


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
    parts = [subset(whole, r, recipe) for r in halves(whole, np.arange(len(whole)), seed)]
    learned, held = ([replace(p, groups={"earthquake": p.groups["earthquake"]})] for p in parts)
    return learned, held


def catalogue(paths: Sequence[Path], windows: Windows) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The earthquakes among the inputs, and the stations of the windows.

    Raises:
        NoData: there is no catalogue, or no station list.
    """
    side = _side(paths)
    if side.quakes is None or side.stations is None:
        raise NoData("no earthquake catalogue and station list (CSV) among the inputs")
    used = side.stations[side.stations["station"].isin(np.unique(windows.groups["station"]))]
    return side.quakes, used


def invented(paths: Sequence[Path]) -> bool:
    """Whether the catalogue among the inputs is of a simulated world."""
    quakes = _side(paths).quakes
    return quakes is not None and bool(quakes["id"].str.startswith(MADE).all())


def _side(paths: Sequence[Path]) -> Side:
    return side_tables([p for q in paths for p in (sorted(q.rglob("*")) if q.is_dir() else [q])])[0]


def shifted(
    paths: Sequence[Path], every: Windows, rounds: int, recipe: Recipe, options: Options
) -> Iterator[tuple[int, Windows]]:
    """Windows labelled by a catalogue moved in time: nulls with its own clustering.

    Args:
        paths: the inputs; the catalogue is among them.
        every: all windows, from :func:`gather`.
        rounds: shifts, evenly spread over the catalogue's span.
        recipe, options: as for a run.

    Yields:
        Number of the shift, from 1, and its precursors and matched normals. A shift that leaves
        none is left out with a warning.

    Raises:
        NoData: there is no catalogue, or normals are matched already.
    """
    if matched(every):
        raise NoData(
            "--shifts labels windows anew: give magnetometer files, catalogue and station list, "
            "not a stored set"
        )
    quakes, stations = catalogue(paths, every)
    table, how = every.extra["table"], rule(options)
    kp = pd.Series(table["kp"].to_numpy(), pd.DatetimeIndex(table["end"]).floor("3h"))
    kp = kp[~kp.index.duplicated()]
    span = (quakes["time"].max() - quakes["time"].min()) / pd.Timedelta(days=1)
    for k in range(1, rounds + 1):
        days = float(span) * k / (rounds + 1)
        found = pairs(shift_catalogue(quakes, days), stations, how)
        made = []
        for code, group in table.groupby("station", sort=False):
            end = group["end"].to_numpy("datetime64[ns]")
            labels = label_windows(str(code), end, found, how).set_index(group.index)
            made.append(labels.assign(flags=group["flags"]))
        try:
            chosen = match_normals(conditions(pd.concat(made), kp, how), how)
        except NoData as reason:
            warnings.warn(f"catalogue shift {k} is left out: {reason}", UserWarning, stacklevel=2)
            continue
        yield k, _again(every, chosen, recipe)
