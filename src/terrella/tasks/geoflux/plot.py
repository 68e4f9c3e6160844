"""Figures: history with the latest forecast as a fan, and how past forecasts came true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from terrella.plot import COLOURS, figure, save, time_axis
from terrella.tasks.geoflux.daily import DAY_S
from terrella.types import Product

DAY = np.timedelta64(1, "D")
SHOWN = 30  # days of history
LATEST = 180  # days of a back-test drawn in full
BLUE, RED, GREEN, BLACK = COLOURS[0], COLOURS[1], COLOURS[2], "#000000"


def plot(product: Product, path: Path) -> list[Path]:
    """Draw the latest forecast, and where forecasts came true, the back-test.

    Args:
        product: of one job.
        path: stem; ``.png`` is the fan chart, ``.backtest.png`` forecasts against what came true.

    Returns:
        The files written.
    """
    series = product.series
    written = [save(fan(series), path.with_name(f"{path.name}.png"))]
    if int(np.isfinite(series["observed"].values).any(1).sum()) >= 20:
        written.append(save(backtest(series), path.with_name(f"{path.name}.backtest.png")))
    return written


def fan(series: xr.Dataset) -> Any:
    """History, the fan of the last issue time with a forecast, and chances of alerts."""
    good = np.flatnonzero(np.isfinite(series["flux"].values[:, 0]))
    row = int(good[-1]) if len(good) else len(series["time"]) - 1
    issue = series["time"].values[row]
    made, (top, low) = figure(2, size=(8.5, 6.0), height_ratios=[3, 1.2])
    hours, flux = series["hour"].values, series["hourly_flux"].values
    near = (hours >= issue - SHOWN * DAY) & (hours < issue + 3 * DAY)
    past = near & (hours < issue)
    top.plot(hours[past], flux[past], color="0.55", lw=0.8, label="hourly flux")
    top.plot(hours[near & ~past], flux[near & ~past], color="0.8", lw=0.8)
    _days(top, hours[past], flux[past], issue)
    start = [issue + k * DAY for k in range(3)]
    for percent, alpha in ((95, 0.15), (80, 0.25), (50, 0.4)):
        lo, hi = (series[f"flux_{s}{percent}"].values[row] for s in ("lo", "hi"))
        for k in range(3):
            top.fill_between(
                [start[k], start[k] + DAY], lo[k], hi[k], color=BLUE, alpha=alpha, lw=0,
                label=f"{percent} % interval" if k == 0 else None,
            )  # fmt: skip
    median, seen = series["flux"].values[row], series["observed"].values[row]
    for k in range(3):
        ends = [start[k], start[k] + DAY]
        top.plot(ends, [median[k]] * 2, color=BLUE, lw=2, label="median" if k == 0 else None)
        if np.isfinite(seen[k]):
            label = "came true" if k == 0 else None
            top.plot(ends, [seen[k]] * 2, color=BLACK, lw=1.5, ls=":", label=label)
    first = hours[past][0] if past.any() else issue
    for name in (str(n) for n in series if str(n).startswith("p_")):
        level = float(series[name].attrs["threshold"])
        fluence = "fluence" in name
        level = level / DAY_S if fluence else level
        top.axhline(level, color=RED, lw=0.8, ls=":" if fluence else "--")
        # Fluence levels are named at the right, so that near ones do not hide each other.
        at, side = (issue, "right") if fluence else (first, "left")
        top.annotate(_label(name), (at, level), color=RED, fontsize=7, va="bottom", ha=side)
    top.axvline(issue, color=BLACK, lw=0.8)
    top.set_yscale("log")
    top.set_ylabel(">2 MeV electron flux\n(cm$^{-2}$ s$^{-1}$ sr$^{-1}$)")
    when = np.datetime_as_string(issue, "h")
    top.set_title(f"Electron flux forecast issued {when} UT, {series.attrs.get('satellite', '')}")
    top.legend(loc="lower left", ncols=3, fontsize=7)
    time_axis(top)
    _chances(low, series, row)
    return made


def _days(axis: Any, hours: np.ndarray, flux: np.ndarray, issue: np.datetime64) -> None:
    since: Any = issue - hours - np.timedelta64(1, "ns")
    age = (since // DAY).astype(int)
    for k in np.unique(age):
        values = flux[(age == k) & (flux > 0)]
        if len(values) >= 18:
            day = issue - (k + 1) * DAY
            axis.plot([day, day + DAY], [values.mean()] * 2, color=BLACK, lw=1.6,
                      label="daily mean" if k == age.min() else None)  # fmt: skip


def _chances(axis: Any, series: xr.Dataset, row: int) -> None:
    names = [str(n) for n in series if str(n).startswith("p_")]
    width = 0.8 / max(len(names), 1)
    for k, name in enumerate(names):
        p = series[name].values[row]
        at = np.arange(3) + (k - (len(names) - 1) / 2) * width
        bars = axis.bar(at, np.nan_to_num(p), width * 0.92, color=COLOURS[k % 6],
                        label=_label(name))  # fmt: skip
        axis.bar_label(bars, [f"{v:.0%}" if np.isfinite(v) else "" for v in p], fontsize=7)
    days = [series["time"].values[row] + k * DAY for k in range(3)]
    axis.set_xticks(range(3), [f"day {k + 1}\nfrom {np.datetime_as_string(d, 'h')}"
                               for k, d in enumerate(days)])  # fmt: skip
    axis.set_ylim(0, 1.12)
    axis.set_ylabel("probability")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)


def _label(name: str) -> str:
    _, kind, level = name.split("_")
    return f"{kind} > {level}"


def backtest(series: xr.Dataset) -> Any:
    """Forecast and outcome by lead in the latest days, and the reliability of the first alert."""
    made, axes = figure(3, size=(9.5, 7.0), ncols=2, width_ratios=[3, 1.1], sharex="col")
    time = series["time"].values
    shown = time >= time[-1] - LATEST * DAY
    name = next((str(n) for n in series if str(n).startswith("p_flux")), "")
    for k, (left, right) in enumerate(axes):
        day = (time + k * DAY)[shown]
        lo, hi = (series[f"flux_{s}80"].values[:, k] for s in ("lo", "hi"))
        left.fill_between(
            day, lo[shown], hi[shown], color=BLUE, alpha=0.3, lw=0, label="80 % interval"
        )
        left.plot(day, series["flux"].values[shown, k], color=BLUE, lw=0.8, label="median")
        left.plot(
            day, series["observed"].values[shown, k], ".", color=BLACK, ms=2, label="came true"
        )
        left.set_yscale("log")
        left.set_ylabel(f"{k + 1} day{'s' if k else ''} ahead\nflux (cm$^{{-2}}$ s$^{{-1}}$ "
                        "sr$^{-1}$)")  # fmt: skip
        time_axis(left)
        if name:
            level = float(series[name].attrs["threshold"])
            left.axhline(level, color=RED, lw=0.8, ls="--")
            seen = series["observed"].values[:, k]
            reliability(right, series[name].values[:, k], np.where(
                np.isfinite(seen), (seen > level).astype(float), np.nan))  # fmt: skip
            right.set_ylabel("frequency")
    axes[0, 0].legend(loc="lower left", ncols=3, fontsize=7)
    made.suptitle(f"Forecasts and what came true, {series.attrs.get('satellite', '')}")
    axes[-1, 1].set_xlabel(f"forecast probability\n({_label(name)})" if name else "")
    return made


def reliability(axis: Any, p: np.ndarray, happened: np.ndarray, colour: str = BLUE) -> None:
    """Frequency of an event against its forecast probability, with 95 % binomial intervals."""
    known = np.isfinite(p) & np.isfinite(happened)
    p, happened = p[known], happened[known]
    box = np.minimum((p * 8).astype(int), 7)
    axis.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    for b in np.unique(box):
        rows = box == b
        n, mean = int(rows.sum()), float(happened[rows].mean())
        if n < 5:
            continue
        # Wilson's interval stays within 0..1.
        z, x = 1.96, float(p[rows].mean())
        middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        axis.plot([x, x], [middle - half, middle + half], color=colour, lw=1)
        axis.plot(x, mean, "o", color=colour, ms=4)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
