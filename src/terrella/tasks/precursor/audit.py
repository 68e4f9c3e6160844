"""Label audit: what is wrong with a list of precursor labels, before anything is trained on it.

Each check is one function from the labels (and, where needed, catalogue and stations) to findings;
none needs a magnetometer. A finding says what, where, how many, and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from terrella.tasks.precursor.catalogue import (
    _columns,
    azimuth_deg,
    distance_km,
    dobrovolsky_km,
)
from terrella.tasks.precursor.labels import magnitude_class, sector
from terrella.tasks.precursor.task import MAGNITUDE

TURN = 2 * np.pi

_ALIASES = {
    "station": ("stasiun", "station", "station_code"),
    "date": ("tanggal", "date", "day", "end", "time"),
    "hour": ("jam", "hour"),
    "azimuth": ("azm", "azimuth", "bearing"),
    "magnitude": ("mag", "magnitude"),
    "kind": ("kind", "class"),
}


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        check: name of the check.
        level: "error" (labels are wrong), "warning" (a test on them can mislead) or "note".
        rows: 0-based rows concerned.
        message: one line: what, where, what to do.
    """

    check: str
    level: str
    rows: tuple[int, ...]
    message: str


def read_labels(path: str | Path) -> pd.DataFrame:
    """A label list from CSV: station, date, hour, azimuth (deg), magnitude; NaN where blank.

    Normals are rows of ``kind`` "normal", or with no magnitude.
    """
    table = _columns(Path(path), _ALIASES, ["station", "date"])
    for name in ("hour", "azimuth", "magnitude"):
        column: Any = table.get(name, np.nan)
        table[name] = pd.to_numeric(pd.Series(column, index=table.index), errors="coerce")
    table["when"] = pd.to_datetime(table["date"], errors="coerce", format="mixed")
    table["station"] = table["station"].astype("string").str.strip().str.upper()
    return table


def labels_of(table: pd.DataFrame) -> pd.DataFrame:
    """A set's own labels as a label list, for ``confounding``.

    Args:
        table: rows with station, kind, magnitude (class number), bearing (degrees).
    """
    # Middle of each class: the audit looks at classes, and the set has no magnitudes.
    middle = {"Large": 6.5, "Medium": 5.5, "Moderate": 4.5, "Normal": np.nan}
    magnitude = [middle[MAGNITUDE[k]] if k >= 0 else np.nan for k in table["magnitude"]]
    ahead = table["kind"].to_numpy() == "precursor"
    return pd.DataFrame(
        {
            "station": table["station"].astype(str), "kind": table["kind"],
            "magnitude": np.where(ahead, magnitude, np.nan),
            "azimuth": np.where(ahead, table["bearing"], np.nan),
        }
    )  # fmt: skip


def _rows(mask: pd.Series | NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(k) for k in np.flatnonzero(np.asarray(mask, bool)))


def angle_units(labels: pd.DataFrame) -> list[Finding]:
    """Degrees mixed with radians: far more azimuths in 0 .. 2 pi than a compass would give.

    A year (and a station within it) is named where the share of azimuths up to 2 pi has a binomial
    probability below 1e-6 under uniform degrees, and below 1e-6 also under twice that share.
    """
    out = []
    azimuth = labels["azimuth"]
    small = (azimuth > 0) & (azimuth <= TURN)
    year = labels["when"].dt.year
    for value in sorted(year.dropna().unique()):
        here = (year == value) & azimuth.notna()
        n, k = int(here.sum()), int((here & small).sum())
        chance = stats.binom.sf(k - 1, n, 2 * TURN / 360) if k else 1.0
        if chance < 1e-6:
            rest = int((here & ~small).sum())
            mixed = f"mixed with {rest} in degrees" if rest else "all of them"
            out.append(
                Finding(
                    "angle units", "error", _rows(here & small),
                    f"{int(value)}: {k} of {n} azimuths lie in 0..6.28 "
                    f"({n * TURN / 360:.1f} expected in degrees): radians, {mixed}; "
                    "convert them with 180/pi before use",
                )
            )  # fmt: skip
    return out


