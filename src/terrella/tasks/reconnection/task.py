"""reconnection: an MMS burst interval becomes labelled regions and an energy budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from terrella.task import Baseline, Metric, Task, late, option
from terrella.types import Column, Variable

HERE = "terrella.tasks.reconnection"
METRICS = "terrella.learn.metrics"


def _moments(s: str, word: str, cadence: float) -> tuple[Variable, ...]:
    spectra = ("omni",) if s == "i" else ("omni", "par", "perp", "anti")
    flux = "keV/(cm^2 s sr keV)"
    return (
        Variable(f"n{s}", "cm-3", f"{word} number density", cadence),
        Variable(f"v{s}", "km s-1", f"{word} bulk velocity, GSE", cadence, (3,)),
        Variable(f"p{s}", "nPa", f"{word} pressure tensor, GSE", cadence, (3, 3)),
        Variable(f"n{s}_bg", "cm-3", f"{word} background density", cadence, (), False),
        Variable(f"p{s}_bg", "nPa", f"{word} background pressure", cadence, (), False),
        Variable(f"q{s}", "mW m-2", f"{word} heat flux, GSE", cadence, (3,), False),
        Variable(f"flags_{s}", "1", f"{word} error flags", cadence, (), False),
        Variable(f"energy_{s}", "eV", f"{word} energies of the spectra", cadence, (32,), False),
        *(
            Variable(
                f"spectrum_{s}_{p}", flux, f"{word} {p} energy spectrum", cadence, (32,), False
            )
            for p in spectra
        ),
    )


INPUTS = (
    Variable("b", "nT", "magnetic field, GSE (FGM)", 1 / 128, (3,)),
    Variable("e", "mV m-1", "burst electric field, GSE (EDP)", 1 / 8192, (3,)),
    Variable("e_fast", "mV m-1", "fast electric field, GSE (EDP)", 1 / 32, (3,), False),
    Variable("quality_e", "1", "quality of the burst electric field", 1 / 8192, (), False),
    *_moments("i", "ion", 0.15),
    *_moments("e", "electron", 0.03),
    Variable("truth", "1", "true region, in simulated scenes", 0.03, (), False),
)


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on.

    Attributes:
        kind: ``waters2025`` is the published RNN; ``context`` looks to both sides at once.
        hidden: width of a layer.
        layers: of the published RNN.
        before, after: samples of context on either side of the one that is labelled (context).
    """

    kind: Literal["context", "waters2025"] = "context"
    hidden: int = 192
    layers: int = 3
    before: int = 31
    after: int = 31


