"""Figures: dial at the equator, meridian cut and key parameters; series along an orbit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from terrella.plot import COLOURS, angle, dial, figure, save, time_axis
from terrella.types import Product

Floats = NDArray[np.floating]
NIGHT, NOON = 0.0, 12.0
CHANCE: Any = {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}
POWER: Any = {"cmap": "magma"}


def plot(product: Product, path: Path) -> list[Path]:
    """Draw a map's strongest instant, or an orbit's series.

    Args:
        product: of a run. path: stem; ``.png`` is written.
    """
    series = product.series
    if "L" not in series.dims:
        return [save(along(series), path.with_name(f"{path.name}.png"))]
    mean = area_mean(series["probability"])
    at = int(np.nanargmax(mean)) if np.isfinite(mean).any() else 0
    return [save(overview(series, at, mean), path.with_name(f"{path.name}.png"))]


def area_mean(chance: xr.DataArray) -> Floats:
    """Mean probability of each instant's whole map, (time,), one map in memory at a time."""
    means = []
    for k in range(chance.sizes["time"]):
        one = chance.isel(time=k).values
        means.append(float(np.nanmean(one)) if np.isfinite(one).any() else np.nan)
    return np.array(means)


def overview(series: xr.Dataset, at: int, mean: Floats) -> Any:
    """One instant's maps above the key parameters of the whole span."""
    from matplotlib.gridspec import GridSpec

    made, unused = figure(1, size=(10.5, 8.2))
    unused.remove()
    drawn = GridSpec(4, 4, figure=made, height_ratios=[3.4, 2.2, 1, 1])
    now = series.isel(time=at)
    middle = int(np.argmin(np.abs(now["MLAT"].values)))
    equator = now.isel(MLAT=middle)
    for column, (name, look) in enumerate((("probability", CHANCE), ("amplitude", POWER))):
        axis = made.add_subplot(drawn[0, 2 * column : 2 * column + 2], projection="polar")
        _dial(axis, made, equator, name, look)
    for column, hour in enumerate((NIGHT, NOON)):
        axis = made.add_subplot(drawn[1, 2 * column : 2 * column + 2])
        _meridian(axis, made, now, hour)
    _keys(made, drawn, series, mean, at)
    lat = float(now["MLAT"].values[middle])
    odd = ((now["extrapolation"].values & 2) > 0).any()
    made.suptitle(
        f"ECH waves at {str(now['time'].values)[:16]} UTC; dials at MLAT {lat:g}°; "
        "white dots: places outside the training"
        + ("\nindex history outside the training" if odd else ""),
        fontsize=10,
    )
    return made


def _edges(centres: Floats) -> Floats:
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    half = np.diff(centres) / 2
    return np.concatenate([[centres[0] - half[0]], centres[:-1] + half, [centres[-1] + half[-1]]])


def _dial(axis: Any, made: Any, flat: xr.Dataset, name: str, look: Any) -> Any:
    from matplotlib import patheffects

    mlt, level = flat["MLT"].values, flat["L"].values
    width = mlt[1] - mlt[0] if len(mlt) > 1 else 1.0
    around = angle(np.append(mlt - width / 2, mlt[-1] + width / 2))
    edge = np.clip(_edges(level), 0, None)
    values = flat[name].transpose("L", "MLT").values
    mesh = axis.pcolormesh(around, edge, np.ma.masked_invalid(values), rasterized=True, **look)
    beyond = (flat["extrapolation"].transpose("L", "MLT").values & 1) > 0
    if beyond.any():
        # Points at the centres of the cells not covered: hatching would hide the colours.
        row, column = np.nonzero(beyond)
        axis.plot(angle(mlt)[column], level[row], ls="", marker=".", ms=1.6, mew=0, color="white")
    axis.grid(False)
    top = float(edge[-1])
    dial(axis, list(range(2, int(top) + 1, 2)), top)
    for label in axis.get_yticklabels():  # readable on dark and on light
        label.set_path_effects([patheffects.withStroke(linewidth=2, foreground="white")])
    what = {"probability": "probability of occurrence", "amplitude": "amplitude (dB)"}[name]
    made.colorbar(mesh, ax=axis, pad=0.09, shrink=0.8, label=what)
    return mesh


