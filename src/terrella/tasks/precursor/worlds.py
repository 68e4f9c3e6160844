"""Controlled worlds: a strong signal, none at all, a planted shortcut. Does the judge see which?"""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella import files, registry
from terrella.learn.certificate import Body, certify
from terrella.learn.evaluate import NETWORK, Note, evaluate, refitter
from terrella.learn.train import Training, fit
from terrella.task import Judging, Model
from terrella.tasks.precursor import audit as audits
from terrella.tasks.precursor.gradcam import band_share, gradcam
from terrella.tasks.precursor.judge import divide
from terrella.tasks.precursor.rows import halves, simulated, subset
from terrella.tasks.precursor.simulate import BAND, World
from terrella.tasks.precursor.task import Evaluation, Options, Recipe
from terrella.types import Windows
from terrella.weights import Card

#: One-hour windows, small images: minutes on two cores.
SMALL = Recipe(hidden=64, drop=0.0, window=3600.0, size=64, augment="none")
QUICK = Training(epochs=8, batch=32, lr=3e-3, weight_decay=0.05, warmup=1, patience=4)
OPTIONS = Options(explain="none")
JUDGING = Judging(draws=200)
STRONG = 6.0
TREES = "lightgbm"


@dataclass(frozen=True)
class Look:
    """One controlled world's certificate."""

    body: Body

    @property
    def gain(self) -> dict[str, Any]:
        """In the primary metric on all rows."""
        return next(g for g in self.body["gains"] if g["group"] == "all")

    def score(self, metric: str, model: str = NETWORK) -> float:
        """One score of one model on all rows."""
        return next(
            float(r["value"]) for r in self.body["scores"]
            if (r["group"], r["metric"], r["model"]) == ("all", metric, model)
        )  # fmt: skip


def look(windows: Windows, split: str, words: str, folds: int = 3, epochs: int = 8) -> Look:
    """Evaluate a world's windows under one split, as ``terrella evaluate`` does.

    The question is whether what is there is found, not whether it takes a network: trees on band
    powers see a strong signal as well, so they are scored but are no rival in the verdict.
    """
    task = registry.get("precursor")
    plan = Evaluation(split=split, folds=folds)  # type: ignore[arg-type]
    refit = refitter(task, SMALL, dataclasses.replace(QUICK, epochs=epochs))
    found = evaluate(
        task, divide(windows, plan, SMALL, words), SMALL, OPTIONS, refit=refit, judging=JUDGING
    )
    recipe = Model(task, task.network(SMALL), SMALL, Card(task.name, "controlled worlds"))
    rivals = {k: b for k, b in task.baselines.items() if b.kind != "classical"}
    found = dataclasses.replace(found, task=dataclasses.replace(task, baselines=rivals))
    return Look(certify(found, recipe, JUDGING, plan)[0])


def explained(windows: Windows, epochs: int = 12) -> float:
    """Share of Grad-CAM energy in the injected band, on held-out precursor windows.

    The band is a fifth of the frequency axis: a map that knows nothing has 0.2.
    """
    parts = halves(windows, np.arange(len(windows)), 0)
    learned, held = (subset(windows, rows, SMALL) for rows in parts)
    training = dataclasses.replace(QUICK, epochs=epochs)
    with tempfile.TemporaryDirectory() as folder:
        network: Any = fit(
            registry.get("precursor"), SMALL, [learned], [held], training, Path(folder),
            progress=False,
        )  # fmt: skip
    ahead = np.flatnonzero((held.extra["table"]["kind"] == "precursor").to_numpy())
    maps = gradcam(network, held.x["image"][ahead], layer=-2, steps=8)
    return float(np.nanmean(band_share(maps, *BAND)))


def controlled(out: Path, seeds: int, seed: int, note: Note) -> list[str]:
    """The three controlled worlds; writes ``worlds.csv`` and returns what was found, in lines.

    Args:
        out: folder.
        seeds: how many worlds without a signal.
        seed: of the first.
        note: told what is being done.
    """
    rows: list[dict[str, Any]] = []

    def judged(name: str, world: World, split: str, epochs: int = 12) -> tuple[Look, Windows]:
        note(f"world {name}, seed {world.seed}, {split}")
        windows = simulated(world, SMALL, OPTIONS)
        found = look(windows, split, f"simulated world {name}", epochs=epochs)
        rows.append(_row(name, split, world.seed, found))
        return found, windows

    a, windows = judged("a", World(seed=seed, strength=STRONG, quakes=160), "loeo")
    lines = [
        f"a (strength {STRONG:g}): {a.body['verdict']}",
        f"a: sector right for {100 * a.score('sector_accuracy'):.0f} % of precursors (chance 12.5 "
        f"%), mean error {a.score('circular_error'):.0f} deg (chance 90); "
        f"{100 * explained(windows):.0f} % of Grad-CAM energy in the injected band (20 % of the "
        f"axis); precursor MCC {a.score('precursor_mcc'):.3f}, trees on band powers "
        f"{a.score('precursor_mcc', TREES):.3f}",
    ]
    b = [judged("b", World(seed=n), "loeo", 8)[0] for n in range(seed, seed + seeds)]
    lines += [f"b (strength 0), seed {seed}: {f.body['verdict']}" for f in b[:1]]
    silent = sum(f.body["skill"] == "not shown" for f in b)
    lines.append(f"b: no skill reported in {silent} of {seeds} seeds")
    planted = World(seed=seed, shortcut=True)
    naive, windows = judged("c", planted, "random")
    c, _ = judged("c", planted, "loeo")
    lines += [
        "c (planted shortcut): the naive split gives the network "
        f"{100 * naive.score('magnitude_accuracy'):.0f} % magnitude accuracy (precursor MCC "
        f"{naive.score('precursor_mcc'):.2f}), the station alone "
        f"{100 * naive.score('magnitude_accuracy', 'station-only'):.0f} % "
        f"({naive.score('precursor_mcc', 'station-only'):.2f})",
        *[f"c: audit {f.level}: {f.message}"
          for f in audits.confounding(audits.labels_of(windows.extra["table"]))
          if f.level == "error"],
        f"c, naive: {naive.body['verdict']}",
        f"c, loeo: {c.body['verdict']}",
    ]  # fmt: skip
    with files.whole(out / "worlds.csv") as scratch:
        pd.DataFrame(rows).to_csv(scratch, index=False, lineterminator="\n")
    with files.whole(out / "worlds.txt") as scratch:
        scratch.write_text("\n".join(lines) + "\n", "utf-8")
    return lines


def _row(name: str, split: str, seed: int, found: Look) -> dict[str, Any]:
    keys = ("value", "lo", "hi", "baseline", "kind", "shortcut", "p", "n", "blocks")
    gain = {k: found.gain[k] for k in keys}
    kept = ("precursor_mcc", "magnitude_accuracy", "sector_accuracy", "circular_error")
    scores = {k: found.score(k) for k in kept}
    return {"world": name, "split": split, "seed": seed, "skill": found.body["skill"],
            "leaks": bool(found.body["leaks"]), **gain, **scores}  # fmt: skip
