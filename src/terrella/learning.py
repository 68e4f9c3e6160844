"""What ``train``, ``evaluate`` and ``weights certify`` do, for any task."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from terrella import registry
from terrella.task import Judging, Model, Task
from terrella.verbs import MaybeInputs, Out, WeightsOption, say, warnings_as_lines


def train(task: Task) -> Callable[..., None]:
    """``terrella train TASK``."""

    def command(
        inputs: MaybeInputs = None,
        out: Out = Path("out/train"),
        config: Annotated[Path | None, typer.Option(help="recipe file (TOML)")] = None,
        seed: Annotated[int | None, typer.Option(help="overrides [train] seed")] = None,
        epochs: Annotated[int | None, typer.Option(help="overrides [train] epochs")] = None,
        devices: Annotated[int | None, typer.Option(help="processes or GPUs a node")] = None,
        nodes: Annotated[int | None, typer.Option(help="machines")] = None,
        accelerator: Annotated[str | None, typer.Option(help="auto, cpu, gpu ...")] = None,
        strategy: Annotated[str | None, typer.Option(help="auto, ddp, ddp_spawn ...")] = None,
        fresh: Annotated[bool, typer.Option("--fresh", help="do not resume")] = False,
        judge: Annotated[bool, typer.Option(help="score the result into its card")] = True,
    ) -> None:
        """Train a network by a recipe file, and score it beside its baselines.

        A run that was killed goes on from its last epoch when started again.
        """
        from terrella.learn import config as configs

        chosen = configs.load(
            task, config, seed=seed, epochs=epochs, devices=devices, nodes=nodes,
            accelerator=accelerator, strategy=strategy,
        )  # fmt: skip
        with warnings_as_lines():
            path = train_one(task, list(inputs or []), chosen, out, fresh=fresh, judge=judge)
        print(path)

    return command


def train_one(
    task: Task, inputs: list[Path], config: Any, out: Path, *, fresh: bool, judge: bool
) -> Path:
    """Train by a config; write weights and card; score them into the card."""
    from terrella import novelty, weights
    from terrella.learn import certificate
    from terrella.learn.train import fit

    options = task.options(**config.options)
    say(f"{task.name}: preparing rows")
    learned, held = task.training(inputs, config.data, config.recipe, options)
    rows = sum(int(w.valid.sum()) for w in learned)
    say(f"{task.name}: training on {rows} rows")
    network = fit(task, config.recipe, learned, held, config.train, out, fresh=fresh)
    data = ", ".join(f"{k} {v}" for k, v in config.data.items())
    told = learned[0].extra  # a task may say itself what its rows are and how they were divided
    differ = "train and validation differ in " + ", ".join(sorted(learned[0].groups))
    card = weights.Card(
        task=task.name,
        name=config.name,
        summary=config.summary,
        options=config.options,
        data=str(told.get("data") or (f"{len(inputs)} files" if inputs else f"simulated ({data})")),
        split=str(told.get("split") or differ),
        seed=config.train.seed,
        command=" ".join(
            ["terrella train", task.name, *["DATA ..."][: len(inputs)]]
            + ([] if config.packaged else ["--config", config.path.name])
            + ["--out DIR"]
        ),
        doi=_first_doi(task.name),
        licence="MIT",
        notes=config.notes,
        inputs=novelty.learnt(task, learned),
    )
    path = weights.save(network, card, config.recipe, out)
    if judge:
        again = inputs if config.data.get("judge_inputs", False) else []
        body = certified(task, again, path, {}, task.evaluation(), Judging(), out, config)
        weights.write_card(certificate.on_card(weights.read_card(path), body), path)
    return path


def evaluate(task: Task) -> Callable[..., None]:
    """``terrella evaluate TASK``."""

    def command(
        inputs: MaybeInputs = None,
        out: Out = Path("out/evaluate"),
        weights: WeightsOption = "default",
        config: Annotated[
            Path | None, typer.Option(help="recipe file for networks trained on the folds")
        ] = None,
        epochs: Annotated[int | None, typer.Option(help="overrides its [train] epochs")] = None,
        options: dict[str, Any] | None = None,
        evaluation: Any = None,
        judging: Any = None,
    ) -> None:
        """Judge a network beside its baselines, and certify what that shows.

        Writes scores.csv, certificate.json and the certificate as a page with figures. The same
        seeds give the same bytes.
        """
        from terrella.learn import config as configs

        recipe = configs.load(task, config, epochs=epochs)
        with warnings_as_lines():
            body = certified(
                task, list(inputs or []), weights, options or {}, evaluation, judging, out, recipe,
                instead=config is not None,
            )  # fmt: skip
        show_certificate(body, out)

    return command


def certified(
    task: Task, inputs: list[Path], weights: Any, chosen: dict[str, Any], how: Any,
    judging: Judging, out: Path, config: Any, instead: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Judge weights by a task's plan; folds that train do so by a recipe file's settings.

    Args:
        task: what is judged.
        inputs: files, or none.
        weights: to judge, or whose recipe is trained on the folds.
        chosen: run options that were given.
        how: the task's evaluation settings.
        judging: draws and nulls.
        out: folder.
        config: the recipe file.
        instead: train by the recipe of the file, not by that of the weights.

    Returns:
        The certificate.
    """
    from terrella.learn.evaluate import refitter
    from terrella.weights import Card, load

    model = load(task.name, weights)
    if instead:
        card = Card(task.name, config.name, notes=config.notes, options=config.options)
        model = Model(task, task.network(config.recipe), config.recipe, card)
    refit = refitter(task, model.recipe, config.train)
    return issue(model, inputs, model.options(**chosen), how, judging, out, refit)


