"""ech: where electron cyclotron harmonic waves are, and how strong, everywhere at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from terrella.task import Baseline, Metric, Task, late, option
from terrella.types import Variable

HERE = "terrella.tasks.ech"
METRICS = "terrella.learn.metrics"
INPUTS = (
    Variable("SME", "nT", "SuperMAG auroral electrojet index, or AE in its place", 60.0),
    Variable("SYM_H", "nT", "symmetric ring-current index", 60.0),
    Variable("L", "1", "L of the places asked for"),
    Variable("MLT", "h", "magnetic local time of the places asked for"),
    Variable("MLAT", "degrees", "magnetic latitude of the places asked for"),
    Variable("occurrence", "1", "1 where a wave was seen", required=False),
    Variable("amplitude", "dB", "amplitude of the wave seen", required=False),
    Variable("probability", "1", "true probability, in simulated files", required=False),
    Variable("mean", "dB", "true mean amplitude, in simulated files", required=False),
    Variable("storm", "1", "storm a sample belongs to", required=False),
)
STATED_GRID = "L=1.5:7:0.25,MLT=0:24:1,MLAT=-20:20:5"


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on.

    Attributes:
        network: ``lean`` is ours; ``deepech`` has the published shape and names.
        encoder: how a history becomes a vector.
        width, joint, direct, dropout: sizes of the lean network.
        share: one set of encoders for both stages of the lean network.
        amplitude_centre, amplitude_scale: dB, units in which the lean network learns amplitude.
    """

    network: Literal["lean", "deepech"] = "lean"
    encoder: Literal["attention-lstm", "lstm", "transformer"] = "attention-lstm"
    width: int = 32
    joint: int = 128
    direct: int = 0
    dropout: float = 0.0
    share: bool = True
    amplitude_centre: float = 20.0
    amplitude_scale: float = 7.0


@dataclass(frozen=True)
class Options:
    """What a run may choose."""

    grid: str = option("", "map to draw, as L=1.5:7:0.1,MLT=0:24:0.5,MLAT=-20:20:2")
    orbit: str = option("", "orbit file (CSV or CDF: time with L, MLT, MLAT or X, Y, Z) to follow")
    at: str = option("", "one instant instead of a range, as 2013-03-17T06:00")
    every: str = option("10min", "step between the maps of a range; thins an orbit if larger")
    threshold: float = option(0.5, "probability from which a wave is said to occur")
    amplitude_everywhere: bool = option(False, "give the amplitude where no wave is expected, too")
    bridge: float = option(15.0, "longest gap in an index, minutes, that is bridged and flagged")
    hourly: bool = option(False, "accept hourly means for the indices, at a loss, flagged")
    frame: str = option("", "frame of X, Y, Z in the orbit file: GEO, GSM, GSE, SM or MAG")
    columns: str = option("", "names of the value columns of an index list, as in SYM_H,AE")
    origin: str = option("", "instant that a 'minute' column of an index file counts from")


@dataclass(frozen=True)
class Survey:
    """Settings of a simulated survey."""

    every: int = option(10, "minutes between its samples")


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` may choose."""

    days: int = option(365, "simulated days to judge on, where no files are given")
    seed: int = option(9000, "seed of their storms; training uses seeds below 9000")
    learn: int = option(365, "simulated days that baselines, or a recipe, learn from")
    refit: bool = option(False, "train the recipe anew on those days instead of judging weights")


def _scored(name: str, **read: Any) -> Metric:
    return Metric(late(f"{HERE}.scores:{name}"), **read)


def _baseline(kind: Any, name: str) -> Baseline:
    return Baseline(kind, late(f"{HERE}.baselines:{name}"))


task = Task(
    name="ech",
    summary="SME and SYM-H history -> global maps of ECH wave occurrence and amplitude",
    inputs=INPUTS,
    targets=("occurrence", "amplitude"),
    recipe=Recipe,
    options=Options,
    evaluation=Evaluation,
    open=late(f"{HERE}.inputs:open_files"),
    reach=late(f"{HERE}.prepare:reach"),
    prepare=late(f"{HERE}.prepare:prepare"),
    network=late(f"{HERE}.model:build"),
    loss=late(f"{HERE}.model:loss"),
    predict=late(f"{HERE}.predict:predict"),
    decode=late(f"{HERE}.decode:decode"),
    plot=late(f"{HERE}.plot:plot"),
    simulate=late(f"{HERE}.simulate:simulate"),
    export=late(f"{HERE}.inputs:export"),
    training=late(f"{HERE}.judge:training"),
    plan=late(f"{HERE}.judge:plan"),
    judge=late(f"{HERE}.judge:judge"),
    metrics={
        "accuracy": _scored("accuracy"),
        "brier": _scored("brier", better="less"),
        "brier_skill": _scored("brier_skill", floor=0.0),
        "roc_auc": _scored("roc_auc", floor=0.5),
        "calibration_error": Metric(late(f"{METRICS}:calibration_error"), "less"),
        "r2": _scored("r2", floor=0.0),
        "rmse": _scored("rmse", better="less", units="dB"),
        "coverage_80": _scored("coverage_80"),
        "accuracy_of_best": _scored("accuracy_of_best"),
        "brier_skill_of_best": _scored("brier_skill_of_best"),
        "r2_of_best": _scored("r2_of_best"),
    },
    # The Brier skill is proper: it rewards sharp probabilities and punishes wrong ones, where the
    # area under the ROC curve would take any monotone distortion of them.
    primary=("brier_skill", "r2"),
    baselines={
        "rate": _baseline("trivial", "rate"),
        "climatology": _baseline("metadata", "climatology"),
        "ridge": _baseline("classical", "ridge"),
        "lightgbm": _baseline("classical", "lightgbm"),
        "deepech": _baseline("published", "deepech"),
    },
    features=late(f"{HERE}.features:summary"),
    attainable=late(f"{HERE}.judge:attainable"),
    quick={"days": 120, "learn": 90},
    importers=late(f"{HERE}.importer:read"),
    commands={
        "sample": late(f"{HERE}.commands:sample"),
        "film": late(f"{HERE}.film:film"),
        "conjunctions": late(f"{HERE}.conjunctions:conjunctions"),
        "ablation": late(f"{HERE}.ablation:ablation"),
    },
    scene=Survey,
    hours=72.0,
    demo={"hours": 72.0, "seed": 3},
)  # fmt: skip
