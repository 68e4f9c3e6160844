"""Judging a network beside its baselines, on the same rows in the same run; one loop for all tasks.

Models get training rows, and test rows without their truth. Nothing that is fitted ever sees a test
scene, so nothing can be chosen on one.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella.learn.split import blind, guard, rolled, shuffled
from terrella.predict import predict
from terrella.task import Judging, Model, Task
from terrella.threads import one_thread
from terrella.types import Fold, NoData, Outputs, Refused, Scene, Windows

NETWORK, BEST, ROLL = "terrella", "best attainable", "roll "
Predictor = Callable[[Windows], Outputs]
Refit = Callable[[Sequence[Windows], Sequence[Windows]], Model]
Note = Callable[[str], None]
Tables = dict[str, list[pd.DataFrame]]  # rows of each fold by the name of a model or a null
OutputsOf = Callable[[Scene], Outputs]


@dataclass(frozen=True)
class Part:
    """What one fold was made of.

    Attributes:
        name: of the fold.
        train, validation, test: rows, and a hash of what they hold.
        keys, embargo: what was kept apart.
        refit: whether the network was trained on it.
    """

    name: str
    train: tuple[int, str]
    validation: tuple[int, str]
    test: tuple[int, str]
    keys: tuple[str, ...]
    embargo: str
    refit: bool


@dataclass(frozen=True)
class Evaluation:
    """Everything that was judged, before any score is taken of it.

    Attributes:
        task: what was judged.
        data, split: in words.
        leaks: why the split leaks; empty for one that does not.
        parts: the folds.
        tables: model -> rows of the task's ``judge``, the same rows for every model.
        nulls: null -> such rows of the network where nothing true was left.
        absent: baseline -> why it could not be had.
    """

    task: Task
    data: str
    split: str
    leaks: str
    parts: tuple[Part, ...]
    tables: dict[str, pd.DataFrame]
    nulls: dict[str, pd.DataFrame] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def network(self) -> pd.DataFrame:
        """The network's own rows."""
        return self.tables[NETWORK]


@one_thread()
def evaluate(
    task: Task,
    folds: Iterable[Fold],
    recipe: Any,
    options: Any,
    *,
    model: Model | None = None,
    refit: Refit | None = None,
    judging: Judging | None = None,
    note: Note = lambda _: None,
) -> Evaluation:
    """Judge a network and every baseline of its task.

    Args:
        task: what is judged.
        folds: train/test divisions from ``task.plan``; each is guarded against leaks first.
        recipe, options: as for a run.
        model: the weights to judge, for folds that do not refit.
        refit: trains a model on a fold's training part, for folds that do.
        judging: how many draws and nulls.
        note: told what is being done.

    Raises:
        Refused: a fold leaks or does not say what it keeps apart, nulls are asked for where nothing
            is trained, or there is nothing to judge.
    """
    how = judging or Judging()
    tables: Tables = {}
    nulls: Tables = {}
    absent: dict[str, str] = {}
    parts: list[Part] = []
    words: dict[str, str] = {"data": "", "split": "", "leaks": ""}
    learnt: tuple[Windows, ...] | None = None
    fitted: dict[str, Predictor] = {}  # folds that learn from the very same rows share baselines

    def judged(fold: Fold, scene: Scene, outputs: Outputs) -> pd.DataFrame:
        rows: pd.DataFrame = task.judge(outputs, scene, recipe, options)
        rows = rows.assign(aside=fold.aside)
        return rows if "group" in rows else rows.assign(group=fold.name)

    def contest(fold: Fold) -> Iterator[tuple[str, Tables, OutputsOf]]:
        if fold.null:
            yield fold.null, nulls, _network(task, fold, model, refit, note)
            return
        for name, outputs_of in _models(task, fold, recipe, model, refit, note, absent, fitted):
            yield name, tables, outputs_of
        for k in range(0 if fold.aside else how.nulls):
            lost = shuffled(fold, how.bootstrap + k)
            yield f"label shuffle {k + 1}", nulls, _network(task, lost, None, refit, note)

    for number, fold in enumerate(folds):
        guard(fold)
        if (how.nulls or fold.null) and not (fold.refit and refit):
            raise Refused(
                f"{task.name}: this plan judges given weights; a null needs one that trains"
            )
        if not fold.null:
            parts.append(_part(fold))
            if not fold.aside or not words["data"]:
                words = {k: getattr(fold, k) or v for k, v in words.items()}
            if fold.train is not learnt:
                learnt, fitted = fold.train, {}
        for name, into, outputs_of in contest(fold):
            for k, scene in enumerate(fold.test):
                outputs = outputs_of(scene)
                into.setdefault(name, []).append(judged(fold, scene, outputs))
                for roll in range(how.rolls if name == NETWORK and not fold.aside else 0):
                    rng = np.random.default_rng((how.bootstrap, roll, number, k))
                    rows = judged(fold, scene, rolled(scene, outputs, rng))
                    nulls.setdefault(f"{ROLL}{roll + 1}", []).append(rows)
    if not tables:
        raise Refused(f"{task.name}: the evaluation found nothing to score")
    return Evaluation(
        task, **words, parts=tuple(parts), tables=_joined(tables, parts),
        nulls=_joined(nulls, parts), absent=absent,
    )  # fmt: skip


