"""Alarms on continuous data: Molchan's diagram against a Poisson rate, and false alarms a year.

Molchan 1991, doi:10.1016/0040-1951(91)90336-Q; area skill: Zechar & Jordan 2008,
doi:10.1111/j.1365-246X.2007.03676.x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Molchan:
    """Molchan's trajectory.

    Attributes:
        tau: (k,) share of the reference's expected earthquakes that alarms cover, 0 to 1.
        miss: (k,) share of earthquakes outside alarms, 1 to 0.
        area: area skill score: 1 perfect, 0.5 as the reference, below 0.5 worse.
        low: lower 95 % bound of the area if the reference were true.
        high: upper 95 % bound of the area if the reference were true.
        targets: earthquakes counted.
    """

    tau: Array
    miss: Array
    area: float
    low: float
    high: float
    targets: int


def expected(
    windows: pd.DataFrame, pairs: pd.DataFrame, lead: float, span: tuple[float, float] | None = None
) -> Array:
    """(n,) earthquakes expected per window by a Poisson rate of its station.

    The rate is that of the station's earthquakes in ``pairs`` outside the windows' own span where
    there are any (``span``, days since 1970, tells the catalogue's), plus half an event so that no
    station has a rate of zero.

    Args:
        windows: rows with station.
        pairs: earthquakes of each station, from ``labels.pairs``.
        lead: days that each window speaks for.
        span: first and last day of the catalogue used.
    """
    time = pairs["time"].to_numpy("datetime64[ns]").astype(np.int64) / 86_400e9
    first, last = span or (float(time.min()), float(time.max()))
    inside = pairs[(time >= first) & (time <= last)]
    count = inside.groupby("station").size().reindex(windows["station"]).fillna(0).to_numpy()
    return np.asarray((count + 0.5) / max(last - first, 1.0) * lead, np.float64)


def molchan(
    score: Array, window: NDArray[np.int64], event: NDArray[np.int64], weight: Array
) -> Molchan:
    """Trajectory of a score over windows, the reference's expectation as the measure of alarm.

    Each earthquake counts once, in equal parts over the windows that precede it: a random score
    then lies on the diagonal however many windows an earthquake has. The bounds of the area take an
    earthquake's windows as one, which is the widest.

    Args:
        score: (n,) alarm value of each window.
        window: (m,) row of a window that precedes an earthquake (several per earthquake).
        event: (m,) which earthquake that is.
        weight: (n,) the reference's expectation for each window, from :func:`expected`.
    """
    names, which, count = np.unique(event, return_inverse=True, return_counts=True)
    hit = np.bincount(window, 1.0 / count[which], len(score)) / max(len(names), 1)
    order = np.argsort(-score, kind="stable")
    # Windows of equal score go in alarm together: only the last of each run is a point.
    last = np.append(np.diff(score[order]) != 0, True)
    tau = np.concatenate([[0.0], (np.cumsum(weight[order]) / weight.sum())[last]])
    miss = np.concatenate([[1.0], 1.0 - np.cumsum(hit[order])[last]])
    area = 1.0 - float(np.trapezoid(miss, tau))
    spread = 1.96 * float(np.sqrt(1 / (12 * max(len(names), 1))))
    return Molchan(tau, miss, area, 0.5 - spread, 0.5 + spread, len(names))


def false_alarms(
    station: NDArray[np.str_], end: NDArray[np.datetime64], alarm: NDArray[np.bool_],
    near: NDArray[np.bool_], window: float,
) -> pd.DataFrame:  # fmt: skip
    """False alarms per station-year.

    Consecutive windows in alarm are one alarm, false when none of them precedes an earthquake.

    Args:
        station: (n,) codes.
        end: (n,) ends of the windows.
        alarm: (n,) whether the window is in alarm.
        near: (n,) whether an earthquake follows within the lead.
        window: seconds that a window spans; windows further apart than this are not consecutive.

    Returns:
        Rows by station and "all": station, years (of data), alarms, false, per_year.
    """
    rows: list[tuple[Any, ...]] = []
    for code in np.unique(station):
        mine = np.flatnonzero(station == code)
        mine = mine[np.argsort(end[mine])]
        step = np.diff(end[mine].astype("datetime64[ns]").astype(np.int64)) / 1e9
        fresh = np.concatenate([[True], ~(alarm[mine][:-1] & np.less_equal(step, 1.001 * window))])
        number = np.cumsum(fresh & alarm[mine])
        on = alarm[mine]
        total = int(number.max(initial=0))
        good = len(np.unique(number[on & near[mine]]))
        years = len(mine) * window / (365.25 * 86_400)
        rows.append((str(code), years, total, total - good, (total - good) / max(years, 1e-9)))
    years, alarms, false = (float(sum(float(r[k]) for r in rows)) for k in (1, 2, 3))
    rows.append(("all", years, alarms, false, false / max(years, 1e-9)))
    return pd.DataFrame(rows, columns=["station", "years", "alarms", "false", "per_year"])
