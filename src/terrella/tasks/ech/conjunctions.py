"""The two-stage method on real data: precipitating electrons in POES/RBSP conjunctions.

Inputs are L, MLT and three hours of AE; occurrence is 0-degree flux above its lowest 20 % of the
training part, amplitude its log10. Neighbouring rows are seconds apart, so blocks of 27 days are
held out whole; a random split can be made, too, and shows how much it would flatter.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from terrella.task import Task, late

HERE = "terrella.tasks.ech"
RECIPE = Path(__file__).with_name("conjunctions.toml")


@dataclass(frozen=True)
class Evaluation:
    """How conjunctions are divided.

    Attributes:
        folds: parts that are tested in turn; one, the later file, if there is such.
        members: parts of the training rows; a network is stopped on each, and all are averaged.
        seed: of the division.
        leak: divide at random, too, and show beside the whole how much that flatters.
    """

    folds: int = 5
    members: int = 6
    seed: int = 0
    leak: bool = True


def task_of(ech: Task) -> Task:
    """The task on conjunctions: other rows and a smaller network, judged by the same means."""
    return dataclasses.replace(
        ech, evaluation=Evaluation, predict=None, attainable=None,
        plan=late(f"{HERE}.conjunction_rows:plan"),
        network=late(f"{HERE}.committee:build"),
        metrics={k: m for k, m in ech.metrics.items() if not k.endswith("_of_best")},
        baselines={k: b for k, b in ech.baselines.items() if b.kind != "published"},
    )  # fmt: skip


def conjunctions(
    file: Annotated[Path, typer.Argument(help="conjunctions: time, L, MLT, flux_0, AE_lag00..35")],
    out: Annotated[Path, typer.Option(help="folder for scores and certificate")] = Path(
        "out/conjunctions"
    ),
    test: Annotated[
        Path | None, typer.Option(help="later conjunctions: train on all of FILE, score there")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="recipe file (TOML)")] = None,
    epochs: Annotated[int | None, typer.Option(help="overrides the recipe's epochs")] = None,
    members: Annotated[int, typer.Option(help="networks averaged", min=2)] = Evaluation.members,
    seed: Annotated[int, typer.Option(help="of folds, weights and bootstrap")] = 0,
    leak: Annotated[bool, typer.Option(help="split at random, too, to show the leak")] = True,
) -> None:
    """The two-stage network on real conjunctions, judged beside its baselines.

    Example: `terrella ech conjunctions poes_rbsp_conjunctions.csv.gz --out out/`
    """
    from torch import nn

    from terrella import learning, registry, verbs
    from terrella.learn import config as configs
    from terrella.task import Judging, Model
    from terrella.tasks.ech.committee import committee
    from terrella.weights import Card

    task = task_of(registry.get("ech"))
    chosen = configs.load(task, config or RECIPE, epochs=epochs, seed=seed)
    model = Model(task, nn.Identity(), chosen.recipe, Card(task.name, chosen.name))
    how = Evaluation(members=members, seed=seed, leak=leak and test is None)
    refit = committee(task, chosen.recipe, chosen.train)
    inputs = [file] if test is None else [file, test]
    with verbs.warnings_as_lines():
        judging = Judging(bootstrap=seed)
        body = learning.issue(model, inputs, task.options(), how, judging, out, refit)
    learning.show_certificate(body, out)
