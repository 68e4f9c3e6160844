"""Earthquakes x stations -> labelled windows, with normals that match.

A window is a precursor when an earthquake whose preparation zone (Dobrovolsky) holds the station
follows within the lead; it is normal when none does, and none did lately. Every normal is drawn for
one precursor of the same station, season, hour and activity, and stays on its side of every split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from terrella.tasks.precursor.catalogue import (
    azimuth_deg,
    clusters,
    distance_km,
    dobrovolsky_km,
    kp_at,
)
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE
from terrella.types import NoData

SECTORS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
NORMAL_MAGNITUDE = MAGNITUDE.index("Normal")
NORMAL_AZIMUTH = AZIMUTH.index("Normal")


@dataclass(frozen=True)
class Rule:
    """How labels are made.

    Attributes:
        smallest: magnitude below which an earthquake counts for nothing.
        lead: days; a precursor window ends at most so long before the origin time.
        blind: days; and at least so long (co-seismic shaking moves sensors).
        quiet: days after an earthquake in which no window is normal.
        radius: the preparation radius is multiplied by this.
        normals: normal windows per precursor window.
        block: days in a time block.
        kp_edges: Kp at which the activity classes part.
        seed: of the draw of normals.
    """

    smallest: float = 5.0
    lead: float = 14.0
    blind: float = 0.25
    quiet: float = 7.0
    radius: float = 1.0
    normals: float = 1.0
    block: float = 30.0
    kp_edges: tuple[float, ...] = (2.0, 4.0)
    seed: int = 42


def magnitude_class(magnitude: ArrayLike) -> NDArray[np.int64]:
    """Index in MAGNITUDE: Large >= 6, Medium 5 to 6, Moderate 4 to 5; below 4 Normal."""
    m = np.asarray(magnitude, np.float64)
    names = np.select([m >= 6, m >= 5, m >= 4], ["Large", "Medium", "Moderate"], "Normal")
    return np.array([MAGNITUDE.index(str(n)) for n in np.atleast_1d(names)]).reshape(m.shape)


def sector(azimuth: ArrayLike) -> NDArray[np.str_]:
    """Name of the 45-degree sector, centred on its name, that holds each azimuth in degrees."""
    names: NDArray[np.str_] = np.array(SECTORS)[
        np.round(np.asarray(azimuth, np.float64) / 45.0).astype(int) % 8
    ]
    return names


def azimuth_class(azimuth: ArrayLike) -> NDArray[np.int64]:
    """Index in AZIMUTH of each azimuth in degrees."""
    names = sector(azimuth)
    return np.array([AZIMUTH.index(str(n)) for n in np.atleast_1d(names)]).reshape(names.shape)


def pairs(quakes: pd.DataFrame, stations: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """Each earthquake with each station in its preparation zone.

    Returns:
        Rows: station, event (row of ``quakes``), cluster, time, magnitude, distance (km),
        azimuth (degrees, station to epicentre).
    """
    owner = clusters(quakes)
    large = np.flatnonzero(quakes["magnitude"].to_numpy() >= rule.smallest)
    parts = []
    for row in stations.itertuples():
        q = quakes.iloc[large]
        lat, lon = q["latitude"].to_numpy(), q["longitude"].to_numpy()
        away = distance_km(row.latitude, row.longitude, lat, lon)
        near = away <= rule.radius * dobrovolsky_km(q["magnitude"].to_numpy())
        parts.append(
            pd.DataFrame(
                {
                    "station": row.station,
                    "event": large[near],
                    "cluster": owner[large[near]],
                    "time": q["time"].to_numpy()[near],
                    "magnitude": q["magnitude"].to_numpy()[near],
                    "distance": away[near],
                    "azimuth": azimuth_deg(row.latitude, row.longitude, lat[near], lon[near]),
                }
            )
        )
    return pd.concat(parts, ignore_index=True).sort_values("time", ignore_index=True)


def _state(
    ends: NDArray[np.int64], found: pd.DataFrame, rule: Rule
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(n,) row of ``found`` each window is a precursor of (-1: none), and (n,) near any event."""
    day = 86_400_000_000_000
    best = np.full(len(ends), -1, np.int64)
    near = np.zeros(len(ends), bool)
    # From the smallest up, so that the largest earthquake ahead is the one that stays.
    order = np.argsort(found["magnitude"].to_numpy(), kind="stable")
    times = found["time"].to_numpy("datetime64[ns]").astype(np.int64)
    for k in order:
        ahead = (times[k] - ends) / day
        best[(ahead >= rule.blind) & (ahead <= rule.lead)] = k
        near |= (ahead <= rule.lead) & (ahead >= -rule.quiet)
    return best, near