def _joined(tables: Tables, parts: Sequence[Part]) -> dict[str, Any]:
    made = {name: pd.concat(rows, ignore_index=True) for name, rows in tables.items()}
    for name, table in made.items():
        # A lone fold, and nothing else by that name, says nothing new.
        if len(parts) < 2 and table["group"].astype(str).eq(parts[0].name if parts else "").all():
            made[name] = table.drop(columns="group")
    return made


def _part(fold: Fold) -> Part:
    embargo = "" if fold.embargo is None else f"{fold.embargo / np.timedelta64(1, 'h'):g} h"
    sides = (fold.train, fold.validation, [s.windows for s in fold.test])
    learnt, held, tested = ((sum(int(w.valid.sum()) for w in side), digest(side)) for side in sides)
    return Part(fold.name, learnt, held, tested, fold.keys, embargo, fold.refit)


def digest(parts: Sequence[Windows]) -> str:
    """sha256 of what rows hold: time, inputs, targets. Equal rows have equal hashes."""
    made = hashlib.sha256()
    for windows in parts:
        made.update(windows.time.tobytes())
        made.update(np.packbits(windows.valid).tobytes())
        for values in (windows.x, windows.y or {}):
            for name in sorted(values):
                made.update(name.encode())
                for piece in values[name].split(4096):  # type: ignore[no-untyped-call]
                    made.update(np.ascontiguousarray(piece.numpy()).tobytes())
    return made.hexdigest()


def _network(
    task: Task, fold: Fold, model: Model | None, refit: Refit | None, note: Note
) -> OutputsOf:
    note(f"{fold.name}: network{f' ({fold.null})' if fold.null else ''}")
    judged = refit(fold.train, fold.validation) if fold.refit and refit else model
    if judged is None:
        raise Refused(
            f"{task.name}: this plan judges given weights and trains none; give --weights, "
            "not a recipe"
        )
    forward = task.predict or predict
    return lambda scene: forward(judged.network, blind(scene.windows))


def _models(
    task: Task, fold: Fold, recipe: Any, model: Model | None, refit: Refit | None, note: Note,
    absent: dict[str, str], fitted: dict[str, Predictor],
) -> Iterator[tuple[str, OutputsOf]]:  # fmt: skip
    yield NETWORK, _network(task, fold, model, refit, note)
    for name, baseline in task.baselines.items():
        note(f"{fold.name}: {name}")
        try:
            known = fitted[name] if name in fitted else baseline.fit(fold.train, recipe)
        except NoData as reason:
            absent[name] = str(reason)
            continue
        fitted[name] = known
        yield name, lambda scene, known=known: known(blind(scene.windows))  # type: ignore[misc]
    if task.attainable is not None and all(_knows(s) for s in fold.test):
        attainable = task.attainable
        yield BEST, lambda scene: attainable(scene, recipe)


def _knows(scene: Scene) -> bool:
    """Whether the simulation left what its best answer is made from."""
    return any(k.startswith("true") for k in scene.windows.extra)


def refitter(task: Task, recipe: Any, plan: Any) -> Refit:
    """A ``refit`` that trains from scratch on a fold's training part, and is given no other.

    The epoch is chosen on the validation rows, or on the last of the training parts where there are
    none.

    Args:
        task, recipe, plan: as for ``learn.train.fit``.
    """
    from terrella.learn.train import fit
    from terrella.weights import Card

    def refit(train: Sequence[Windows], validation: Sequence[Windows]) -> Model:
        held = validation or train[-1:]
        learned = train if validation else train[:-1]
        with tempfile.TemporaryDirectory() as scratch:
            network = fit(task, recipe, learned, held, plan, Path(scratch), progress=False)
        return Model(task, network, recipe, Card(task.name, "refitted"))

    return refit