def _meridian(axis: Any, made: Any, now: xr.Dataset, hour: float) -> None:
    """Probability in the plane of one MLT: along field lines in radius and height."""
    mlt = now["MLT"].values
    apart = np.abs((mlt - hour + 12) % 24 - 12)
    cut = now.isel(MLT=int(np.argmin(apart)))
    lat, level = np.meshgrid(np.radians(_edges(cut["MLAT"].values)), _edges(cut["L"].values))
    radius = level * np.cos(lat) ** 2
    values = np.ma.masked_invalid(cut["probability"].transpose("L", "MLAT").values)
    mesh = axis.pcolormesh(
        radius * np.cos(lat), radius * np.sin(lat), values, rasterized=True, **CHANCE
    )
    axis.set(xlabel="distance from the axis (R$_E$)", ylabel="height (R$_E$)", aspect="equal")
    axis.set_title(f"meridian at {mlt[int(np.argmin(apart))]:g} h MLT", fontsize=9)
    made.colorbar(mesh, ax=axis, pad=0.02, label="probability")


def _keys(made: Any, drawn: Any, series: xr.Dataset, mean: Floats, at: int) -> None:
    time = series["time"].values
    first = made.add_subplot(drawn[2, :])
    indices(first, series)
    second = made.add_subplot(drawn[3, :], sharex=first)
    second.plot(time, mean, color=COLOURS[2], marker=_marker(time))
    second.set(ylabel="mean\nprobability", ylim=(0, None))
    for axis in (first, second):
        axis.axvline(time[at], color="0.4", lw=0.8, ls="--")
        edge = np.timedelta64(30 if len(time) == 1 else 0, "m")
        axis.set_xlim(time[0] - edge, time[-1] + edge)
        time_axis(axis)


def _marker(time: np.ndarray) -> str:
    """One instant is a point: a line through it would not be seen."""
    return "o" if len(time) == 1 else ""


def indices(axis: Any, series: xr.Dataset) -> None:
    """SME on the left and SYM-H on the right of one panel."""
    if "SME" not in series:
        return
    time = series["time"].values
    mark = _marker(time)
    axis.plot(time, series["SME"], color=COLOURS[1], marker=mark, label="SME")
    other = axis.twinx()
    other.plot(time, series["SYM_H"], color=COLOURS[0], marker=mark, label="SYM-H")
    other.grid(False)
    other.spines["right"].set_visible(True)
    axis.set_ylabel("SME (nT)", color=COLOURS[1])
    other.set_ylabel("SYM-H (nT)", color=COLOURS[0])


def along(series: xr.Dataset) -> Any:
    """Indices, place, probability and amplitude along an orbit."""
    made, axes = figure(4, size=(9.5, 7.5), sharex=True)
    time = series["time"].values
    indices(axes[0], series)
    marks: Any = {"ls": "", "marker": ".", "ms": 2}
    for k, (name, unit) in enumerate((("L", ""), ("MLT", " (h)"), ("MLAT", " (°)"))):
        axes[1].plot(time, series[name], color=COLOURS[k], label=name + unit, **marks)
    axes[1].set_ylabel("place")
    axes[1].legend(fontsize=7, ncols=3, loc="upper right", markerscale=4)
    axes[2].plot(time, series["probability"], color=COLOURS[2])
    axes[2].axhline(series.attrs.get("threshold", 0.5), color="0.5", ls="--", lw=0.8)
    axes[2].set(ylabel="probability", ylim=(-0.02, 1.02))
    if series["amplitude"].ndim == 1:
        low, high = series["amplitude_low"].values, series["amplitude_high"].values
        axes[3].fill_between(time, low, high, color=COLOURS[3], alpha=0.25, lw=0, label="80 %")
    axes[3].plot(time, series["amplitude"], color=COLOURS[3], label="expected", **marks)
    axes[3].set_ylabel("amplitude (dB)")
    axes[3].legend(fontsize=7, loc="upper right")
    time_axis(axes[3])
    made.suptitle(
        f"ECH waves along the orbit, {str(time[0])[:16]} to {str(time[-1])[:16]} UTC", fontsize=10
    )
    return made
