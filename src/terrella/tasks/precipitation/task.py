"""precipitation: every 2-s sample of a POES/MetOp pass is nothing, REP or CSS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from terrella.task import Baseline, Metric, Task, late, option
from terrella.types import Column, Variable

HERE = "terrella.tasks.precipitation"
METRICS = "terrella.learn.metrics"
CLASSES = ("none", "REP", "CSS")
KEV = (40, 130, 287, 612)
FLUX = tuple(
    Variable(f"e{e}_{a}", "cm-2 s-1 sr-1", f"electrons >{kev} keV, {a}-degree telescope", 2.0)
    for e, kev in enumerate(KEV, 1)
    for a in (0, 90)
)
INPUTS = (
    *FLUX,
    Variable("L", "1", "McIlwain L, IGRF", 2.0),
    Variable("MLT", "h", "magnetic local time", 2.0),
    Variable("lat", "degrees_north", "geodetic latitude", 2.0),
    Variable("lon", "degrees_east", "longitude", 2.0),
    Variable("ifc", "1", "in-flight calibration, 1 while on", 2.0, required=False),
    Variable("truth", "1", "true class, in simulated files", 2.0, required=False),
)


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on.

    Attributes:
        network: ``bilstm`` is the published shape; ``conv`` is a dilated convolution over the pass.
        features: ``published`` sees fills as the authors' rule makes them; ``counts`` takes them as
            missing, with a channel that says so.
        window: samples a row sees; it speaks for the middle one.
        hidden, dense, activation, dropout: sizes and cell of the network.
    """

    network: Literal["bilstm", "conv"] = "bilstm"
    features: Literal["published", "counts"] = "published"
    window: int = 7
    hidden: int = 64
    dense: int = 256
    activation: Literal["relu", "tanh"] = "relu"
    dropout: float = 0.5


@dataclass(frozen=True)
class Options:
    """What a run may choose."""

    postprocess: Literal["terrella", "capannolo2023", "capannolo2022"] = option(
        "terrella", "rules that turn probabilities into events; capannolo* exactly as published"
    )
    p_on: float = option(0.5, "probability an event must reach once (terrella rules)")
    p_off: float = option(0.3, "probability an event must keep (terrella rules)")
    join_s: float = option(4.0, "join events of a class this many seconds apart (terrella rules)")


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` may choose."""

    days: int = option(24, "simulated days to judge on, where no files are given")
    seed: int = option(9000, "seed of the first of them; training uses seeds below 9000")
    learn: int = option(30, "simulated days that the baselines learn from")
    tolerance: int = option(3, "samples by which a found event may miss a true one")


EVENTS = (
    Column("start", "time", "UTC", "first sample of the event"),
    Column("stop", "time", "UTC", "last sample of the event"),
    Column("label", "text", "", "class, REP or CSS"),
    Column("probability", "number", "1", "mean probability of the class over the event"),
    Column("L", "number", "1", "McIlwain L where E4_0 peaks"),
    Column("MLT", "number", "h", "magnetic local time where E4_0 peaks"),
    Column("lat", "number", "degrees_north", "geodetic latitude where E4_0 peaks"),
    Column("lon", "number", "degrees_east", "longitude where E4_0 peaks"),
    Column("satellite", "text", "", "satellite", group=True),
    Column("peak_e4_0", "number", "cm-2 s-1 sr-1", "peak of >612 keV electrons at 0 degrees"),
    Column("flags", "text", "", "quality flags, joined by |"),
    Column("start_index", "count", "1", "first sample of the event, from the file's first"),
    Column("stop_index", "count", "1", "last sample of the event, from the file's first"),
)

task = Task(
    name="precipitation",
    summary="POES/MetOp passes -> catalogue of electron precipitation events (REP, CSS)",
    inputs=INPUTS,
    targets=("class",),
    recipe=Recipe,
    options=Options,
    evaluation=Evaluation,
    events=EVENTS,
    open=late(f"{HERE}.prepare:open_files"),
    reach=late(f"{HERE}.prepare:reach"),
    prepare=late(f"{HERE}.prepare:prepare"),
    network=late(f"{HERE}.network:build"),
    loss=late(f"{HERE}.network:loss"),
    decode=late(f"{HERE}.decode:decode"),
    plot=late(f"{HERE}.plot:plot"),
    simulate=late(f"{HERE}.simulate:simulate"),
    export=late(f"{HERE}.simulate:export"),
    training=late(f"{HERE}.judge:training"),
    plan=late(f"{HERE}.judge:plan"),
    judge=late(f"{HERE}.judge:judge"),
    metrics={
        **{f"{m}_{c}": Metric(late(f"{HERE}.judge:{m}_{c}"))
           for m in ("precision", "recall", "f1") for c in ("REP", "CSS")},
        "false_alarms_per_orbit": Metric(late(f"{HERE}.judge:false_alarms"), "less"),
        "brier": Metric(late(f"{HERE}.judge:brier"), "less"),
        "calibration_error": Metric(late(f"{METRICS}:event_calibration_error"), "less"),
    },
    primary=("f1_REP", "f1_CSS"),
    baselines={
        "none": Baseline("trivial", late(f"{HERE}.baselines:none")),
        "L-MLT": Baseline("metadata", late(f"{HERE}.baselines:level_and_hour")),
        "ratio-prominence": Baseline("classical", late(f"{HERE}.rule:ratio_prominence")),
        "lightgbm": Baseline("classical", late(f"{HERE}.baselines:lightgbm")),
        "capannolo2022": Baseline("published", late(f"{HERE}.baselines:capannolo2022")),
    },
    features=late(f"{HERE}.prepare:features"),
    quick={"days": 3},
    sample=late(f"{HERE}.prepare:sample"),
    importers=late(f"{HERE}.published:read"),
    demo={"hours": 6.0, "seed": 18},
)  # fmt: skip
