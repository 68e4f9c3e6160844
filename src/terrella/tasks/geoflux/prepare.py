"""From a record to the rows of a forecast; training and running share it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from terrella.learn.split import apart
from terrella.tasks.geoflux import features
from terrella.tasks.geoflux.daily import (
    DAY_H,
    HOUR,
    LEADS,
    coverage,
    daily_log_flux,
    hours_of,
    subsolar_distance,
    sum_kp,
    to_hours,
    window_mean,
)
from terrella.tasks.geoflux.task import Options, Recipe
from terrella.types import Record, Refused, Windows

SEQUENCE = 5  # days the published network sees
LAGS = 27  # days an autoregression sees
EMBARGO = np.timedelta64(96, "h")  # between the rows of a fit and the block that it leaves out
STORM_KP, STORM_H = 5.0, 48
EVER = np.timedelta64(100 * 366, "D")
SLACK = np.timedelta64(12, "h")


def reach(recipe: Recipe, options: Options) -> tuple[np.timedelta64, np.timedelta64]:
    """All the history there is, and the days that verify a forecast.

    Outcomes steer the intervals from the end of training on. A shorter history would make the
    intervals of an issue time depend on the span that it was asked for in.
    """
    return EVER, np.timedelta64(max(LEADS) * DAY_H, "h")


def prepare(record: Record, recipe: Recipe, options: Options) -> Windows:
    """Rows of forecasts issued every ``options.every`` hours over the record.

    A forecast issued at time t knows [.., t). Lead k is the mean flux of [t + 24(k-1), t + 24k) h.

    Args:
        record: ``flux`` and what else is there, each (time,) at any cadence up to an hour.
        recipe: of the weights.
        options: ``every`` and the hour of ``issue`` place the issue times.

    Returns:
        x ``features`` (rows, features) and ``days`` (rows, 5, 3); y ``log_flux`` (rows, leads) of
        days with enough valid hours and ``use`` (rows, members); group ``year`` of issue. ``extra``
        has ``last`` (rows,) the day before issue, ``lags``, ``storm`` (Kp >= 5 in the 48 h before),
        and what decoding needs: ``coverage``, ``hourly``, ``hours``, ``ends``.

    Raises:
        Refused: less than two days of data.
    """
    hourly, hours = hourly_series(record)
    ends = issue_ends(hours, options)
    if len(hours) < 2 * DAY_H or not len(ends):
        raise Refused(
            f"{len(hours)} hours from {hours[0].astype('datetime64[h]')}: a forecast needs two "
            "days at least; give more files"
        )
    time = hours[0] + ends * HOUR
    flux = hourly["flux"]
    truth = truths(hourly.get("truth_flux", flux), ends, recipe.need)
    x = {
        "features": torch.from_numpy(features.features(hourly, hours, ends)),
        "days": torch.from_numpy(published_days(hourly, ends, recipe.need)),
    }
    kp = hourly.get("Kp", np.full(len(hours), np.nan))
    recent = window_mean(np.isfinite(flux).astype(float), ends, DAY_H * features.DAYS, 1)
    lags = np.stack([daily_log_flux(flux, ends - DAY_H * i, recipe.need) for i in range(LAGS)], 1)
    return Windows(
        x=x,
        time=time,
        valid=recent > 0,
        groups={"year": time.astype("datetime64[Y]").astype(int) + 1970},
        y={
            "log_flux": torch.from_numpy(truth.astype(np.float32)),
            "use": torch.ones(len(ends), recipe.members),
        },
        extra={
            "last": daily_log_flux(hourly.get("truth_flux", flux), ends, recipe.need),
            "lags": lags,
            "storm": storm(kp, ends),
            "coverage": coverage(flux, ends),
            "hourly": hourly,
            "hours": hours,
            "ends": ends,
        },
    )


def hourly_series(record: Record) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every series of a record on whole hours; Dst stands in for SYM-H, |B| and fills as they are.

    Returns:
        (hours,) arrays by name, and the (hours,) starts of the hours.
    """
    times = [v["time"].values for v in record.values() if v.sizes.get("time")]
    hours = hours_of(min(t[0] for t in times), max(t[-1] for t in times) + np.timedelta64(1, "ns"))
    hourly = {k: to_hours(v, hours) for k, v in record.items() if v.dims == ("time",)}
    if "Dst" in hourly:
        known = hourly.get("SYM-H", np.full(len(hours), np.nan))
        hourly["SYM-H"] = np.where(np.isfinite(known), known, hourly["Dst"])
    return hourly, hours


def issue_ends(hours: np.ndarray, options: Options) -> np.ndarray:
    """Issue times as indices of the first hour not known, from a day in to the end of the data."""
    phase = 0
    if options.issue and "T" in options.issue:
        phase = int(options.issue.split("T")[1][:2])
    every = int(options.every)
    offset = hours[0].astype("datetime64[h]").astype(int)
    # Hours since 1970 start at 00 UT, so issue times lie at the same hours of every day.
    ends = np.arange(DAY_H, len(hours) + 1)
    made: np.ndarray = ends[(ends + offset - phase) % every == 0]
    return made


