"""From samples to hours, and from hours to days, with coverage: never a short sum."""

from __future__ import annotations

import numpy as np
import xarray as xr

HOUR = np.timedelta64(1, "h")
DAY_H = 24
DAY_S = 86_400.0
LEADS = (1, 2, 3)


def hours_of(start: np.datetime64, stop: np.datetime64) -> np.ndarray:
    """The whole hours that cover [start, stop), datetime64[ns]."""
    first, last = start.astype("datetime64[h]"), (stop - np.timedelta64(1, "ns"))
    return np.arange(first, last.astype("datetime64[h]") + HOUR, HOUR).astype("datetime64[ns]")


def to_hours(values: xr.DataArray, hours: np.ndarray) -> np.ndarray:
    """Mean of a series in each hour; NaN where an hour holds nothing.

    Args:
        values: (time,) samples at any cadence, in any order.
        hours: (hours,) starts of whole hours without a gap.

    Returns:
        (hours,) float64 in the units of ``values``.
    """
    data = np.asarray(values.values, float)
    index = ((values["time"].values - hours[0]) // HOUR).astype(int)
    good = np.isfinite(data) & (index >= 0) & (index < len(hours))
    count = np.bincount(index[good], minlength=len(hours))
    total = np.bincount(index[good], data[good], minlength=len(hours))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def window_mean(hourly: np.ndarray, ends: np.ndarray, length: int, need: int) -> np.ndarray:
    """Mean of the ``length`` hours before each end, where ``need`` of them are there.

    Args:
        hourly: (hours, ...) values, NaN where missing.
        ends: (rows,) index of the hour after the window's last; may lie outside the series.
        length: hours of a window.
        need: hours that must be present.

    Returns:
        (rows, ...) means; NaN where too few hours are there.
    """
    total, count = cumulative(hourly)
    return window_of(total, count, ends, length, need)


def cumulative(hourly: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Running sums of values and of their presence, with a zero first."""
    there = np.isfinite(hourly)
    pad = [(1, 0)] + [(0, 0)] * (hourly.ndim - 1)
    total = np.pad(np.cumsum(np.where(there, hourly, 0.0), 0), pad)
    return total, np.pad(np.cumsum(there, 0), pad)


def window_of(
    total: np.ndarray, count: np.ndarray, ends: np.ndarray, length: int, need: int
) -> np.ndarray:
    """``window_mean`` on sums made once by ``cumulative``."""
    last = len(total) - 1
    hi, lo = np.clip(ends, 0, last), np.clip(ends - length, 0, last)
    n = count[hi] - count[lo]
    mean: np.ndarray = np.where(n >= need, (total[hi] - total[lo]) / np.maximum(n, 1), np.nan)
    return mean


def daily_log_flux(flux: np.ndarray, ends: np.ndarray, need: int) -> np.ndarray:
    """log10 of the mean flux over the 24 hours before each end.

    Args:
        flux: (hours,) cm-2 s-1 sr-1; only positive hours count.
        ends: (rows,) index of the hour after the day's last.
        need: valid hours a day must have.

    Returns:
        (rows,) log10(cm-2 s-1 sr-1), NaN for a day with less coverage.
    """
    mean = window_mean(np.where(flux > 0, flux, np.nan), ends, DAY_H, need)
    made: np.ndarray = np.log10(mean)
    return made


def coverage(flux: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Share of the 24 hours before each end that hold a positive value, (rows,)."""
    _, count = cumulative(np.where(flux > 0, flux, np.nan))
    last = len(flux)
    seen = count[np.clip(ends, 0, last)] - count[np.clip(ends - DAY_H, 0, last)]
    share: np.ndarray = seen / DAY_H
    return share


def fluence(log_flux: np.ndarray) -> np.ndarray:
    """Daily fluence, cm-2 sr-1 day-1, of a day's mean flux: scaled by its coverage by nature."""
    total: np.ndarray = 10.0**log_flux * DAY_S
    return total


def subsolar_distance(Bz: np.ndarray, Pdyn: np.ndarray) -> np.ndarray:
    """Magnetopause stand-off distance of Shue et al. 1998, doi:10.1029/98JA01103.

    Args:
        Bz: GSM, nT.
        Pdyn: dynamic pressure, nPa; NaN is given where it is not positive.

    Returns:
        r0 in Earth radii.
    """
    pressure = np.where(Pdyn > 0, Pdyn, np.nan)
    r0: np.ndarray = (10.22 + 1.29 * np.tanh(0.184 * (Bz + 8.14))) * pressure ** (-1 / 6.6)
    return r0


def sum_kp(Kp: np.ndarray, ends: np.ndarray, need: int = 18) -> np.ndarray:
    """Sum of the eight three-hourly Kp of the 24 hours before each end, scaled by coverage.

    Args:
        Kp: (hours,) index 0..9, repeated through its three hours.
        ends: (rows,) index of the hour after the day's last.
        need: hours that must be present.
    """
    return 8.0 * window_mean(Kp, ends, DAY_H, need)
