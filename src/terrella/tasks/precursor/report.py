"""What ``validate`` and ``worlds`` do: studies, their tables, figures and lines."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella import files, registry
from terrella.learn.train import Training, fit
from terrella.plot import COLOURS, figure, save
from terrella.tasks.precursor import audit as audits
from terrella.tasks.precursor.certify import write_certificate
from terrella.tasks.precursor.gradcam import band_share, gradcam
from terrella.tasks.precursor.judge import divide, gather, halves, simulated
from terrella.tasks.precursor.labels import match_normals, pairs, shift_catalogue
from terrella.tasks.precursor.simulate import BAND, World
from terrella.tasks.precursor.skill import Certificate, confusion, scores
from terrella.tasks.precursor.stations import rule, side_tables
from terrella.tasks.precursor.study import (
    Note,
    Outcome,
    Prospect,
    certificate,
    crossval,
    null_scores,
    prospect,
    score_table,
)
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE, Evaluation, Options, Recipe
from terrella.types import NoData, Refused, Windows

#: The recipe of the controlled worlds: one-hour windows, small images, minutes on two cores.
SMALL = Recipe(hidden=64, drop=0.0, window=3600.0, size=64, augment="none")
QUICK = Training(epochs=8, batch=32, lr=3e-3, weight_decay=0.05, warmup=1, patience=4)
STRONG = 6.0


def validation(
    paths: Sequence[Path], plans: Sequence[Evaluation], recipe: Recipe, options: Options,
    training: Training, out: Path, nulls: int, shifts: int, note: Note,
) -> list[str]:  # fmt: skip
    """Measure skill on files and write ``scores.csv``, ``certificate.json`` and figures.

    Args:
        paths: magnetometer files with catalogue and stations, or labelled images.
        plans: one for each split asked for; the certificate is of the last that does not leak.
        recipe, options, training: as for training.
        out: folder.
        nulls: label shuffles that are trained from scratch.
        shifts: catalogue shifts that are trained from scratch.
        note: told what is being done.

    Returns:
        Lines for the user, the skill line last.
    """
    task = registry.get("precursor")
    every = _everything(paths, recipe, options)
    chosen = (
        _chosen(every, recipe, options) if every is not None else gather(paths, recipe, options)
    )
    data = f"{len(chosen)} windows of {len(np.unique(chosen.groups['station']))} stations"
    tables, lines = [], []
    proof: tuple[Evaluation, Certificate] | None = None
    for plan in plans:
        outcome = crossval(task, divide(chosen, plan, recipe, data), recipe, training, note)
        # Strict splits cannot test every row: what was tested is what is claimed.
        outcome = dataclasses.replace(outcome, data=f"{len(outcome.table)} of {data}")
        tables += [score_table(outcome)]
        tables += [null_scores(task, chosen, plan, recipe, training, nulls, note)]
        if every is not None:
            tables += [_shifted(task, paths, every, plan, recipe, options, training, shifts, note)]
        found = certificate(outcome)
        if proof is None or plan.split != "random":
            proof = plan, found
        lines.append(f"{plan.split}: {found.line}")
        save(_confusions(outcome), out / f"confusion.{plan.split}.png")
    for finding in audits.confounding(_labels(chosen)):
        lines.append(f"audit {finding.level}: {finding.message}")
    if every is not None:
        lines += _continuous(
            task, chosen, every, paths, recipe, options, training, plans[-1].embargo, out
        )
    table = pd.concat([t for t in tables if len(t)], ignore_index=True)
    with files.whole(out / "scores.csv") as scratch:
        table.to_csv(scratch, index=False, lineterminator="\n")
    assert proof is not None
    write_certificate(out / "certificate.json", *proof, recipe)
    return [*lines, proof[1].line]


def _everything(paths: Sequence[Path], recipe: Recipe, options: Options) -> Windows | None:
    """All windows where the inputs are magnetometer files; None for ready-made images."""
    windows = gather(paths, recipe, options, every=True)
    return None if "pair" in windows.extra["table"] else windows


def _chosen(every: Windows, recipe: Recipe, options: Options) -> Windows:
    from terrella.tasks.precursor.prepare import windows_of

    chosen = match_normals(every.extra["table"], rule(options))
    return windows_of(every.x["image"].numpy()[chosen.index.to_numpy()], chosen, recipe)


def _catalogue(paths: Sequence[Path], windows: Windows) -> tuple[pd.DataFrame, pd.DataFrame]:
    side, _ = side_tables([p for q in paths for p in (sorted(q.rglob("*")) if q.is_dir() else [q])])
    if side.quakes is None or side.stations is None:
        raise NoData("no catalogue among the inputs")
    used = side.stations[side.stations["station"].isin(np.unique(windows.groups["station"]))]
    return side.quakes, used


def _shifted(
    task: Any, paths: Sequence[Path], every: Windows, plan: Evaluation, recipe: Recipe,
    options: Options, training: Training, rounds: int, note: Note,
) -> pd.DataFrame:  # fmt: skip
    """The catalogue-shift null: the same windows labelled by earthquakes moved in time."""
    from terrella.tasks.precursor.labels import conditions, label_windows
    from terrella.tasks.precursor.prepare import windows_of

    parts: list[pd.DataFrame] = []
    if not rounds:
        return pd.DataFrame()
    quakes, stations = _catalogue(paths, every)
    table = every.extra["table"]
    kp = pd.Series(table["kp"].to_numpy(), pd.DatetimeIndex(table["end"]).floor("3h"))
    kp = kp[~kp.index.duplicated()]
    span = (quakes["time"].max() - quakes["time"].min()) / pd.Timedelta(days=1)
    for k in range(rounds):
        days = float(span) * (k + 1) / (rounds + 1)
        note(f"null {k + 1} of {rounds}: catalogue shifted by {days:.3g} days")
        found = pairs(shift_catalogue(quakes, days), stations, rule(options))
        made = []
        for code, group in table.groupby("station", sort=False):
            end = group["end"].to_numpy("datetime64[ns]")
            labels = label_windows(str(code), end, found, rule(options)).set_index(group.index)
            made.append(labels.assign(flags=group["flags"]))
        moved = conditions(pd.concat(made), kp, rule(options))
        try:
            chosen = match_normals(moved, rule(options))
            null = windows_of(every.x["image"].numpy()[chosen.index.to_numpy()], chosen, recipe)
            folds = divide(null, plan, recipe, f"catalogue shifted by {days:.3g} days")
            outcome = crossval(task, folds, recipe, training)
        except Refused as refusal:
            note(f"null {k + 1}: {refusal}")
            continue
        only = dataclasses.replace(outcome, given={"terrella": outcome.given["terrella"]})
        parts.append(score_table(only, f" (catalogue shift {k + 1})"))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _labels(windows: Windows) -> pd.DataFrame:
    """A label list as the audit reads it."""
    table = windows.extra["table"]
    ahead = table["kind"].to_numpy() == "precursor"
    # Middle of each class: the audit looks at classes, and the list has no magnitudes.
    middle = {"Large": 6.5, "Medium": 5.5, "Moderate": 4.5, "Normal": np.nan}
    magnitude = [middle[MAGNITUDE[k]] if k >= 0 else np.nan for k in table["magnitude"]]
    return pd.DataFrame(
        {
            "station": table["station"].astype(str), "kind": table["kind"],
            "magnitude": np.where(ahead, magnitude, np.nan),
            "azimuth": np.where(ahead, table["bearing"], np.nan),
        }
    )  # fmt: skip


def _continuous(
    task: Any, chosen: Windows, every: Windows, paths: Sequence[Path], recipe: Recipe,
    options: Options, training: Training, embargo: float, out: Path,
) -> list[str]:  # fmt: skip
    try:
        quakes, stations = _catalogue(paths, every)
        found = pairs(quakes, stations, rule(options))
        made = prospect(task, chosen, every, found, options.lead, recipe, training, embargo=embargo)
    except Refused as refusal:
        return [f"continuous test not made: {refusal}"]
    save(_molchan(made), out / "molchan.png")
    with files.whole(out / "false_alarms.csv") as scratch:
        made.alarms.to_csv(scratch, index=False, lineterminator="\n")
    own = made.trajectories["terrella"]
    total = made.alarms.iloc[-1]
    verdict = "better than" if own.area > own.high else "not told from"
    return [
        f"continuous: Molchan area skill {own.area:.3f}, {verdict} a Poisson rate "
        f"(0.5; 95 % of chance {own.low:.3f} .. {own.high:.3f}, {own.targets} earthquakes)",
        f"continuous: {total['per_year']:.1f} false alarms per station-year "
        f"({int(total['false'])} of {int(total['alarms'])} in {total['years']:.2f} station-years)",
    ]


def _confusions(outcome: Outcome) -> Any:
    made, axes = figure(1, size=(9.5, 4.2), ncols=2)
    for axis, name, classes in zip(axes, ("magnitude", "azimuth"), (MAGNITUDE, AZIMUTH),
                                   strict=True):  # fmt: skip
        given = outcome.given["terrella"][name].argmax(1)
        table = confusion(outcome.truth()[name], given, len(classes))
        share = table / np.maximum(table.sum(1, keepdims=True), 1)
        shown = axis.imshow(share, cmap="cividis", vmin=0, vmax=1)
        for row in range(len(classes)):
            for column in range(len(classes)):
                if not table[row, column]:
                    continue
                tone = "black" if share[row, column] > 0.6 else "white"
                axis.text(column, row, f"{table[row, column]:.0f}", ha="center", va="center",
                          fontsize=7, color=tone)  # fmt: skip
        axis.set_xticks(range(len(classes)), classes, rotation=45)
        axis.set_yticks(range(len(classes)), classes)
        axis.set(xlabel="given", ylabel="truth", title=f"{name}, {outcome.split}")
        axis.title.set_fontsize(8)
        axis.grid(False)
    made.colorbar(shown, ax=list(axes), label="share of the true class")
    return made


def _molchan(made: Prospect) -> Any:
    drawn, axis = figure(1, size=(5.2, 4.8))
    for k, (name, path) in enumerate(made.trajectories.items()):
        axis.plot(path.tau, path.miss, color=COLOURS[k], lw=2 if k == 0 else 1,
                  label=f"{name}, area {path.area:.2f}")  # fmt: skip
    axis.plot([0, 1], [1, 0], color="0.5", ls="--", label="Poisson rate of each station")
    own = made.trajectories["terrella"]
    axis.set(
        xlabel="share of expected earthquakes under alarm", ylabel="share of earthquakes missed",
        xlim=(0, 1), ylim=(0, 1), title=f"Molchan diagram, {own.targets} earthquakes",
    )  # fmt: skip
    axis.legend(fontsize=7)
    return drawn


@dataclasses.dataclass(frozen=True)
class Look:
    """One controlled world's result."""

    outcome: Outcome
    certificate: Certificate

    def score(self, name: str, model: str = "terrella") -> float:
        """One score of one model."""
        o = self.outcome
        ones = np.ones(len(o.table))
        return scores(o.truth(), o.given[model], o.bearing(), ones)[name]