@dataclass(frozen=True)
class Options:
    """What a run may choose."""

    probe: str = option("", "spacecraft, such as 1 or 1,2,3,4; all in the inputs if not given")
    event: str = option("", "letters of the Rogers 2023 table (A,C,D or all): times, B0 and n0")
    b0: float | None = option(None, "lobe magnetic field, nT; estimated from the data if not given")
    n0: float | None = option(None, "current-sheet density, cm-3; estimated if not given")
    b0_error: float = option(0.0, "relative standard error of a given B0")
    n0_error: float = option(0.0, "relative standard error of a given n0")
    draws: int = option(8, "draws of an uncertain B0 and n0 over which probabilities are averaged")
    mode: Literal["overlap", "published"] = option(
        "overlap", "context of its own for every sample, or the authors' chunks with state reset"
    )
    context: int = option(32, "samples of context for the published network")
    timing: Literal["centre", "published"] = option(
        "centre", "stamp particle samples at their centre, or add 0.075 s to all as published"
    )
    rate: Literal["brst", "fast"] = option(
        "brst", "burst, or fast survey: derived quantities only, no labels"
    )
    abstain: float | None = option(None, "confidence below which no region is named")
    smooth: float = option(0.3, "seconds over which probabilities are averaged for the segments")
    shortest: float = option(0.15, "seconds below which a segment is left out of the table")
    keep_flagged: bool = option(False, "use particle moments that their error flags call unusable")
    legacy_csv: bool = option(False, "also write labels, probs and nndata as the original does")


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` may choose."""

    paths: int = option(40, "simulated paths to judge on, where no files are given")
    train_paths: int = option(1600, "simulated paths the baselines learn from")
    seed: int = option(900_000, "seed of the first; training uses seeds below it")
    seconds: float = option(60.0, "length of each path")


@dataclass(frozen=True)
class Scene:
    """What ``simulate`` may choose besides seed and length."""

    probes: str = option("1", "spacecraft that fly through, such as 1,2,3,4")
    b0: float = option(0.0, "lobe magnetic field, nT; drawn if 0")
    n0: float = option(0.0, "current-sheet density, cm-3; drawn if 0")


EVENTS = (
    Column("probe", "count", "1", "MMS probe"),
    Column("region", "count", "1", "number of the region"),
    Column("label", "text", "", "name of the region"),
    Column("start", "time", "UTC", "first instant in the region"),
    Column("stop", "time", "UTC", "last instant in the region"),
    Column("duration_s", "number", "s", "time in the region"),
    Column("confidence", "number", "1", "mean probability of the region"),
    Column("agreement", "number", "1", "share of the other probes in the same region"),
)

task = Task(
    name="reconnection",
    summary="MMS burst intervals -> regions of a reconnection site, their energy budget",
    inputs=INPUTS,
    targets=("region", "doubt"),
    recipe=Recipe,
    options=Options,
    evaluation=Evaluation,
    events=EVENTS,
    open=late(f"{HERE}.inputs:open_files"),
    reach=late(f"{HERE}.inputs:reach"),
    prepare=late(f"{HERE}.prepare:prepare"),
    network=late(f"{HERE}.network:build"),
    loss=late(f"{HERE}.network:loss"),
    predict=late(f"{HERE}.network:predict"),
    decode=late(f"{HERE}.decode:decode"),
    plot=late(f"{HERE}.plot:plot"),
    simulate=late(f"{HERE}.simulate:simulate"),
    export=late(f"{HERE}.simulate:export"),
    training=late(f"{HERE}.judge:training"),
    plan=late(f"{HERE}.judge:plan"),
    judge=late(f"{HERE}.judge:judge"),
    metrics={
        "macro_f1": Metric(late(f"{HERE}.judge:macro_f1")),
        "accuracy": Metric(late(f"{HERE}.judge:accuracy")),
        "brier": Metric(late(f"{HERE}.judge:brier"), "less"),
        "calibration_error": Metric(late(f"{METRICS}:calibration_error"), "less"),
        "mean_confidence": Metric(late(f"{HERE}.judge:mean_confidence")),
        "abstained": Metric(late(f"{HERE}.judge:abstained"), "less"),
        "accuracy_when_named": Metric(late(f"{HERE}.judge:accuracy_when_named")),
    },
    primary=("macro_f1",),
    baselines={
        "majority": Baseline("trivial", late(f"{HERE}.baselines:majority")),
        "where-in-interval": Baseline("metadata", late(f"{HERE}.baselines:where_in_interval")),
        "nearest-centroid": Baseline("classical", late(f"{HERE}.baselines:nearest_centroid")),
        "lightgbm": Baseline("classical", late(f"{HERE}.baselines:lightgbm")),
        "waters2025": Baseline("published", late(f"{HERE}.baselines:waters2025")),
    },
    features=late(f"{HERE}.prepare:features"),
    quick={"paths": 12, "train_paths": 300},
    sample=late(f"{HERE}.prepare:sample"),
    importers=late(f"{HERE}.published:read"),
    commands={
        "events": late(f"{HERE}.inputs:list_events"),
        "moments": late(f"{HERE}.moments:moments"),
    },
    demo={"hours": 0.02, "seed": 7, "probes": "1,2"},
    scene=Scene,
    hours=0.05,
)