def label_windows(
    station: str,
    end: NDArray[np.datetime64],
    table: pd.DataFrame,
    rule: Rule,
) -> pd.DataFrame:
    """What each window of a station is.

    Args:
        station: code.
        end: (n,) end of each window.
        table: :func:`pairs`.
        rule: settings.

    Returns:
        (n,) rows: station, end, kind ("precursor", "normal" or "neither"), magnitude, azimuth
        (class numbers, -1 for neither), bearing (degrees, NaN), lead (hours, NaN), event, cluster
        (-1 where none), block.
    """
    found = table[table["station"] == station].reset_index(drop=True)
    nanos = end.astype("datetime64[ns]").astype(np.int64)
    best, near = _state(nanos, found, rule)
    hit = best >= 0
    row = found.iloc[best[hit]]
    out = pd.DataFrame({"station": station, "end": end.astype("datetime64[ns]")})
    out["kind"] = np.select([hit, ~near], ["precursor", "normal"], "neither")
    out["magnitude"] = np.where(hit | near, -1, NORMAL_MAGNITUDE)
    out["azimuth"] = np.where(hit | near, -1, NORMAL_AZIMUTH)
    out.loc[hit, "magnitude"] = magnitude_class(row["magnitude"].to_numpy())
    out.loc[hit, "azimuth"] = azimuth_class(row["azimuth"].to_numpy())
    for name, blank in (("bearing", np.nan), ("lead", np.nan), ("event", -1), ("cluster", -1)):
        out[name] = blank
    out.loc[hit, "bearing"] = row["azimuth"].to_numpy()
    ahead = row["time"].to_numpy("datetime64[ns]").astype(np.int64) - nanos[hit]
    out.loc[hit, "lead"] = ahead / 3.6e12
    out.loc[hit, "event"] = row["event"].to_numpy()
    out.loc[hit, "cluster"] = row["cluster"].to_numpy()
    out["block"] = nanos // round(rule.block * 86_400e9)
    return out


def conditions(windows: pd.DataFrame, kp: pd.Series | None, rule: Rule) -> pd.DataFrame:
    """Adds season (0 to 3 from December), hour (of the end, UTC), month, kp and activity class."""
    out = windows.copy()
    when = pd.DatetimeIndex(out["end"])
    out["month"] = when.month
    out["season"] = when.month % 12 // 3
    out["hour"] = when.hour
    out["kp"] = np.nan if kp is None else kp_at(kp, out["end"].to_numpy())
    out["activity"] = np.where(
        np.isnan(out["kp"]), -1, np.searchsorted(rule.kp_edges, out["kp"], side="right")
    )
    return out


def match_normals(windows: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """Precursor windows and as many normals as match them.

    A normal is drawn without replacement among windows of the same station, season, hour and
    activity. It takes the precursor's cluster, so that no split parts the two. Precursors that find
    no normal are kept and marked, never made up.

    Args:
        windows: :func:`conditions` of :func:`label_windows` of all stations.
        rule: settings.

    Returns:
        The chosen rows, with ``matched`` (bool) and ``pair`` (row label of the precursor).

    Raises:
        NoData: no precursor window, or no normal at all.
    """
    random = np.random.default_rng(rule.seed)
    keys = ["station", "season", "hour", "activity"]
    ahead = windows[windows["kind"] == "precursor"]
    calm = windows[windows["kind"] == "normal"]
    if ahead.empty:
        raise NoData("no window precedes an earthquake whose zone holds its station")
    pools = {k: random.permutation(g.index.to_numpy()) for k, g in calm.groupby(keys)}
    used = dict.fromkeys(pools, 0)
    per = max(round(rule.normals), 1)
    picked: list[tuple[int, int]] = []
    matched = {}
    for key, group in ahead.groupby(keys):
        pool = pools.get(key, np.zeros(0, np.int64))
        for label in random.permutation(group.index.to_numpy()):
            take = pool[used.get(key, 0) : used.get(key, 0) + per]
            if len(take):
                used[key] += len(take)
            picked += [(int(t), int(label)) for t in take]
            matched[int(label)] = len(take) == per
    if not picked:
        raise NoData(
            f"none of {len(calm)} normal windows matches a precursor's station, season, hour and Kp"
        )
    normals = windows.loc[[t for t, _ in picked]].copy()
    normals["pair"] = [p for _, p in picked]
    normals["matched"] = True
    for name in ("cluster", "event"):
        normals[name] = windows.loc[normals["pair"], name].to_numpy()
    out = ahead.copy()
    out["pair"] = out.index
    out["matched"] = [matched[int(k)] for k in out.index]
    return pd.concat([out, normals]).sort_values(["station", "end"])


def shift_catalogue(quakes: pd.DataFrame, days: float) -> pd.DataFrame:
    """The catalogue moved in time, wrapping around its span: a null with its own clustering."""
    time = quakes["time"].to_numpy("datetime64[ns]").astype(np.int64)
    first, span = time.min(), max(int(time.max() - time.min()), 1)
    moved = first + (time - first + round(days * 86_400e9)) % (span + 1)
    return quakes.assign(time=moved.astype("datetime64[ns]")).sort_values("time", ignore_index=True)
