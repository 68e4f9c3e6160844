"""Out-of-fold study: network, shortcuts and nulls on the same rows, and the certificate from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from terrella.learn.evaluate import COLUMNS, refitter
from terrella.learn.split import guard
from terrella.predict import predict
from terrella.task import Task
from terrella.tasks.precursor.alarms import Molchan, expected, false_alarms, molchan
from terrella.tasks.precursor.catalogue import station_place
from terrella.tasks.precursor.decode import softmax
from terrella.tasks.precursor.judge import divide, halves, subset
from terrella.tasks.precursor.labels import NORMAL_MAGNITUDE
from terrella.tasks.precursor.skill import (
    Certificate,
    bootstrap,
    certify,
    scores,
)
from terrella.tasks.precursor.split import codes
from terrella.tasks.precursor.task import Evaluation, Recipe
from terrella.types import Fold, Outputs, Refused, Scene, Windows

Array = NDArray[np.float64]
Note = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """Out-of-fold probabilities of one study, all models on the same rows.

    Attributes:
        table: (m,) tested rows: station, end, cluster, labels, fold.
        given: model name -> ``magnitude`` (m, 4), ``azimuth`` (m, 9) probabilities. The network is
            ``terrella``.
        data, split: in words.
    """

    table: pd.DataFrame
    given: dict[str, dict[str, Array]]
    data: str
    split: str

    @property
    def baselines(self) -> dict[str, dict[str, Array]]:
        """All but the network."""
        return {k: v for k, v in self.given.items() if k != "terrella"}

    def truth(self) -> dict[str, NDArray[np.int64]]:
        """Class numbers of both heads."""
        return {h: self.table[h].to_numpy(np.int64) for h in ("magnitude", "azimuth")}

    def bearing(self) -> Array:
        """(m,) degrees; NaN for normals."""
        normal = self.table["magnitude"].to_numpy() == NORMAL_MAGNITUDE
        return np.where(normal, np.nan, self.table["bearing"].to_numpy(np.float64))


def crossval(
    task: Task, folds: Iterable[Fold], recipe: Recipe, training: object, note: Note = lambda _: None
) -> Outcome:
    """Train and test fold by fold, the network by the house's own trainer.

    Raises:
        Refused: no fold could be used, or one leaks.
    """
    refit = refitter(task, recipe, training)
    tables: list[pd.DataFrame] = []
    parts: dict[str, list[dict[str, Array]]] = {}
    data = split = ""
    for fold in folds:
        guard(fold)
        data, split = fold.data, fold.split
        note(f"{fold.split}, {fold.name}: {sum(map(len, fold.train))} rows to learn from")
        model = refit(fold)
        for scene in fold.test:
            tables.append(_tested(scene, fold.name))
            _add(parts, "terrella", predict(model.network, scene.windows, rows=64))
            for name, baseline in task.baselines.items():
                _add(parts, name, baseline(fold.train, recipe)(scene.windows))
    if not tables:
        raise Refused("no fold has two earthquakes to learn from and rows to test on")
    given = {
        name: {h: np.concatenate([p[h] for p in each]) for h in ("magnitude", "azimuth")}
        for name, each in parts.items()
    }
    return Outcome(pd.concat(tables, ignore_index=True), given, data, split)


def _tested(scene: Scene, fold: str) -> pd.DataFrame:
    table: pd.DataFrame = scene.windows.extra["table"]
    return table.assign(fold=fold, earthquake=scene.windows.groups["earthquake"])


def _add(parts: dict[str, list[dict[str, Array]]], name: str, outputs: Outputs) -> None:
    made = {h: softmax(outputs[h]).astype(np.float64) for h in ("magnitude", "azimuth")}
    parts.setdefault(name, []).append(made)


def permuted(
    outcome: Outcome, score: Callable[[Mapping[str, NDArray[np.int64]]], float],
    rounds: int = 200, seed: int = 42,
) -> list[float]:  # fmt: skip
    """A score after the labels were rolled within each station, against the same outputs.

    Rolling keeps neighbours together: the windows of an earthquake stay alike, as they are not
    independent of each other.
    """
    random = np.random.default_rng(seed)
    table = outcome.table
    order = np.lexsort((table["end"], codes(table["earthquake"]), codes(table["station"])))
    station = table["station"].astype(str).to_numpy()[order]
    truth = outcome.truth()
    out = []
    for _ in range(rounds):
        source = np.empty(len(order), np.int64)
        for code in np.unique(station):
            mine = order[station == code]
            source[mine] = np.roll(mine, int(random.integers(0, len(mine))))
        out.append(score({h: t[source] for h, t in truth.items()}))
    return out


def certificate(
    outcome: Outcome, metric: str = "precursor MCC", permutations: int = 200, seed: int = 42
) -> Certificate:
    """Gain over the best shortcut with its interval, and the p of label shuffles."""
    bearing, ones = outcome.bearing(), np.ones(len(outcome.table))

    def score(labels: Mapping[str, NDArray[np.int64]]) -> float:
        return scores(labels, outcome.given["terrella"], bearing, ones)[metric]

    nulls = permuted(outcome, score, permutations, seed) if permutations else []
    return certify(
        outcome.truth(), outcome.given["terrella"], outcome.baselines,
        codes(outcome.table["earthquake"]), f"{outcome.data} ({outcome.split})", metric, nulls,
        bearing, seed=seed,
    )  # fmt: skip


def score_table(outcome: Outcome, suffix: str = "", seed: int = 42) -> pd.DataFrame:
    """Every score of every model with its interval, in the columns of ``scores.csv``."""
    truth, bearing = outcome.truth(), outcome.bearing()
    groups = codes(outcome.table["earthquake"])
    rows = []
    for model, given in outcome.given.items():
        names = scores(truth, given, bearing, np.ones(len(groups)))
        for name in names:

            def one(weight: Array, name: str = name, given: dict[str, Array] = given) -> float:
                return scores(truth, given, bearing, weight)[name]

            found = bootstrap(groups, one, 200, seed)
            rows.append(
                ("precursor", outcome.data, outcome.split, "all", "", model + suffix, name,
                 found.value, found.low, found.high, len(groups))
            )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def shuffled(windows: Windows, recipe: Recipe, seed: int) -> Windows:
    """Labels drawn anew among the rows of each station: the null that is trained from scratch."""
    random = np.random.default_rng(seed)
    table = windows.extra["table"]
    out = table.copy()
    for _, group in table.groupby("station"):
        source = random.permutation(group.index.to_numpy())
        for name in ("magnitude", "azimuth", "bearing", "kind"):
            out.loc[group.index, name] = table.loc[source, name].to_numpy()
    return _again(windows, out, recipe)


def _again(windows: Windows, table: pd.DataFrame, recipe: Recipe) -> Windows:
    from terrella.tasks.precursor.prepare import windows_of

    return windows_of(windows.x["image"].numpy(), table, recipe)


def null_scores(
    task: Task, windows: Windows, evaluation: Evaluation, recipe: Recipe, training: object,
    rounds: int, note: Note,
) -> pd.DataFrame:  # fmt: skip
    """Scores of the network trained and tested on shuffled labels, ``rounds`` times."""
    parts = []
    for k in range(rounds):
        note(f"null {k + 1} of {rounds}: labels shuffled within stations")
        null = shuffled(windows, recipe, 100 + k)
        outcome = crossval(
            task, divide(null, evaluation, recipe, "shuffled labels"), recipe, training
        )
        only = Outcome(
            outcome.table, {"terrella": outcome.given["terrella"]}, outcome.data, outcome.split
        )
        parts.append(score_table(only, f" (label shuffle {k + 1})"))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


@dataclass(frozen=True)
class Prospect:
    """A test on continuous data after all training data.

    Attributes:
        trajectories: model name -> Molchan trajectory, against each station's Poisson rate.
        alarms: false alarms per station-year of the network, at its own threshold.
    """

    trajectories: dict[str, Molchan]
    alarms: pd.DataFrame


def prospect(
    task: Task, chosen: Windows, every: Windows, pairs: pd.DataFrame, lead: float,
    recipe: Recipe, training: object, share: float = 0.6, embargo: float = 7.0,
) -> Prospect:  # fmt: skip
    """Learn from the first part of the record, then watch the rest without a break.

    Args:
        task: this task.
        chosen: labelled rows (precursors and matched normals).
        every: all windows, in order of time.
        pairs: earthquakes of every station, from ``labels.pairs``.
        lead: days a window speaks for.
        recipe, training: as for training.
        share: part of the span that is learnt from.
        embargo: days left out between the parts; earthquakes that reach into the second part are
            left out of the first too.

    Raises:
        Refused: a part holds nothing to learn from or to watch.
    """
    first, last = every.time.min(), every.time.max()
    edge = first + (last - first) * share
    gap = np.timedelta64(round(embargo * 86_400), "s")
    watched = np.flatnonzero(every.time >= edge)
    # A lead longer than the embargo would show one earthquake to both parts.
    later_quakes = every.groups["earthquake"][watched]
    known = np.isin(chosen.groups["earthquake"], later_quakes)
    rows = np.flatnonzero((chosen.time < edge - gap) & ~known)
    if not len(rows) or not len(watched):
        raise Refused("continuous test: too short a record to learn from and to watch")
    early = subset(chosen, rows, recipe)
    learned, held = halves(early, recipe, 42)
    fold = Fold("prospect", (), (learned,), (held,), refit=True)
    model = refitter(task, recipe, training)(fold)
    later = subset(every, watched, recipe)
    outputs = {"terrella": predict(model.network, later, rows=64)}
    outputs |= {k: b((learned,), recipe)(later) for k, b in task.baselines.items()}
    table = later.extra["table"]
    past = pairs[pairs["time"] < edge]
    span = tuple(
        float(t.astype("datetime64[ns]").astype(np.int64)) / 86_400e9 for t in (first, edge)
    )
    weight = expected(table, past, lead, (span[0], span[1]))
    ahead = np.flatnonzero(table["kind"].to_numpy() == "precursor")
    event = table["event"].to_numpy(np.int64)[ahead]
    trajectories = {
        name: molchan(
            1.0 - softmax(out["magnitude"])[:, NORMAL_MAGNITUDE].astype(np.float64), ahead, event,
            weight,
        )
        for name, out in outputs.items()
    }  # fmt: skip
    alarm = outputs["terrella"]["magnitude"].argmax(1) != NORMAL_MAGNITUDE
    counted = false_alarms(
        table["station"].astype(str).to_numpy("U"), later.time, alarm,
        (table["kind"] == "precursor").to_numpy(), recipe.window,
    )  # fmt: skip
    return Prospect(trajectories, counted)


def places_of(stations: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Rows of the station list for some stations; NoData where one is not in it."""
    rows = [(n, *station_place(stations, n)) for n in names]
    return pd.DataFrame(rows, columns=["station", "latitude", "longitude"])