def issue(
    model: Model, inputs: list[Path], options: Any, how: Any, judging: Judging, out: Path,
    refit: Any,
) -> dict[str, Any]:  # fmt: skip
    """Judge a model by its task's plan and write scores, certificate and its page.

    Returns:
        The certificate.
    """
    from terrella import files
    from terrella.learn import certificate, page
    from terrella.learn.evaluate import evaluate

    task, recipe = model.task, model.recipe
    folds = task.plan(inputs, how, recipe, options)
    given = model if model.card.sha256 else None  # a recipe alone has no weights to judge
    found = evaluate(
        task, folds, recipe, options, model=given, refit=refit, judging=judging, note=say
    )
    body, scores = certificate.certify(found, model, judging, how, inputs)
    with files.whole(out / "scores.csv") as scratch:
        scores.to_csv(scratch, index=False, lineterminator="\n")
    certificate.write(body, out / "certificate.json")
    page.write(body, out, task.figures(found) if task.figures else {})
    return body


def show_certificate(body: dict[str, Any], out: Path) -> None:
    """Print a certificate's overall scores and verdict, and where its page lies."""
    import pandas as pd

    # A lone block has no interval: None in JSON.
    scores = pd.DataFrame(body["scores"]).astype({"lo": float, "hi": float})
    show_scores(scores, f"{body['data']}; {body['split']}")
    print(body["verdict"])
    print(out / "certificate.html")


def show_scores(scores: Any, title: str) -> None:
    """Print scores of all rows as a table; those of parts are in the certificate."""
    table = Table(title=title)
    for column in ("lead", "metric", "model", "value", "95 % interval"):
        table.add_column(column)
    whole = scores[scores["group"] == "all"].sort_values(["lead", "metric"], kind="stable")
    for row in whole.itertuples():
        table.add_row(
            str(row.lead), row.metric, row.model, f"{row.value:.4g}",
            f"{row.lo:.4g} .. {row.hi:.4g}",
        )  # fmt: skip
    Console(width=110 if not sys.stdout.isatty() else None).print(table)


def certify_weights(task: str, name: str, certificate: str) -> None:
    """Write a certificate into the card of weights."""
    from terrella.learn.certificate import attach

    path, verdict = attach(task, name, Path(certificate))
    print(f"{path.with_suffix('.toml')}: {verdict}")


def _first_doi(name: str) -> str:
    doi = registry.card(name).get("doi", "")
    return str(doi[0] if isinstance(doi, list) and doi else doi)
