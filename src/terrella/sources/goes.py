"""GOES particle data: NOAA SWPC's real-time JSON and NetCDF (NCEI archive, or our own).

SWPC: a list of ``{"time_tag", "satellite", "flux", "energy"}``, energy ``>=2 MeV``; planetary K
index and solar wind come as lists too. NCEI: variables with a ``time`` or ``time_tag`` axis.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from terrella.sources.base import check_file
from terrella.sources.columns import Series
from terrella.types import Refused

FLUX = "cm-2 s-1 sr-1"
ENERGY = {">=2 mev": "flux", ">2 mev": "flux", ">=0.8 mev": "flux_08", ">0.8 mev": "flux_08"}
# Keys of SWPC's other products: the name here, its units.
JSON_KEYS = {
    "kp_index": ("Kp", "1"), "kp": ("Kp", "1"), "speed": ("V", "km s-1"),
    "proton_speed": ("V", "km s-1"), "density": ("n", "cm-3"), "proton_density": ("n", "cm-3"),
    "temperature": ("T", "K"), "proton_temperature": ("T", "K"), "bz_gsm": ("Bz", "nT"),
    "bt": ("Bt", "nT"), "dst": ("Dst", "nT"), "he": ("He", "nT"), "hp": ("Hp", "nT"),
    "total": ("B", "nT"),
}  # fmt: skip
# Names in NetCDF: NCEI's averages of GOES 13-15 (East and West telescopes, corrected), GOES-R's
# integral channel, and the vocabulary of the house.
NETCDF = {
    "e2w_cor_flux": "flux", "e2e_cor_flux": "flux", "e1w_cor_flux": "flux_08",
    "e1e_cor_flux": "flux_08", "e2w_uncor_flux": "flux", "e1w_uncor_flux": "flux_08",
    "avgintelectronflux": "flux", "hp_1": "Hp", "he_1": "He", "ht_1": "B",
}  # fmt: skip
FILL = -9999.0


def read_json(path: Path) -> list[Series]:
    """Read a JSON product of SWPC: electrons, K index or solar wind.

    Raises:
        Refused: not JSON, or of a layout not known.
    """
    check_file(path)
    try:
        rows = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Refused(f"{path}: is not JSON ({str(error)[:60]})") from None
    if isinstance(rows, list) and rows and isinstance(rows[0], list):
        # SWPC's "products" are tables: a list of names, then lists of values.
        head, body = [str(h) for h in rows[0]], [r for r in rows[1:] if isinstance(r, list)]
        rows = [dict(zip(head, r, strict=False)) for r in body]
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise Refused(f"{path}: is not a list of measurements as SWPC serves them")
    table = pd.DataFrame(rows).rename(columns=str.lower)
    if "time_tag" not in table:
        raise Refused(f"{path}: its measurements have no time_tag")
    stamp = pd.to_datetime(table["time_tag"], errors="coerce", utc=True, format="ISO8601")
    if stamp.isna().any():
        raise Refused(f"{path}: a time_tag is not a time")
    time = stamp.dt.tz_localize(None).to_numpy().astype("datetime64[ns]")
    found = _electrons(table, time, path) if {"energy", "flux"} <= set(table) else []
    goes = "satellite" in table
    for key, (name, units) in JSON_KEYS.items():
        if key in table and (goes or name not in ("He", "Hp", "B")):
            found.append(Series(name, units, time, _numbers(table[key]), _name(table), path))
    if not found:
        raise Refused(f"{path}: holds neither electron flux, Kp nor solar wind; its keys are "
                      f"{', '.join(map(str, table.columns[:6]))}")  # fmt: skip
    return found


def _electrons(table: pd.DataFrame, time: np.ndarray, path: Path) -> list[Series]:
    found = []
    energy = table["energy"].astype(str).str.lower().str.strip()
    for label, name in ENERGY.items():
        for satellite in sorted(set(table.get("satellite", pd.Series([""] * len(table))))):
            rows = (energy == label).to_numpy()
            if "satellite" in table:
                rows = rows & (table["satellite"] == satellite).to_numpy()
            if rows.any():
                flux = _numbers(table["flux"][rows])
                who = f"goes{satellite}" if satellite != "" else ""
                found.append(Series(name, FLUX, time[rows], flux, who, path))
    return found


def _numbers(column: Any) -> np.ndarray:
    values: np.ndarray = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return np.where(values <= FILL, np.nan, values)


def _name(table: pd.DataFrame) -> str:
    return f"goes{table['satellite'].iloc[0]}" if "satellite" in table else ""


def read_netcdf(path: Path, vocabulary: Mapping[str, str]) -> list[Series]:
    """Read time series from NetCDF (3 or 4) by variable name.

    Args:
        path: a file of NCEI (``g15_epead_e13ew_1m_...nc``), GOES-R, or one written by
            ``terrella simulate geoflux``.
        vocabulary: units by name of the house's own variables.

    Raises:
        Refused: not NetCDF, or none of its variables is known.
    """
    check_file(path)
    with path.open("rb") as stream:
        netcdf3 = stream.read(3) == b"CDF"
    try:
        with xr.open_dataset(path, engine="scipy" if netcdf3 else "h5netcdf",
                             decode_timedelta=False) as data:  # fmt: skip
            return _variables(data.load(), path, vocabulary)
    except Refused:
        raise
    except Exception as error:  # libraries raise of every kind on damaged files
        reason = " ".join(str(error).split())[:80]
        raise Refused(f"{path}: cannot be read as NetCDF ({reason}); get it again") from None


def _variables(data: xr.Dataset, path: Path, vocabulary: Mapping[str, str]) -> list[Series]:
    axis = next((n for n in ("time", "time_tag", "record") if n in data.variables), None)
    if axis is None or not np.issubdtype(data[axis].dtype, np.datetime64):
        raise Refused(f"{path}: has no time axis (time or time_tag) that counts from a date")
    time = data[axis].to_numpy().astype("datetime64[ns]")
    found: dict[str, list[np.ndarray]] = {}
    units: dict[str, str] = {}
    for key, variable in data.variables.items():
        key = str(key)
        name = NETCDF.get(key.lower()) or (key if key in vocabulary else None)
        if name is None or variable.dtype.kind not in "fiu" or len(variable) != len(time):
            continue
        values = np.asarray(variable.values, float).reshape(len(time), -1)
        values = np.where(values <= FILL, np.nan, values)
        # Two telescopes, or five of them: the mean of those that measure.
        there = np.isfinite(values)
        mean = np.where(there, values, 0).sum(1) / np.maximum(there.sum(1), 1)
        found.setdefault(name, []).append(np.where(there.any(1), mean, np.nan))
        given = str(variable.attrs.get("units", ""))
        units[name] = given or vocabulary.get(name, "")
    if not found:
        raise Refused(f"{path}: none of its variables is known ({', '.join(map(str, data))[:80]})")
    who = satellite_of(data.attrs, path)
    return [Series(n, units[n], time, _mean(v), who, path) for n, v in found.items()]


def _mean(columns: list[np.ndarray]) -> np.ndarray:
    stack = np.stack(columns)
    there = np.isfinite(stack)
    total = np.where(there, stack, 0).sum(0)
    return np.where(there.any(0), total / np.maximum(there.sum(0), 1), np.nan)


def satellite_of(attrs: Mapping[Any, Any], path: Path) -> str:
    """Which GOES a file is of: from its attributes, else from its name; empty if neither says."""
    for key in ("satellite", "satellite_id", "platform", "platform_ID"):
        if key in attrs:
            text = str(attrs[key]).lower()
            number = re.search(r"(\d+)", text)
            return f"goes{int(number[1])}" if number and "g" in text else text
    named = re.search(r"(?:^|[_-])g(?:oes)?-?(\d{2})(?=[_.-])", path.name.lower())
    return f"goes{int(named[1])}" if named else ""
