"""precursor: 6-h magnetometer spectrograms -> magnitude and azimuth class, with their skill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from terrella.task import Baseline, Metric, Task, late, option
from terrella.types import Column, Variable

HERE = "terrella.tasks.precursor"
METRICS = "terrella.learn.metrics"
MAGNITUDE = ("Large", "Medium", "Moderate", "Normal")
AZIMUTH = ("E", "N", "NE", "NW", "Normal", "S", "SE", "SW", "W")
INPUTS = (
    Variable("H", "nT", "horizontal intensity", 1.0),
    Variable("D", "nT", "declination times H: the magnetic-east component", 1.0),
    Variable("Z", "nT", "vertical component, positive down", 1.0),
    Variable("flag", "1", "sample flags, see quality.FLAGS", 1.0, required=False),
    Variable("quake", "1", "earthquakes whose zone holds the station", None, (5,), required=False),
    Variable("kp", "1", "Kp of the last 3 hours", 10800.0, required=False),
    Variable("image", "1", "spectrogram images in place of samples", None, required=False),
)


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on.

    Attributes:
        backbone: ``tiny``, ``small``, ``base`` are ConvNeXt as published, ``efficientnet_b0`` the
            published best, ``light`` a ConvNeXt small enough for two cores.
        hidden: units in the hidden layer of each head.
        drop: stochastic depth.
        scaling: ``data`` fits mean and deviation to the training images, ``imagenet`` is published,
            ``none`` leaves images in 0 .. 1.
        augment: ``physical`` (time shift, gain, noise), ``published`` (flips, rotations ...).
        focus: exponent of the focal loss; 0 is cross-entropy.
        class_weights: inverse-frequency class weights.
        window, cadence: seconds of an image and between samples.
        cutoff: Hz, high-pass.
        segment, hop: samples in a spectrum, and from one to the next.
        size: pixels on each side.
        low, high: dB re 1 nT^2/Hz drawn as 0 and 1.
    """

    backbone: Literal["light", "micro", "tiny", "small", "base", "efficientnet_b0"] = "light"
    hidden: int = 512
    drop: float = 0.1
    scaling: Literal["data", "imagenet", "none"] = "data"
    augment: Literal["physical", "published", "none"] = "physical"
    focus: float = 0.0
    class_weights: bool = True
    window: float = 21600.0
    cadence: float = 1.0
    cutoff: float = 0.001
    segment: int = 256
    hop: int = 128
    size: int = 224
    low: float = -60.0
    high: float = 40.0


