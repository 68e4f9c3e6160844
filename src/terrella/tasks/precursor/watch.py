"""A test on continuous data: learn from the first part of a record, then watch the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella import files, registry
from terrella.learn.evaluate import NETWORK, refitter
from terrella.learn.split import blind, guard
from terrella.plot import COLOURS, figure, save, styled
from terrella.predict import predict
from terrella.tasks.precursor.alarms import Molchan, expected, false_alarms, molchan
from terrella.tasks.precursor.decode import softmax
from terrella.tasks.precursor.labels import NORMAL_MAGNITUDE, pairs
from terrella.tasks.precursor.rows import catalogue, choose, gather, halves, matched, subset
from terrella.tasks.precursor.stations import rule
from terrella.tasks.precursor.task import Options, Recipe
from terrella.types import Fold, NoData, Outputs, Refused, Scene, Windows

SEED = 42


@dataclass(frozen=True)
class Watched:
    """What a network did on continuous data after all that it learnt from.

    Attributes:
        trajectories: model name -> Molchan trajectory, against each station's Poisson rate.
        alarms: false alarms per station-year of the network, at its own threshold.
    """

    trajectories: dict[str, Molchan]
    alarms: pd.DataFrame


def watch(
    paths: Sequence[Path], recipe: Recipe, options: Options, training: Any, share: float,
    embargo: float, out: Path,
) -> list[str]:  # fmt: skip
    """Make the test; write ``molchan.png`` and ``false_alarms.csv``.

    Args:
        paths: magnetometer files, earthquake catalogue, station list.
        recipe, options, training: as for training.
        share: part of the record's span that is learnt from.
        embargo: days left out between the parts.
        out: folder.

    Returns:
        Lines for the user.

    Raises:
        Refused: no continuous data, no catalogue, or too short a record.
    """
    every = gather(paths, recipe, options, every=True)
    if matched(every):
        raise Refused(
            "a stored set is not continuous: give magnetometer files, catalogue, stations"
        )
    fold = divided(every, choose(every, recipe, options), recipe, share, embargo)
    found = pairs(*catalogue(paths, every), rule(options))
    made = prospect(fold, found, options.lead, recipe, training)
    save(_draw(made), out / "molchan.png")
    with files.whole(out / "false_alarms.csv") as scratch:
        made.alarms.to_csv(scratch, index=False, lineterminator="\n")
    total = made.alarms.iloc[-1]
    lines = [_line(name, path) for name, path in made.trajectories.items()]
    return [
        *lines,
        f"{total['per_year']:.1f} false alarms per station-year "
        f"({int(total['false'])} of {int(total['alarms'])} in {total['years']:.2f} station-years)",
    ]


def _line(name: str, path: Molchan) -> str:
    verdict = "better than" if path.area > path.high else "not told from"
    return (
        f"{name}: Molchan area skill {path.area:.3f}, {verdict} a Poisson rate (0.5; 95 % of "
        f"chance {path.low:.3f} .. {path.high:.3f}, {path.targets} earthquakes)"
    )


def divided(
    every: Windows, chosen: Windows, recipe: Recipe, share: float, embargo: float
) -> Fold:  # fmt: skip
    """The two parts of a record, with no earthquake and no time within the embargo in both.

    Args:
        every: all windows, in order of time at each station.
        chosen: precursors and matched normals of them.
        recipe: of the network.
        share: part of the span that is learnt from.
        embargo: days.

    Raises:
        Refused: a part holds nothing to learn from or to watch.
    """
    first, last = every.time.min(), every.time.max()
    edge = first + (last - first) * share
    gap = np.timedelta64(round(embargo * 86_400), "s")
    watched = np.flatnonzero(every.time >= edge)
    # A lead longer than the embargo would show one earthquake to both parts.
    known = np.isin(chosen.groups["earthquake"], every.groups["earthquake"][watched])
    rows = np.flatnonzero((chosen.time < edge - gap) & ~known)
    if not len(rows) or not len(watched):
        raise Refused("too short a record to learn from and to watch; give more, or less --embargo")
    learned, held = (subset(chosen, part, recipe) for part in halves(chosen, rows, SEED))
    return Fold(
        "watched", (Scene({}, subset(every, watched, recipe)),), (learned,), (held,), refit=True,
        split=f"the first {share:.0%} of the record learnt from", keys=("earthquake",),
        embargo=gap,
    )  # fmt: skip


def prospect(
    fold: Fold, found: pd.DataFrame, lead: float, recipe: Recipe, training: object
) -> Watched:
    """Train on one part of a record and score every window of the other.

    Args:
        fold: from ``divided``; guarded like any other.
        found: earthquakes of every station, from ``labels.pairs``.
        lead: days a window speaks for.
        recipe, training: as for training.
    """
    guard(fold)
    task = registry.get("precursor")
    later = fold.test[0].windows
    seen = blind(later)
    model = refitter(task, recipe, training)(fold.train, fold.validation)
    outputs: dict[str, Outputs] = {NETWORK: predict(model.network, seen, rows=64)}
    for name, baseline in task.baselines.items():
        try:
            outputs[name] = baseline.fit(fold.train, recipe)(seen)
        except NoData:
            continue
    table = later.extra["table"]
    first, edge = fold.train[0].time.min(), later.time.min()
    span = tuple(t.astype("datetime64[ns]").astype(np.int64) / 86_400e9 for t in (first, edge))
    weight = expected(table, found[found["time"] < edge], lead, span)
    ahead = np.flatnonzero(table["kind"].to_numpy() == "precursor")
    event = table["event"].to_numpy(np.int64)[ahead]
    alarm = {k: 1.0 - softmax(out["magnitude"])[:, NORMAL_MAGNITUDE].astype(float)
             for k, out in outputs.items()}  # fmt: skip
    counted = false_alarms(
        table["station"].astype(str).to_numpy("U"), later.time,
        outputs[NETWORK]["magnitude"].argmax(1) != NORMAL_MAGNITUDE,
        table["kind"].to_numpy() == "precursor", recipe.window,
    )  # fmt: skip
    return Watched({k: molchan(p, ahead, event, weight) for k, p in alarm.items()}, counted)


@styled
def _draw(made: Watched) -> Any:
    drawn, axis = figure(1, size=(5.2, 4.8))
    for k, (name, path) in enumerate(made.trajectories.items()):
        axis.plot(path.tau, path.miss, color=COLOURS[k], lw=2 if k == 0 else 1,
                  label=f"{name}, area {path.area:.2f}")  # fmt: skip
    axis.plot([0, 1], [1, 0], color="0.5", ls="--", label="Poisson rate of each station")
    own = made.trajectories[NETWORK]
    axis.set(
        xlabel="share of expected earthquakes under alarm", ylabel="share of earthquakes missed",
        xlim=(0, 1), ylim=(0, 1), title=f"Molchan diagram, {own.targets} earthquakes",
    )  # fmt: skip
    axis.legend(fontsize=7)
    return drawn
