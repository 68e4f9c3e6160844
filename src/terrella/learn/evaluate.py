"""Judging a network beside its baselines, on the same rows in the same run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from terrella.learn.metrics import score
from terrella.learn.split import guard
from terrella.predict import predict
from terrella.task import Model, Task
from terrella.types import Fold, Outputs, Refused, Windows

COLUMNS = ["task", "data", "split", "group", "lead", "model", "metric", "value", "lo", "hi", "n"]


def evaluate(
    task: Task,
    folds: Iterable[Fold],
    recipe: Any,
    options: Any,
    *,
    model: Model | None = None,
    refit: Callable[[Fold], Model] | None = None,
    draws: int = 500,
    seed: int = 0,
    note: Callable[[str], None] = lambda _: None,
) -> pd.DataFrame:
    """Score a network and every baseline of its task.

    Args:
        task: what is judged.
        folds: train/test divisions from ``task.plan``; each is guarded against leaks first.
        recipe, options: as for a run.
        model: the weights to judge, for folds that do not refit.
        refit: trains a model on a fold's training part, for folds that do.
        draws, seed: of the block bootstrap.
        note: told what is being done.

    Returns:
        Rows with the columns of ``scores.csv``.

    Raises:
        Refused: a group on both sides of a split, or nothing to judge.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    data = split = ""
    named, seen = False, set()
    for fold in folds:
        guard(fold)
        data, split = fold.data or data, fold.split or split
        seen.add(fold.name)
        for name, predictor in _predictors(task, fold, recipe, model, refit, note):
            for scene in fold.test:
                rows = task.judge(predictor(scene.windows), scene, recipe, options)
                # A group that the task names is shown even if alone; a lone fold says nothing new.
                named |= "group" in rows
                group = rows.get("group", fold.name)
                tables.setdefault(name, []).append(rows.assign(group=group))
    if not tables:
        raise Refused(f"{task.name}: the evaluation found nothing to score")
    unsaid = [] if named or len(seen) > 1 else ["group"]
    scored = [
        score(
            pd.concat(parts, ignore_index=True).drop(columns=unsaid), task.metrics, draws=draws,
            seed=seed, task=task.name, data=data, split=split, model=name,
        )
        for name, parts in tables.items()
    ]  # fmt: skip
    return pd.concat(scored, ignore_index=True)[COLUMNS]


def _predictors(
    task: Task,
    fold: Fold,
    recipe: Any,
    model: Model | None,
    refit: Callable[[Fold], Model] | None,
    note: Callable[[str], None],
) -> Iterable[tuple[str, Callable[[Windows], Outputs]]]:
    note(f"{fold.name}: network")
    judged = refit(fold) if fold.refit and refit else model
    if judged is not None:
        forward = task.predict or predict
        yield "terrella", lambda windows: forward(judged.network, windows)
    for name, baseline in task.baselines.items():
        note(f"{fold.name}: {name}")
        yield name, baseline(fold.train, recipe)


def refitter(task: Task, recipe: Any, plan: Any) -> Callable[[Fold], Model]:
    """A ``refit`` that trains from scratch on a fold's training part.

    The epoch is chosen on ``fold.train``'s last part (its ``validation`` windows), which the task
    has put there; the test part is out of reach.

    Args:
        task, recipe, plan: as for ``learn.train.fit``.
    """
    from terrella.learn.train import fit
    from terrella.weights import Card

    def refit(fold: Fold) -> Model:
        held = fold.validation or fold.train[-1:]
        learned = fold.train if fold.validation else fold.train[:-1]
        with tempfile.TemporaryDirectory() as scratch:
            network = fit(task, recipe, learned, held, plan, Path(scratch), progress=False)
        return Model(task, network, recipe, Card(task.name, fold.name))

    return refit
