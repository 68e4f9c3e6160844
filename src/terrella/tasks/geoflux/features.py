"""What a forecast may know at its issue time, as numbers: windows that end before it.

Every window of an hourly series is ``[a, b)`` hours before the issue time, with a >= 0: nothing at
or after the issue time can enter. A window of the previous solar rotation is centred on the day to
be forecast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from terrella.tasks.geoflux.daily import (
    DAY_H,
    LEADS,
    cumulative,
    subsolar_distance,
    window_of,
)
from terrella.types import Features, Windows

ROTATION_H = 27 * DAY_H
DAYS = 3  # days of history, each by its own mean
RECENT = ((0, 1), (0, 3), (0, 6), (0, 12))
CYCLE = ((24, 25), (24, 27), (24, 30), (24, 36), (6, 12), (12, 18), (18, 24))
RECURRENT = ("V", "n", "Pdyn", "Kp", "flux", "Bt", "AE", "flux_08")
SLOW = ("Kp", "V", "flux")
FLUXES = ("flux", "flux_08")
HISTORY_H = ROTATION_H
CALENDAR = 6  # features of season and hour
DRIVERS = (
    "flux", "flux_08", "Hp", "B", "He", "V", "n", "Pdyn", "Bz", "Bt", "T", "VBs", "r0",
    "SYM-H", "AE", "AL", "Kp", "ASY-H",
)  # fmt: skip
# What a forecaster would look at first.
TOLD = (
    "day 0", "day 1", "day 2", "flux 0-3 h", "flux 0-648 h", "flux_08 0-24 h", "Hp 0-24 h",
    "V 0-24 h", "V 24-48 h", "V max 0-24 h", "n 0-24 h", "n max 0-24 h", "Pdyn 0-24 h",
    "Pdyn max 0-24 h", "T 0-24 h", "Bt 0-24 h", "Bz 0-24 h", "Bz min 0-24 h", "VBs 0-24 h",
    "r0 min 0-24 h", "Kp 0-24 h", "Kp 24-48 h", "Kp max 0-24 h", "SYM-H 0-24 h",
    "SYM-H min 0-24 h", "AE 0-24 h", "AE 24-48 h", "AL min 0-24 h", "ASY-H 0-24 h",
)  # fmt: skip
GROUPS = {
    "particles": FLUXES,
    "field": ("Hp", "B", "He"),
    "solar wind": ("V", "n", "Pdyn", "Bz", "Bt", "T", "VBs", "r0"),
    "SYM-H": ("SYM-H", "ASY-H"),
    "AE": ("AE", "AL"),
    "Kp": ("Kp",),
}


def drivers(hourly: Mapping[str, np.ndarray]) -> np.ndarray:
    """Hourly drivers on the scales the network sees.

    Args:
        hourly: (hours,) series by name, in the task's units; those absent are all NaN.

    Returns:
        (hours, drivers) float64 in the order of ``DRIVERS``: fluxes, density, pressure,
        temperature, |B|, AE and ASY-H as log10.
    """
    some = next(iter(hourly.values()))
    nothing = np.full(len(some), np.nan)

    def get(name: str) -> np.ndarray:
        return hourly.get(name, nothing)

    def log(name: str, floor: float) -> np.ndarray:
        made: np.ndarray = np.log10(np.maximum(get(name), floor))
        return made

    V, Bz = get("V"), get("Bz")
    columns = {
        "flux": log("flux", 0.1), "flux_08": log("flux_08", 1.0),
        "Hp": get("Hp"), "B": get("B"), "He": get("He"),
        "V": V / 100, "n": log("n", 0.1), "Pdyn": log("Pdyn", 0.02), "Bz": Bz,
        "Bt": log("Bt", 0.1), "T": log("T", 1e3),
        "VBs": V * np.maximum(-Bz, 0) / 1000,
        "r0": subsolar_distance(Bz, get("Pdyn")),
        "SYM-H": get("SYM-H") / 10, "AE": log("AE", 1.0), "AL": get("AL") / 100,
        "Kp": get("Kp"), "ASY-H": np.log10(np.maximum(get("ASY-H"), 0) + 1),
    }  # fmt: skip
    return np.stack([columns[k] for k in DRIVERS], 1)


def windows_of(name: str) -> list[tuple[str, int, int, str]]:
    """(label, a, b, statistic) of every window of a driver; hours before issue, a >= 0."""
    spans = [(a, b) for a, b in RECENT] + [(24 * i, 24 * i + 24) for i in range(DAYS)]
    if name in FLUXES:
        spans += list(CYCLE)
    if name in RECURRENT:
        spans += [(ROTATION_H - 24 * k, ROTATION_H - 24 * k + 24) for k in LEADS]
    if name in SLOW:
        spans.append((0, ROTATION_H))
    found = [(f"{name} {a}-{b} h", a, b, "mean") for a, b in spans]
    for a in (0, 24):
        found += [(f"{name} {s} {a}-{a + 24} h", a, a + 24, s) for s in ("max", "min")]
    return found


def names() -> list[str]:
    """Names of the features in order."""
    made = [label for name in DRIVERS for label, *_ in windows_of(name)]
    made += [f"day {i}" for i in range(DAYS)]
    return [*made, "sin year", "cos year", "sin half-year", "cos half-year", "sin day", "cos day"]


def columns(windows: Windows, wanted: Sequence[str]) -> np.ndarray:
    """Some of the features of each row by name, (rows, wanted) float64, NaN where missing."""
    known = names()
    at = [known.index(name) for name in wanted]
    found: np.ndarray = windows.x["features"][:, at].numpy().astype(float)
    return found


def told(windows: Windows) -> Features:
    """A readable part of what the network sees, on its scales (see ``drivers``)."""
    return Features(TOLD, columns(windows, TOLD))


def groups() -> np.ndarray:
    """(features,) number of the group of inputs each belongs to; -1 for the calendar."""
    of = {driver: k for k, members in enumerate(GROUPS.values()) for driver in members}
    made = [of[name] for name in DRIVERS for _ in windows_of(name)]
    return np.array(made + [of["flux"]] * DAYS + [-1] * CALENDAR)


def driver_of() -> np.ndarray:
    """(features, drivers) weights that average features by the driver they are made from."""
    made = [k for k, name in enumerate(DRIVERS) for _ in windows_of(name)]
    made += [DRIVERS.index("flux")] * DAYS
    share = np.zeros((len(made) + CALENDAR, len(DRIVERS)), np.float32)
    share[np.arange(len(made)), made] = 1.0
    mean: np.ndarray = share / share.sum(0)
    return mean


def features(hourly: Mapping[str, np.ndarray], hours: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Feature matrix of forecasts issued at ``hours[0] + ends`` hours.

    Args:
        hourly: (hours,) series by name.
        hours: (hours,) datetime64[ns].
        ends: (rows,) issue times as the index of the first hour that is not known.

    Returns:
        (rows, features) float32, NaN where a window has less than a quarter of its hours.
    """
    table = drivers(hourly)
    total, count = cumulative(table)
    extremes = {(a, s): _extreme(table, ends, a, s) for a in (0, 24) for s in ("max", "min")}
    spans = {(a, b) for n in DRIVERS for _, a, b, s in windows_of(n) if s == "mean"}
    means = {
        (a, b): window_of(total, count, ends - a, b - a, max(1, (b - a) // 4)) for a, b in spans
    }
    columns = [
        means[a, b][:, k] if s == "mean" else extremes[a, s][:, k]
        for k, name in enumerate(DRIVERS)
        for _, a, b, s in windows_of(name)
    ]
    flux = np.where(hourly["flux"] > 0, hourly["flux"], np.nan)
    linear = cumulative(flux)
    columns += [np.log10(window_of(*linear, ends - 24 * i, 24, 6)) for i in range(DAYS)]
    return np.stack([*columns, *_calendar(hours[0] + ends * np.timedelta64(1, "h"))], 1).astype(
        np.float32
    )


def _extreme(table: np.ndarray, ends: np.ndarray, a: int, which: str) -> np.ndarray:
    """Largest or smallest value of the day that ends ``a`` hours before issue, (rows, drivers)."""
    padded = np.concatenate([np.full((DAY_H, table.shape[1]), np.nan), table])
    pick = np.fmax if which == "max" else np.fmin
    # Padding by a day moves the index of hour h to h + 24, so the window [end-a-24, end-a) starts
    # at end - a.
    best = np.full((len(ends), table.shape[1]), np.nan)
    for k in range(DAY_H):
        at = ends - a + k
        inside = (at >= 0) & (at < len(padded))
        best = pick(best, np.where(inside[:, None], padded[np.clip(at, 0, len(padded) - 1)],
                                   np.nan))  # fmt: skip
    return best


def _calendar(time: np.ndarray) -> list[np.ndarray]:
    day = (time - time.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    hour = (time - time.astype("datetime64[D]")) / np.timedelta64(1, "h")
    year, turn = 2 * np.pi * day / 365.25, 2 * np.pi * hour / 24
    return [f(a) for a in (year, 2 * year, turn) for f in (np.sin, np.cos)]
