"""The published ablation, rerun: three encoders of the histories, one budget, the same storms."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

SHOWN = ("accuracy_of_best", "brier_skill_of_best", "r2_of_best", "roc_auc", "r2")


def ablation(
    out: Annotated[Path, typer.Option(help="folder for scores.csv")] = Path("out/ablation"),
    days: Annotated[int, typer.Option(help="simulated days to learn from", min=20)] = 365,
    epochs: Annotated[int, typer.Option(help="at most, of each encoder", min=1)] = 6,
    every: Annotated[int, typer.Option(help="minutes between samples", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="of weights and order")] = 42,
    judged: Annotated[int, typer.Option(help="simulated days to judge on", min=20)] = 365,
) -> None:
    """Train attention-lstm, lstm and transformer alike and score them on held-out storms.

    Example: `terrella ech ablation --out out/ablation`
    """
    from terrella import files, registry
    from terrella.learn import config as configs
    from terrella.learn.train import fit
    from terrella.tasks.ech import judge
    from terrella.tasks.ech.network import KINDS
    from terrella.tasks.ech.predict import predict
    from terrella.tasks.ech.task import Evaluation
    from terrella.verbs import say

    task = registry.get("ech")
    recipe = configs.load(task, seed=seed, epochs=epochs)
    plan = dataclasses.replace(recipe.train, batch=512)
    data = {**recipe.data, "days": days, "every": every}
    options = task.options()
    learned, held = judge.training([], data, recipe.recipe, options)
    fold = next(iter(judge.plan([], Evaluation(days=judged), recipe.recipe, options)))
    tables = {}
    for kind in KINDS:
        say(f"training {kind}")
        chosen = dataclasses.replace(recipe.recipe, encoder=kind)
        with tempfile.TemporaryDirectory() as scratch:
            network = fit(task, chosen, learned, held, plan, Path(scratch), progress=False)
        scene = fold.test[0]
        tables[kind] = judge.judge(predict(network, scene.windows), scene, chosen, options)
    scores = compared(tables, fold.data, f"{days} days to learn from, {epochs} epochs")
    with files.whole(out / "scores.csv") as scratch_file:
        scores.to_csv(scratch_file, index=False, lineterminator="\n")
    print(scores.drop(columns=["task", "data", "split", "group", "lead"]).to_string(index=False))
    print(out / "scores.csv")


def compared(
    tables: dict[str, pd.DataFrame], data: str, split: str, draws: int = 500
) -> pd.DataFrame:
    """Scores of every encoder, and how far each lies behind the best, paired by storm.

    Args:
        tables: encoder -> sums of every storm, the same storms in all.

    Returns:
        Columns of ``scores.csv``; 95 % intervals, the same draws for all.
    """
    from terrella.learn.metrics import block_weights
    from terrella.tasks.ech import judge

    first = next(iter(tables.values()))
    weights = np.vstack([np.ones(len(first)), block_weights(first["block"].to_numpy(), draws, 0)])
    rows: list[dict[str, Any]] = []
    for metric in SHOWN:
        score = getattr(judge, metric)
        drawn = {k: np.array([score(t, w) for w in weights]) for k, t in tables.items()}
        best = max(drawn, key=lambda k: drawn[k][0])
        named = [(metric, k, v) for k, v in drawn.items()]
        named += [
            (f"{metric} behind {best}", k, drawn[best] - drawn[k]) for k in drawn if k != best
        ]
        for name, kind, values in named:
            low, high = np.nanquantile(values[1:], [0.025, 0.975])
            rows.append(
                {"task": "ech", "data": data, "split": split, "group": "all", "lead": "",
                 "model": kind, "metric": name, "value": values[0], "lo": low, "hi": high,
                 "n": len(first)}
            )  # fmt: skip
    return pd.DataFrame(rows)
