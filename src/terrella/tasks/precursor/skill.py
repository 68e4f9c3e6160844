"""Scores, shortcut baselines, intervals, and the one line that says whether there is skill.

A network is only credited with what it knows beyond the best shortcut: the majority, or a lookup of
station, Kp, hour, or station and month, each fitted on the training rows of the same fold. The
interval is a bootstrap over declustered earthquakes, not over windows, which are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from terrella.tasks.precursor.labels import NORMAL_AZIMUTH, NORMAL_MAGNITUDE, SECTORS
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Shortcuts: name -> columns of the table that they look up.
SHORTCUTS: dict[str, tuple[str, ...]] = {
    "majority": (),
    "station only": ("station",),
    "Kp only": ("kp_class",),
    "hour only": ("hour",),
    "station and month": ("station", "month"),
}


def confusion(truth: Ints, given: Ints, classes: int, weight: Array | None = None) -> Array:
    """(classes, classes) counts, rows the truth, columns what was given; -1 in truth left out."""
    known = truth >= 0
    w = None if weight is None else weight[known]
    flat = np.bincount(truth[known] * classes + given[known], w, classes * classes)
    return flat.reshape(classes, classes).astype(np.float64)


def accuracy(table: Array) -> float:
    """Share on the diagonal of a confusion table; NaN where empty."""
    return float(np.trace(table) / table.sum()) if table.sum() else float("nan")


def f1(table: Array) -> float:
    """Mean F1 over the classes that occur in the truth."""
    hit = np.diag(table)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = 2 * hit / (table.sum(0) + table.sum(1))
    there = table.sum(1) > 0
    return float(np.nan_to_num(each[there]).mean()) if there.any() else float("nan")


def mcc(table: Array) -> float:
    """Matthews correlation of several classes (Gorodkin 2004); 0 where it is not defined."""
    total = table.sum()
    given, truth = table.sum(0), table.sum(1)
    above = np.trace(table) * total - given @ truth
    below = np.sqrt((total**2 - given @ given) * (total**2 - truth @ truth))
    return float(above / below) if below > 0 else 0.0


def circular_error(bearing: Array, given: Ints) -> Array:
    """(n,) degrees between the bearing and the middle of the sector given; NaN for Normal."""
    middle = np.array([np.nan if n == "Normal" else 45.0 * SECTORS.index(n) for n in AZIMUTH])
    return np.abs((middle[given] - bearing + 180.0) % 360.0 - 180.0)


def sector_only(logits: Array) -> Ints:
    """(n,) the most probable azimuth class, Normal not allowed."""
    allowed = logits.copy()
    allowed[:, NORMAL_AZIMUTH] = -np.inf
    return np.asarray(allowed.argmax(1), np.int64)


def lookup(
    train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str], target: str, classes: int
) -> Array:
    """A shortcut: class frequencies of the training rows with the same ``columns``.

    Args:
        train: rows with ``columns`` and ``target`` (class numbers).
        test: rows with ``columns``.
        columns: what is looked up; none: the overall frequencies.
        target: column of class numbers, -1 left out.
        classes: how many.

    Returns:
        (rows of test, classes) probabilities; where nothing was seen, the overall frequencies.
    """
    known = train[train[target] >= 0]
    overall = np.bincount(known[target], minlength=classes) + 1e-9
    base = overall / overall.sum()
    out = np.tile(base, (len(test), 1))
    if not columns or known.empty:
        return out
    # One virtual row of the overall frequencies keeps a rare key from being certain.
    for key, group in known.groupby(list(columns)):
        count = np.bincount(group[target], minlength=classes) + base
        same = (test[list(columns)] == np.array(key, dtype=object)).all(axis=1).to_numpy()
        out[same] = count / count.sum()
    return out


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    groups: Ints, statistic: Callable[[Array], float], rounds: int = 500, seed: int = 42
) -> Interval:
    """95 % interval of a statistic of weighted rows, whole groups drawn with replacement.

    Args:
        groups: (n,) group of each row: declustered earthquake.
        statistic: from (n,) row multiplicities to the value.
        rounds: draws.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    names, inverse = np.unique(groups, return_inverse=True)
    draws = []
    for _ in range(rounds):
        count = np.bincount(random.integers(0, len(names), len(names)), minlength=len(names))
        draws.append(statistic(count[inverse].astype(np.float64)))
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(statistic(np.ones(len(groups))), float(low), float(high))


