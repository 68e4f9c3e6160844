"""What is wrong with a series, found at the door: refused, or removed and flagged."""

from __future__ import annotations

import numpy as np

from terrella.sources.columns import Series
from terrella.tasks.geoflux.task import FLUX_UNITS, INPUTS
from terrella.types import Refused

NEGATIVE, JUMP, FILLED, TIMES = 1, 2, 4, 8  # bits of flux_flags, hour by hour
UNITS = {v.name: v.units for v in INPUTS}
MOST_FLUX = 3e6  # cm-2 s-1 sr-1; no hour at geostationary orbit came near it
TYPICAL_MOST = 3e5  # a median above this is not a flux a second
STEP = 0.8  # dex within an hour that may be a jump
SHIFT = 0.6  # dex between floor, middle and top of the rotations before and after it
SIDE = 27 * 24  # hours of a rotation
# How units are written elsewhere, as (factor to ours, ours).
FLUX_ALIASES = {
    "cm-2 s-1 sr-1", "1/(cm2 s sr)", "e/(cm^2 s sr)", "electrons/(cm^2 s sr)", "pfu",
    "particles/(cm^2 s sr)", "electrons cm-2 s-1 sr-1", "1/cm2/s/sr", "cm^-2 s^-1 sr^-1",
    "#/(cm2 sr s)", "e/(cm^2 sec sr)", "(cm2 s sr)-1",
}  # fmt: skip
DAILY = {"cm-2 sr-1 day-1", "1/(cm2 day sr)", "particles/day", "cm-2 sr-1 d-1"}
ALIASES = {
    "km s-1": {"km/s": 1.0, "m/s": 1e-3, "m s-1": 1e-3},
    "cm-3": {"1/cm3": 1.0, "1/cm^3": 1.0, "n/cc": 1.0, "cm^-3": 1.0, "m-3": 1e-6},
    "nPa": {"pa": 1e9}, "K": {"kelvin": 1.0}, "nT": {"t": 1e9, "nanotesla": 1.0},
    "1": {"": 1.0, "0.1": 0.1, "10": 0.1, "dimensionless": 1.0},
}  # fmt: skip
RANGES = {
    "V": (100.0, 3000.0), "n": (0.0, 500.0), "Pdyn": (0.0, 300.0), "T": (0.0, 1e8),
    "Bz": (-300.0, 300.0), "Bt": (0.0, 300.0), "Kp": (0.0, 9.0), "SYM-H": (-2000.0, 500.0),
    "Dst": (-2000.0, 500.0), "AE": (0.0, 10000.0), "AL": (-10000.0, 3000.0),
    "ASY-H": (0.0, 3000.0), "Hp": (-1000.0, 1000.0), "He": (-1000.0, 1000.0), "B": (0.0, 1500.0),
}  # fmt: skip


def checked(series: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """A series in the task's units with what is impossible removed.

    Args:
        series: as read.

    Returns:
        time, values, flags (uint8 bits), and remarks for the user.

    Raises:
        Refused: units not known, a fluence given as a flux, Kp times ten.
    """
    values = series.values.astype(float) * factor(series)
    flags = np.zeros(len(values), np.uint8)
    notes = []
    back = np.diff(series.time) <= np.timedelta64(0, "ns")
    if back.any():
        doubled = int((np.diff(np.sort(series.time)) == np.timedelta64(0, "ns")).sum())
        flags |= TIMES
        notes.append(
            f"{series.path}: {series.name}: times out of order; sorted"
            + (f", {doubled} doubled times kept once" if doubled else "")
        )
    if series.name in ("flux", "flux_08"):
        _check_flux(series, values)
        bad = values < 0
        if bad.any():
            values = np.where(bad, np.nan, values)
            flags[bad] |= NEGATIVE
            notes.append(f"{series.path}: {int(bad.sum())} negative {series.name} removed")
    elif series.name in RANGES:
        lo, hi = RANGES[series.name]
        _check_kp(series, values)
        bad = (values < lo) | (values > hi)
        if bad.any():
            values = np.where(bad, np.nan, values)
            notes.append(
                f"{series.path}: {int(bad.sum())} values of {series.name} outside {lo:g}..{hi:g} "
                f"{UNITS[series.name]} removed"
            )
    return series.time, values, flags, notes


def factor(series: Series) -> float:
    """What a series must be multiplied by to come in the task's units.

    Raises:
        Refused: units not known; gives those that are.
    """
    want = UNITS.get(series.name, series.units)
    given = series.units.strip()
    if given == want or not want:
        return 1.0
    if want == FLUX_UNITS:
        plain = given.lower()
        if plain in FLUX_ALIASES or not plain:
            return 1.0
        if plain in DAILY:
            return 1 / 86_400.0
    for alias, scale in ALIASES.get(want, {}).items():
        if given.lower() == alias:
            return scale
    raise Refused(
        f"{series.path}: {series.name} comes in {given!r}; known are {want!r}"
        + (" and 'cm-2 sr-1 day-1'" if want == FLUX_UNITS else "")
    )


def _check_flux(series: Series, values: np.ndarray) -> None:
    known = values[np.isfinite(values)]
    if series.name != "flux" or not len(known):
        return
    if np.median(known) > TYPICAL_MOST or known.max() > MOST_FLUX:
        raise Refused(
            f"{series.path}: flux with a median of {np.median(known):.3g} and a maximum of "
            f"{known.max():.3g} cannot be cm-2 s-1 sr-1; if it is a daily fluence, say so: units "
            "'cm-2 sr-1 day-1'"
        )


def _check_kp(series: Series, values: np.ndarray) -> None:
    known = values[np.isfinite(values)]
    if series.name == "Kp" and len(known) and known.max() > 9.01:
        raise Refused(
            f"{series.path}: Kp reaches {known.max():g}; an index of 0..9 cannot: if it is Kp x 10 "
            "(OMNI2), say so: units '0.1'"
        )


def jumps(flux: np.ndarray) -> np.ndarray:
    """Hours at which the level may have shifted, as a change of satellite or units does.

    Storms step as fast and last for days, so a step between neighbouring hours counts only if the
    rotation after it lies above (or below) the one before at its floor, middle and top alike. On
    five years of GOES-15 that cries wolf once a year and finds half of the jumps by a factor of
    ten put there: a hint, not a proof.

    Args:
        flux: (hours,) cm-2 s-1 sr-1.

    Returns:
        (hours,) bool.
    """
    found = np.zeros(len(flux), bool)
    x = np.log10(np.where(flux > 0, flux, np.nan))
    step = np.concatenate([[np.nan], np.diff(x)]) if len(x) else x
    for k in np.flatnonzero(np.nan_to_num(np.abs(step)) > STEP):
        sides = [s[np.isfinite(s)] for s in (x[max(k - SIDE, 0) : k], x[k : k + SIDE])]
        if min(map(len, sides)) >= SIDE // 4:
            before, after = (np.quantile(s, [0.02, 0.5, 0.95]) for s in sides)
            found[k] = ((after - before) * np.sign(step[k]) > SHIFT).all()
    return found
