"""The published ablation, rerun: three encoders of the histories, one budget, the same storms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from terrella.task import Baseline, Judging, Model, Task
from terrella.types import Outputs, Windows


def ablation(
    out: Annotated[Path, typer.Option(help="folder for scores and certificate")] = Path(
        "out/ablation"
    ),
    days: Annotated[int, typer.Option(help="simulated days to learn from", min=20)] = 365,
    epochs: Annotated[int, typer.Option(help="at most, of each encoder", min=1)] = 6,
    seed: Annotated[int, typer.Option(help="of weights and order")] = 42,
    judged: Annotated[int, typer.Option(help="simulated days to judge on", min=20)] = 365,
) -> None:
    """Train attention-lstm, lstm and transformer alike and judge the first beside the others.

    Example: `terrella ech ablation --out out/ablation`
    """
    from torch import nn

    from terrella import learning, registry, verbs
    from terrella.learn import config as configs
    from terrella.learn.evaluate import refitter
    from terrella.tasks.ech.task import Evaluation
    from terrella.weights import Card

    task = registry.get("ech")
    recipe = configs.load(task, seed=seed, epochs=epochs)
    plan = dataclasses.replace(recipe.train, batch=512)
    task = dataclasses.replace(task, baselines=encoders(task, recipe.recipe, plan))
    model = Model(task, nn.Identity(), recipe.recipe, Card(task.name, recipe.recipe.encoder))
    how = Evaluation(days=judged, learn=days, refit=True)
    refit = refitter(task, recipe.recipe, plan)
    with verbs.warnings_as_lines():
        body = learning.issue(model, [], task.options(), how, Judging(), out, refit)
    learning.show_certificate(body, out)


def encoders(task: Task, recipe: Any, plan: Any) -> dict[str, Baseline]:
    """The recipe with each other encoder, trained alike, as something to beat."""
    from terrella.tasks.ech.network import KINDS

    others = (dataclasses.replace(recipe, encoder=k) for k in KINDS if k != recipe.encoder)
    return {r.encoder: Baseline("classical", _trained(task, r, plan)) for r in others}


def _trained(task: Task, recipe: Any, plan: Any) -> Callable[..., Callable[[Windows], Outputs]]:
    from terrella.learn.evaluate import refitter
    from terrella.tasks.ech.predict import predict

    def fit(train: Sequence[Windows], _: Any) -> Callable[[Windows], Outputs]:
        network = refitter(task, recipe, plan)(train, ()).network
        return lambda windows: predict(network, windows)

    return fit
