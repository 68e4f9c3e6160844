"""Figures: class probabilities over time, and Grad-CAM over the spectrograms it speaks of."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import xarray as xr

from terrella.plot import COLOURS, figure, save, time_axis
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE
from terrella.types import Product
from terrella.weights import UNKNOWN

SHOWN = 6  # windows drawn with their Grad-CAM
HUES = dict(zip(MAGNITUDE, (COLOURS[1], COLOURS[4], COLOURS[5], "#BBBBBB"), strict=True))


def plot(product: Product, path: Path) -> list[Path]:
    """Write ``<path>.png``, and ``<path>.gradcam.png`` where maps were made."""
    series = product.series
    made = [save(_overview(series), path.with_name(f"{path.name}.png"))]
    if "gradcam" in series and series.sizes["time"]:
        made.append(save(_maps(series), path.with_name(f"{path.name}.gradcam.png")))
    return made


def _footer(made: Any, series: xr.Dataset) -> None:
    text = f"{series.attrs['title']}: {series.attrs.get('verdict', UNKNOWN)}"
    wide = round(made.get_figwidth() * 18)  # letters of this size that fit
    made.supxlabel("\n".join(wrap(text, wide)), fontsize=7, color="0.3")


def _overview(series: xr.Dataset) -> Any:
    made, (top, bottom) = figure(2, size=(8.5, 5.0), sharex=True)
    pictures = bool((series["time"].to_numpy() < np.datetime64("1971")).any())
    time = np.arange(series.sizes["time"]) if pictures else series["time"].to_numpy()
    width: Any = 0.9
    if not pictures:
        width = np.timedelta64(round(0.9 * series.attrs["window_s"]), "s") / np.timedelta64(1, "D")
        time = time - np.timedelta64(round(series.attrs["window_s"] / 2), "s")
    floor = np.zeros(len(time))
    for name in MAGNITUDE:
        p = np.nan_to_num(series["magnitude_probability"].sel(magnitude_class=name).to_numpy())
        top.bar(time, p, width, floor, color=HUES[name], label=name)
        floor = floor + p
    top.set(ylabel="probability", ylim=(0, 1), title=_title(series))
    top.legend(ncols=4, loc="upper left", bbox_to_anchor=(0, -0.02), fontsize=8)
    order = ("N", "NE", "E", "SE", "S", "SW", "W", "NW", "Normal")
    p = series["azimuth_probability"].sel(azimuth_class=list(order)).to_numpy().T
    x = np.arange(len(time)) if pictures else time
    mesh = bottom.pcolormesh(x, np.arange(len(order)), p, cmap="cividis", vmin=0, vmax=1)
    bottom.set_yticks(np.arange(len(order)), order)
    bottom.set(ylabel="azimuth class", xlabel="image" if pictures else "centre of window, UTC")
    made.colorbar(mesh, ax=bottom, label="probability", pad=0.01)
    if not pictures:
        time_axis(bottom)
    _footer(made, series)
    return made


def _title(series: xr.Dataset) -> str:
    station = series.attrs.get("station", "")
    return f"{station + ': ' if station else ''}{series.attrs['title']} of magnetic spectrograms"


def _chosen(series: xr.Dataset) -> np.ndarray:
    """Windows to draw: the least Normal first, then in order of time."""
    normal = series["magnitude_probability"].sel(magnitude_class="Normal").to_numpy()
    order = np.argsort(np.nan_to_num(normal, nan=2.0), kind="stable")[:SHOWN]
    return np.sort(order)


def _maps(series: xr.Dataset) -> Any:
    rows = _chosen(series)
    made, axes = figure(2, size=(2.3 * len(rows) + 1.6, 5.0), ncols=len(rows), sharex=True,
                        sharey=True, squeeze=False)  # fmt: skip
    low, high = (series["spectrogram"].attrs[f"db_at_{k}"] for k in (0, 255))
    hours = series["offset"].to_numpy() / 3600
    band = series["frequency"].to_numpy()
    box = (hours[0], hours[-1], band[-1], band[0])
    shown: Any = None
    over: Any = None
    for column, row in enumerate(rows):
        one = series.isel(time=row)
        level = one["spectrogram"].to_numpy().mean(0) / 255 * (high - low) + low
        upper, lower = axes[0][column], axes[1][column]
        kind: Any = {"extent": box, "aspect": "auto", "origin": "upper"}
        shown = upper.imshow(level, cmap="gray", vmin=low, vmax=high, **kind)
        lower.imshow(level, cmap="gray", vmin=low, vmax=high, **kind)
        cam = one["gradcam"].to_numpy() / 255
        over = lower.imshow(cam, cmap="magma", vmin=0, vmax=1, alpha=0.55, **kind)
        p = one["magnitude_probability"].to_numpy()
        name = "dropped" if np.isnan(p).all() else f"{MAGNITUDE[int(p.argmax())]} {p.max():.2f}"
        a = one["azimuth_probability"].to_numpy()
        where = "" if np.isnan(a).all() else f", {AZIMUTH[int(a.argmax())]}"
        stamp = str(one["time"].to_numpy().astype("datetime64[m]")).replace("T", "\n")
        picture = one["time"].to_numpy() < np.datetime64("1971")
        upper.set_title(f"image {row + 1}" if picture else stamp, fontsize=7)
        lower.set_title(name + where, fontsize=8)
        lower.set_xlabel("hours")
        for axis in (upper, lower):
            axis.grid(False)
    axes[0][0].set_ylabel("frequency, Hz")
    axes[1][0].set_ylabel("frequency, Hz")
    made.colorbar(shown, ax=list(axes[0]), label="mean of H, D, Z\ndB re 1 nT$^2$/Hz", pad=0.01)
    made.colorbar(over, ax=list(axes[1]), label="Grad-CAM", pad=0.01)
    _footer(made, series)
    return made