def ranges(labels: pd.DataFrame) -> list[Finding]:
    """Azimuths outside 0 .. 360, magnitudes outside -1 .. 10, blank fields."""
    out = []
    azimuth, magnitude = labels["azimuth"], labels["magnitude"]
    wrong = {
        "azimuth": (azimuth < 0) | (azimuth > 360),
        "magnitude": (magnitude < -1) | (magnitude > 10),
    }
    for name, mask in wrong.items():
        if mask.any():
            text = f"{int(mask.sum())} labels have an impossible {name}"
            out.append(Finding("ranges", "error", _rows(mask), text))
    normal = labels["magnitude"].isna() & labels["azimuth"].isna()
    if "kind" in labels:
        normal |= labels["kind"].astype(str).str.lower() == "normal"
    for name in ("station", "azimuth", "magnitude"):
        blank = labels[name].isna() & ~normal
        if blank.any():
            text = f"{int(blank.sum())} labels have no {name}; first is row {blank.argmax() + 1}"
            out.append(Finding("blanks", "error", _rows(blank), text))
    return out


def times(labels: pd.DataFrame) -> list[Finding]:
    """Dates that are none, hours outside 0 .. 23, times in the future."""
    out = []
    bad = labels["when"].isna()
    if bad.any():
        text = f"{int(bad.sum())} dates cannot be read; first is {labels['date'][bad].iloc[0]!r}"
        out.append(Finding("times", "error", _rows(bad), text))
    hour = labels["hour"]
    odd = hour.notna() & ((hour < 0) | (hour > 23) | (hour % 1 != 0))
    if odd.any():
        values = ", ".join(f"{v:g}" for v in sorted(hour[odd].unique())[:5])
        zero = "" if (hour == 0).any() else "; no hour is 0, so hours may count from 1"
        text = f"{int(odd.sum())} hours outside 0..23 ({values}){zero}; say which hour 24 is"
        out.append(Finding("times", "error", _rows(odd), text))
    future = labels["when"] > pd.Timestamp.now()
    if future.any():
        text = f"{int(future.sum())} labels lie in the future"
        out.append(Finding("times", "error", _rows(future), text))
    return out


def doubles(labels: pd.DataFrame) -> list[Finding]:
    """The same hour of a station twice, and the same hour labelled at several stations."""
    out = []
    key = ["station", "date", "hour"]
    again = labels.duplicated(key, keep=False) & labels["station"].notna()
    if again.any():
        whole = labels.duplicated([*key, "azimuth", "magnitude"], keep=False) & again
        extra = int(labels.duplicated(key).sum())
        text = (
            f"{int(again.sum())} labels share station, date and hour with another "
            f"({extra} too many; {int(whole.sum())} are equal in all fields, the rest contradict)"
        )
        out.append(Finding("doubled events", "error", _rows(again), text))
    shared = labels.groupby(["date", "hour", "magnitude"])["station"].transform("nunique") > 1
    if shared.any():
        groups = labels[shared].groupby(["date", "hour", "magnitude"]).ngroups
        text = (
            f"{int(shared.sum())} labels of {groups} date-hour-magnitudes stand at two stations or "
            "more: one earthquake seen twice, keep it on one side of every split"
        )
        out.append(Finding("doubled events", "warning", _rows(shared), text))
    return out