def scores(
    truth: Mapping[str, Ints], given: Mapping[str, Array], bearing: Array, weight: Array
) -> dict[str, float]:
    """All scores of one model on weighted rows.

    Args:
        truth: "magnitude", "azimuth" (n,) class numbers.
        given: "magnitude" (n, 4), "azimuth" (n, 9) probabilities or logits.
        bearing: (n,) degrees to the epicentre, NaN for normals.
        weight: (n,) multiplicities.

    Returns:
        accuracy, F1, MCC of both heads, MCC of precursor against normal, accuracy of the sector
        among precursors only, and its mean circular error in degrees (90 by chance).
    """
    out: dict[str, float] = {}
    for name, classes in (("magnitude", MAGNITUDE), ("azimuth", AZIMUTH)):
        table = confusion(truth[name], given[name].argmax(1), len(classes), weight)
        out |= {f"{name} accuracy": accuracy(table), f"{name} F1": f1(table)}
        out[f"{name} MCC"] = mcc(table)
    is_normal = np.where(truth["magnitude"] < 0, -1, truth["magnitude"] == NORMAL_MAGNITUDE)
    said = given["magnitude"].argmax(1) == NORMAL_MAGNITUDE
    out["precursor MCC"] = mcc(confusion(is_normal, said.astype(np.int64), 2, weight))
    ahead = (truth["azimuth"] >= 0) & (truth["azimuth"] != NORMAL_AZIMUTH) & np.isfinite(bearing)
    w = weight[ahead]
    sectors = sector_only(given["azimuth"][ahead])
    total = w.sum()
    hit = (sectors == truth["azimuth"][ahead]).astype(np.float64)
    error = circular_error(bearing[ahead], sectors)
    out["precursor-only azimuth accuracy"] = float(w @ hit / total) if total else float("nan")
    out["circular error"] = float(w @ error / total) if total else float("nan")
    return out


@dataclass(frozen=True)
class Certificate:
    """What a model was shown to know, and on what.

    Attributes:
        skill: whether the interval of the gain over the best shortcut lies above 0 and, where label
            shuffles were made, at most 5 % of them did as well.
        metric: what was compared.
        network: the network's value.
        baseline: name of the best shortcut.
        gain: network minus best shortcut, with interval.
        null_p: share of label shuffles that did as well, NaN if not run.
        data: what it was measured on, and how it was split.
    """

    skill: bool
    metric: str
    network: float
    baseline: str
    gain: Interval
    null_p: float
    data: str

    @property
    def line(self) -> str:
        """The skill line of every product."""
        null = "" if np.isnan(self.null_p) else f", label-shuffle p {self.null_p:.3f}"
        if self.skill:
            return (
                f"skill: {self.metric} {self.gain} beyond {self.baseline} on {self.data}"
                f" (network {self.network:.3f}{null})"
            )
        return (
            f"no skill beyond {self.baseline} shown on {self.data} "
            f"({self.metric} gain {self.gain}{null})"
        )


#: The line of weights without a certificate.
UNKNOWN = "no skill beyond any baseline shown: these weights carry no skill certificate"


def certify(
    truth: Mapping[str, Ints],
    network: Mapping[str, Array],
    baselines: Mapping[str, Mapping[str, Array]],
    groups: Ints,
    data: str,
    metric: str = "precursor MCC",
    nulls: Sequence[float] = (),
    bearing: Array | None = None,
    rounds: int = 500,
    seed: int = 42,
) -> Certificate:
    """Measure the gain over the best shortcut and decide.

    The best shortcut is chosen on the same rows, in the network's disfavour, and once more in each
    draw of the bootstrap.

    Args:
        truth: class numbers of both heads.
        network: its probabilities.
        baselines: name -> probabilities on the same rows.
        groups: (n,) declustered earthquake of each row.
        data: words for the data and split.
        metric: one of :func:`scores`.
        nulls: the metric under label shuffles or catalogue shifts.
        bearing: (n,) degrees; NaN for normals.
        rounds: bootstrap draws.
        seed: of the draws.
    """
    where = np.full(len(groups), np.nan) if bearing is None else bearing
    sign = -1.0 if metric == "circular error" else 1.0
    # A constant guess has an MCC of 0; joined over folds whose majorities differ it falls below.
    floor = 0.0 if metric.endswith("MCC") else -np.inf

    def value(given: Mapping[str, Array], weight: Array) -> float:
        return sign * scores(truth, given, where, weight)[metric]

    ones = np.ones(len(groups))
    best = max(baselines, key=lambda name: value(baselines[name], ones))

    def gain(weight: Array) -> float:
        return value(network, weight) - max(floor, *(value(b, weight) for b in baselines.values()))

    interval = bootstrap(groups, gain, rounds, seed)
    own = value(network, ones)
    p = (1 + sum(sign * n >= own for n in nulls)) / (1 + len(nulls)) if nulls else float("nan")
    beaten = not nulls or p <= 0.05
    return Certificate(
        bool(interval.low > 0 and beaten), metric, sign * own, best, interval, p, data
    )