def truths(flux: np.ndarray, ends: np.ndarray, need: int) -> np.ndarray:
    """What comes true: (rows, leads) log10 of the daily mean flux, NaN where it is not known."""
    last = len(flux)
    out = []
    for k in LEADS:
        day = daily_log_flux(flux, np.minimum(ends + DAY_H * k, last), need)
        out.append(np.where(ends + DAY_H * k <= last, day, np.nan))
    return np.stack(out, 1)


def published_days(hourly: dict[str, np.ndarray], ends: np.ndarray, need: int) -> np.ndarray:
    """(rows, 5, 3) float32: daily log10 flux, mean r0 (R_E) and sum of Kp, oldest day first."""
    nothing = np.full(len(hourly["flux"]), np.nan)
    r0 = subsolar_distance(hourly.get("Bz", nothing), hourly.get("Pdyn", nothing))
    days = []
    for i in reversed(range(SEQUENCE)):
        at = ends - DAY_H * i
        days.append(
            np.stack(
                [
                    daily_log_flux(hourly["flux"], at, need),
                    window_mean(r0, at, DAY_H, DAY_H // 4),
                    sum_kp(hourly.get("Kp", nothing), at),
                ],
                1,
            )
        )
    return np.stack(days, 1).astype(np.float32)


def storm(Kp: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether Kp reached 5 in the 48 hours before each end.

    Returns:
        (rows,) 1.0 or 0.0, NaN where less than half of those hours have a Kp.
    """
    high = np.where(np.isfinite(Kp), Kp >= STORM_KP, np.nan)
    share = window_mean(high, ends, STORM_H, STORM_H // 2)
    made: np.ndarray = np.where(np.isfinite(share), share > 0, np.nan)
    return made


def take(windows: Windows, rows: np.ndarray) -> Windows:
    """Some rows of windows, hourly series left as they are."""
    n = len(windows)
    keep = torch.from_numpy(np.flatnonzero(rows) if rows.dtype == bool else rows)

    def cut(values: object) -> object:
        if isinstance(values, np.ndarray) and len(values) == n:
            return values[keep.numpy()]
        return values

    return Windows(
        x={k: v[keep] for k, v in windows.x.items()},
        time=windows.time[keep.numpy()],
        valid=windows.valid[keep.numpy()],
        groups={k: v[keep.numpy()] for k, v in windows.groups.items()},
        y=None if windows.y is None else {k: v[keep] for k, v in windows.y.items()},
        extra={k: v if k in ("hourly", "hours") else cut(v) for k, v in windows.extra.items()},
    )


def blocks(windows: Windows, recipe: Recipe) -> np.ndarray:
    """Number of the block of ``recipe.block`` days that each row lies in, (rows,)."""
    number: np.ndarray = windows.time.astype("datetime64[D]").astype(int) // recipe.block
    return number


def folds(windows: Windows, recipe: Recipe) -> tuple[Windows, Windows]:
    """The same rows twice: for each member the rows of other folds, and those of its own.

    Blocks of ``recipe.block`` days go to the members in turn. A row nearer than the embargo to a
    block is not used by the member that leaves that block out: their targets overlap.

    Returns:
        Windows to learn from and windows to check on; ``y["use"]`` tells the members apart.
    """
    fold = blocks(windows, recipe) % recipe.members
    held = fold[:, None] == np.arange(recipe.members)
    free = np.stack([apart(windows.time, windows.time[own], EMBARGO) for own in held.T], 1)
    assert windows.y is not None
    known = np.isfinite(windows.y["log_flux"].numpy()).any(1) & windows.valid
    parts = []
    for use in (free, held):
        y = {**windows.y, "use": torch.from_numpy(use.astype(np.float32))}
        parts.append(dataclasses.replace(windows, y=y, valid=known))
    return parts[0], parts[1]


def check_causal(record: Record, recipe: Recipe, options: Options, at: np.datetime64) -> None:
    """Refuse a preparation whose inputs change when the data after the issue time are removed.

    Args:
        record: as for ``prepare``.
        recipe, options: as for ``prepare``.
        at: an issue time inside the record.

    Raises:
        Refused: names the first input that looks ahead, and the row.
    """
    compare(record, lambda r: prepare(r, recipe, options), at)


def compare(record: Record, preparing: object, at: np.datetime64) -> None:
    """The check of ``check_causal`` for any preparation ``record -> Windows``."""
    assert callable(preparing)
    past = {k: v.sel(time=v["time"] < at) for k, v in record.items()}
    whole, cut = preparing(record), preparing(past)
    rows = np.flatnonzero(np.isin(whole.time, cut.time) & (whole.time <= at))
    same = np.flatnonzero(np.isin(cut.time, whole.time[rows]))
    for name in whole.x:
        a, b = whole.x[name][rows].numpy(), cut.x[name][same].numpy()
        far = ~np.isclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True).reshape(len(rows), -1)
        if far.any():
            row, column = np.argwhere(far)[-1]
            label = features.names()[column] if name == "features" else f"{name} {column}"
            raise Refused(
                f"split at {at.astype('datetime64[h]')}: input {label!r} of the forecast issued "
                f"{whole.time[rows[row]].astype('datetime64[h]')} changes when the data after "
                "its issue time are removed: the future is in the input"
            )