def confounding(labels: pd.DataFrame) -> list[Finding]:
    """How well the station alone tells the class; a class that one station supplies alone."""
    out = []
    normal = labels["magnitude"].isna() & labels["azimuth"].isna()
    if "kind" in labels:
        normal |= labels["kind"].astype(str).str.lower() == "normal"
    magnitude = np.array(MAGNITUDE)[magnitude_class(labels["magnitude"].fillna(0.0))]
    heads = {"magnitude": np.where(normal, "Normal", magnitude)}
    known = labels["azimuth"].notna() & ((labels["azimuth"] > TURN) | (labels["azimuth"] == 0))
    heads["azimuth"] = np.where(normal, "Normal", sector(labels["azimuth"].fillna(0.0)))
    usable = {"magnitude": normal | labels["magnitude"].notna(), "azimuth": normal | known}
    for name, classes in heads.items():
        use = usable[name] & labels["station"].notna()
        table = pd.crosstab(labels["station"][use], pd.Series(classes, labels.index)[use])
        if table.empty or table.shape[1] == 1:
            only = table.columns[0] if len(table.columns) else "none"
            text = f"every label is of one {name} class ({only}): no test of skill is possible"
            out.append(Finding("confounding", "warning", (), text))
            continue
        out += _station_findings(table, name)
    if not normal.any():
        text = "the list has no normals: where they come from decides what a test can show"
        out.append(Finding("confounding", "warning", (), text))
    return out


def _station_findings(table: pd.DataFrame, name: str) -> list[Finding]:
    total = float(table.to_numpy().sum())
    lookup = table.max(axis=1).sum() / total
    majority = table.sum().max() / total
    out = []
    p = 1.0
    v = 0.0
    if min(table.shape) > 1:
        chi2, p, _, _ = stats.chi2_contingency(table)
        v = float(np.sqrt(chi2 / (total * (min(table.shape) - 1))))
    if p < 1e-3:
        out.append(
            Finding(
                "confounding", "warning", (),
                f"the station alone gives {100 * lookup:.1f} % {name} accuracy (majority "
                f"{100 * majority:.1f} %; Cramer's V {v:.2f}, p {p:.1e}): leave stations out, or "
                "match classes within each",
            )
        )  # fmt: skip
    for label in table.columns:
        share = table[label] / max(table[label].sum(), 1)
        source = str(share.idxmax())
        one: Any = table.loc[source]
        own = float(one[label]) / max(float(one.sum()), 1.0)
        if share.max() >= 0.8 and own >= 0.5 and len(table) > 2 and table[label].sum() >= 5:
            out.append(
                Finding(
                    "confounding", "error", (),
                    f"station {source} supplies {100 * share.max():.0f} % of class {label}, and "
                    f"{100 * own:.0f} % of its labels are {label}: the station is the answer "
                    f"(a shortcut) for {name}",
                )
            )  # fmt: skip
    return out


def _named(table: pd.DataFrame) -> Any:
    """Rows with their columns as attributes; pandas leaves their types open."""
    return table.itertuples()


def _errors(
    labels: pd.DataFrame, quakes: pd.DataFrame, places: dict[str, tuple[float, float]],
    rows: Sequence[int], reading: Callable[[float], float], days: float,
) -> NDArray[np.float64]:  # fmt: skip
    """(rows,) least angle (deg) between a label and an earthquake it may mean; NaN if none.

    An earthquake may be meant when its magnitude agrees within 0.3, it follows within ``days``, and
    the station lies in its preparation zone.
    """
    time = quakes["time"].to_numpy("datetime64[ns]")
    out = np.full(len(rows), np.nan)
    for k, row in enumerate(rows):
        label: Any = labels.loc[row]
        start = (label["when"] + pd.Timedelta(hours=float(label["hour"] or 0))).to_datetime64()
        low, high = np.searchsorted(time, [start, start + np.timedelta64(round(days * 24), "h")])
        near = quakes.iloc[low:high]
        near = near[(near["magnitude"] - label["magnitude"]).abs() <= 0.3]
        if near.empty:
            continue
        lat, lon = places[str(label["station"])]
        place = (lat, lon, near["latitude"].to_numpy(), near["longitude"].to_numpy())
        zone = distance_km(*place) <= np.maximum(dobrovolsky_km(near["magnitude"]), 300.0)
        if zone.any():
            turn = (azimuth_deg(*place)[zone] - reading(float(label["azimuth"])) + 180) % 360 - 180
            out[k] = np.abs(turn).min()
    return out