@dataclass(frozen=True)
class Options:
    """What a run may choose."""

    overlap: float = option(0.0, "share of a window that the next one repeats, 0 to below 1")
    bridge: float = option(
        10.0, "seconds; longer gaps are masked, shorter ones bridged and flagged"
    )
    missing: float = option(0.25, "share of spectra a window may lack before it is dropped")
    explain: Literal["none", "magnitude", "azimuth"] = option(
        "magnitude", "head whose Grad-CAM is drawn over the spectrograms"
    )
    format: str = option("", "read all files as iaga2002, frg604rc, miniseed, imagcdf or csv")
    columns: str = option("", "CSV columns: time=...,H=...,D=...,Z=...[,station=...]")
    units: str = option("", "CSV units where not nT: D=arcmin")
    scale: float = option(0.0, "MiniSEED with integer samples: nT per count")
    station: str = option("", "station code for files that name none")
    smallest: float = option(5.0, "labels: earthquakes below this magnitude count for nothing")
    lead: float = option(14.0, "labels: days before an earthquake that are its precursor's")
    quiet: float = option(7.0, "labels: days after an earthquake that are not normal")
    radius: float = option(1.0, "labels: the preparation radius is multiplied by this")
    normals: float = option(1.0, "labels: matched normal windows for each precursor window")


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` may choose."""

    split: Literal["loeo", "loso", "blocks", "all", "random"] = option(
        "loeo", "leave out earthquakes, stations, time blocks, all three, or nothing (random)"
    )
    folds: int = option(5, "folds (loso: as many as there are stations)")
    embargo: float = option(7.0, "days around test rows that training leaves out (blocks, all)")
    refit: bool = option(True, "train anew on every fold (files); otherwise judge the weights")
    shifts: int = option(0, "networks trained on a catalogue shifted in time, as a null (files)")
    strength: float = option(
        2.0, "injected signal of the simulated world, where no files are given"
    )
    quakes: int = option(90, "earthquakes of the simulated world")
    seed: int = option(9000, "seed of the simulated world; training uses seeds below 9000")


EVENTS = (
    Column("start", "time", "UTC", "start of the window"),
    Column("stop", "time", "UTC", "end of the window"),
    Column("station", "text", "", "station", group=True),
    Column("label", "text", "", "anomaly, or precursor where skill was shown"),
    Column("magnitude", "text", "", "class of magnitude"),
    Column("magnitude_probability", "number", "1", "probability of that class"),
    Column("azimuth", "text", "", "class of azimuth"),
    Column("azimuth_probability", "number", "1", "probability of that class"),
    Column("flags", "text", "", "flags, joined by |"),
    Column("file", "text", "", "image, where the input is images"),
    Column("skill", "text", "", "what is known of the skill of these weights"),
)

task = Task(
    name="precursor",
    summary="magnetometer -> spectrogram classes before earthquakes, with their measured skill",
    inputs=INPUTS,
    targets=("magnitude", "azimuth"),
    recipe=Recipe,
    options=Options,
    evaluation=Evaluation,
    events=EVENTS,
    open=late(f"{HERE}.stations:open_files"),
    reach=late(f"{HERE}.prepare:reach"),
    prepare=late(f"{HERE}.prepare:prepare"),
    network=late(f"{HERE}.network:build"),
    loss=late(f"{HERE}.network:loss"),
    decode=late(f"{HERE}.decode:decode"),
    plot=late(f"{HERE}.plot:plot"),
    simulate=late(f"{HERE}.simulate:simulate"),
    export=late(f"{HERE}.simulate:export"),
    training=late(f"{HERE}.rows:training"),
    plan=late(f"{HERE}.judge:plan"),
    judge=late(f"{HERE}.judge:judge"),
    metrics={
        "precursor_mcc": Metric(late(f"{HERE}.judge:precursor_mcc"), floor=0.0),
        **{f"{head}_{name}": Metric(late(f"{HERE}.judge:{head}_{name}"))
           for head in ("magnitude", "azimuth") for name in ("accuracy", "f1", "mcc")},
        "sector_accuracy": Metric(late(f"{HERE}.judge:sector_accuracy")),
        "circular_error": Metric(late(f"{HERE}.judge:circular_error"), "less", units="degrees"),
        "calibration_error": Metric(late(f"{METRICS}:calibration_error"), "less"),
    },
    primary=("precursor_mcc",),
    baselines={
        "majority": Baseline("trivial", late(f"{HERE}.baselines:majority")),
        "station-only": Baseline("metadata", late(f"{HERE}.baselines:station_only")),
        "kp-only": Baseline("metadata", late(f"{HERE}.baselines:kp_only")),
        "hour-only": Baseline("metadata", late(f"{HERE}.baselines:hour_only")),
        "station-month": Baseline("metadata", late(f"{HERE}.baselines:station_month")),
        "lightgbm": Baseline("classical", late(f"{HERE}.baselines:lightgbm")),
    },
    features=late(f"{HERE}.features:features"),
    figures=late(f"{HERE}.confusion:figures"),
    quick={"quakes": 30},
    predict=late(f"{HERE}.prepare:predict"),
    sample=late(f"{HERE}.prepare:sample"),
    importers=late(f"{HERE}.published:read"),
    commands={
        "spectrograms": late(f"{HERE}.commands:spectrograms"),
        "dataset": late(f"{HERE}.commands:dataset"),
        "audit-labels": late(f"{HERE}.commands:audit_labels"),
        "watch": late(f"{HERE}.commands:watch"),
        "world": late(f"{HERE}.commands:world"),
        "worlds": late(f"{HERE}.commands:worlds"),
    },
    demo={"hours": 96.0, "seed": 5},
)  # fmt: skip