def look(windows: Windows, split: str, words: str, folds: int = 3, epochs: int = 8) -> Look:
    """Study a controlled world's windows under one split."""
    training = dataclasses.replace(QUICK, epochs=epochs)
    plan = Evaluation(split=split, folds=folds)  # type: ignore[arg-type]
    outcome = crossval(
        registry.get("precursor"), divide(windows, plan, SMALL, words), SMALL, training
    )
    return Look(outcome, certificate(outcome))


def explained(windows: Windows, epochs: int = 12) -> float:
    """Share of Grad-CAM energy in the injected band, on held-out precursor windows.

    The band is a fifth of the frequency axis: a map that knows nothing has 0.2.
    """
    learned, held = halves(windows, SMALL, 0)
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
    """The three controlled worlds; writes ``worlds.csv`` and returns what was found, in lines."""
    options = Options(explain="none")
    rows: list[dict[str, Any]] = []
    lines = []

    def keep(name: str, split: str, number: int, found: Look) -> None:
        gain = found.certificate.gain
        rows.append(
            {"world": name, "split": split, "seed": number, "skill": found.certificate.skill,
             "metric": found.certificate.metric, "gain": gain.value, "lo": gain.low,
             "hi": gain.high, "null_p": found.certificate.null_p,
             "baseline": found.certificate.baseline,
             "magnitude_accuracy": found.score("magnitude accuracy"),
             "sector_accuracy": found.score("precursor-only azimuth accuracy"),
             "circular_error": found.score("circular error"), "n": len(found.outcome.table)}
        )  # fmt: skip

    note("world a: strong signal")
    strong = simulated(World(seed=seed, strength=STRONG, quakes=160), SMALL, options)
    a = look(strong, "loeo", f"simulated world a, strength {STRONG:g}", epochs=12)
    keep("a", "loeo", seed, a)
    share = explained(strong)
    lines.append(f"a (strength {STRONG:g}): {a.certificate.line}")
    lines.append(
        f"a: sector right for {100 * a.score('precursor-only azimuth accuracy'):.0f} % of "
        f"precursors (chance 12.5 %), mean error {a.score('circular error'):.0f} deg (chance 90); "
        f"{100 * share:.0f} % of Grad-CAM energy in the injected band (20 % of the axis)"
    )
    quiet = 0
    for number in range(seed, seed + seeds):
        note(f"world b: no signal, seed {number}")
        windows = simulated(World(seed=number, strength=0.0), SMALL, options)
        b = look(windows, "loeo", "simulated world b, strength 0")
        keep("b", "loeo", number, b)
        quiet += not b.certificate.skill
        if number == seed:
            lines.append(f"b (strength 0), seed {number}: {b.certificate.line}")
    lines.append(f"b: no skill reported in {quiet} of {seeds} seeds")
    note("world c: no signal, planted shortcut")
    planted = simulated(World(seed=seed, strength=0.0, shortcut=True), SMALL, options)
    naive = look(planted, "random", "simulated world c, naive split", epochs=12)
    keep("c", "random", seed, naive)
    c = look(planted, "loeo", "simulated world c, strength 0", epochs=12)
    keep("c", "loeo", seed, c)
    lines.append(
        f"c (planted shortcut): naive split gives {100 * naive.score('magnitude accuracy'):.0f} % "
        f"magnitude accuracy to the network (precursor MCC {naive.score('precursor MCC'):.2f}), "
        f"{100 * naive.score('magnitude accuracy', 'station-only'):.0f} % to the station alone"
    )
    lines += [
        f"c: audit {f.level}: {f.message}" for f in audits.confounding(_labels(planted))
        if f.level == "error"
    ]  # fmt: skip
    lines.append(f"c: {naive.certificate.line}")
    lines.append(f"c: {c.certificate.line}")
    with files.whole(out / "worlds.csv") as scratch:
        pd.DataFrame(rows).to_csv(scratch, index=False, lineterminator="\n")
    with files.whole(out / "worlds.txt") as scratch:
        scratch.write_text("\n".join(lines) + "\n", "utf-8")
    return lines