def geometry(
    labels: pd.DataFrame, quakes: pd.DataFrame, stations: pd.DataFrame, days: float = 30.0
) -> list[Finding]:
    """Azimuths against the great circles to the catalogue's earthquakes, in degrees and radians.

    Reported by year: the share of labels with an earthquake within 10 degrees, read as degrees and
    as radians, and the share by chance (labels turned by 90, 180 and 270 degrees).
    """
    places = {str(r.station): (float(r.latitude), float(r.longitude)) for r in _named(stations)}
    out = []
    strange = ~labels["station"].isin(list(places)) & labels["station"].notna()
    if strange.any():
        names = ", ".join(sorted(labels["station"][strange].unique()))
        text = f"{int(strange.sum())} labels at stations not in the station list ({names})"
        out.append(Finding("geometry", "warning", _rows(strange), text))
    fields = labels[["when", "hour", "azimuth", "magnitude", "station"]].notna().all(axis=1)
    year = labels["when"].dt.year
    span = quakes["time"].dt.year.unique()
    for value in sorted(year[fields].unique()):
        here = fields & ~strange & (year == value)
        if value not in span:
            text = (
                f"{int(value)}: the catalogue has no earthquake of this year, "
                f"{int(here.sum())} labels unchecked"
            )
            out.append(Finding("geometry", "note", _rows(here), text))
            continue
        for words, part in (
            ("up to 6.28", here & (labels["azimuth"] <= TURN)),
            ("above 6.28", here & (labels["azimuth"] > TURN)),
        ):
            if part.sum() >= 20:
                out.append(
                    _year(labels, quakes, places, _rows(part), f"{int(value)}: {words}", days)
                )
    return out


def _year(
    labels: pd.DataFrame, quakes: pd.DataFrame, places: dict[str, tuple[float, float]],
    rows: tuple[int, ...], words: str, days: float,
) -> Finding:  # fmt: skip
    def share(reading: Callable[[float], float]) -> float:
        found = _errors(labels, quakes, places, rows, reading, days)
        return float(np.mean(found[np.isfinite(found)] <= 10)) if np.isfinite(found).any() else 0.0

    degrees, radians = share(lambda a: a), share(np.rad2deg)
    by = np.rad2deg if radians > degrees else (lambda a: a)
    chance = float(np.mean([share(lambda a, t=t: by(a) + t) for t in (90, 180, 270)]))  # type: ignore[misc]
    n = len(rows)
    margin = 2 * np.sqrt(0.25 / n)
    wrong = radians > max(degrees, chance) + margin
    text = (
        f"{words}: {n} azimuths, {100 * degrees:.0f} % point within 10 deg of a fitting earthquake "
        f"read as degrees, {100 * radians:.0f} % as radians, {100 * chance:.0f} % by chance"
    )
    if wrong:
        text += ": these are radians"
    elif max(degrees, radians) < chance + margin:
        text += ": the catalogue confirms neither reading"
    return Finding("geometry", "error" if wrong else "note", rows, text)


def audit(
    labels: pd.DataFrame,
    quakes: pd.DataFrame | None = None,
    stations: pd.DataFrame | None = None,
) -> list[Finding]:
    """All checks, the worst first.

    Args:
        labels: :func:`read_labels`.
        quakes: catalogue, for the geometry.
        stations: station list, for the geometry.
    """
    found = [
        *angle_units(labels), *ranges(labels), *times(labels), *doubles(labels),
        *confounding(labels),
    ]  # fmt: skip
    if quakes is not None and stations is not None:
        found += geometry(labels, quakes, stations)
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda f: order[f.level])


def table(findings: Sequence[Finding]) -> pd.DataFrame:
    """Findings as a table: check, level, count, first row, message."""
    return pd.DataFrame(
        [(f.level, f.check, len(f.rows), (f.rows or (-1,))[0], f.message) for f in findings],
        columns=["level", "check", "count", "first_row", "message"],
    )
