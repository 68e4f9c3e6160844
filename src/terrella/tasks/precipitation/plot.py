"""Figures: the passes that hold events, and the day in L and MLT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from terrella.plot import COLOURS, angle, dial, figure, save, styled, time_axis
from terrella.types import Product

SHADE = {"REP": COLOURS[1], "CSS": COLOURS[0]}
ENERGY = {1: ">40 keV", 2: ">130 keV", 3: ">287 keV", 4: ">612 keV"}
MOST = 4  # passes drawn in full
HALF = np.timedelta64(150, "s")


def plot(product: Product, path: Path) -> list[Path]:
    """Draw the day in L-MLT and the strongest events in their passes.

    Args:
        product: of one job.
        path: stem; ``.png`` is the overview, ``.events.png`` the passes.

    Returns:
        The files written.
    """
    events = product.events if product.events is not None else pd.DataFrame()
    written = [save(overview(product.series, events), path.with_name(f"{path.name}.png"))]
    if len(events):
        shown = pick(events)
        written.append(
            save(passes(product.series, events, shown), path.with_name(f"{path.name}.events.png"))
        )
    return written


def pick(events: pd.DataFrame) -> pd.DataFrame:
    """The events drawn in full: without flags if there are such, by E4 peak, classes in turn."""
    clean = events[events["flags"].fillna("").eq("")]
    order = (clean if len(clean) else events).sort_values("peak_e4_0", ascending=False)
    by_turn = order.assign(_turn=order.groupby("label").cumcount()).sort_values(
        "_turn", kind="stable"
    )
    # One panel shows all events of its pass.
    middle = pd.to_datetime(by_turn["start"])
    chosen: list[int] = []
    for k in range(len(by_turn)):
        if all(abs(middle.iloc[k] - middle.iloc[j]) > HALF for j in chosen):
            chosen.append(k)
    return by_turn.iloc[chosen[:MOST]].sort_values("start")


@styled
def passes(series: xr.Dataset, events: pd.DataFrame, shown: pd.DataFrame) -> Any:
    """Fluxes of both telescopes and probabilities around each chosen event."""
    made, axes = figure(
        3, size=(3.4 * len(shown) + 1.6, 6.6), ncols=len(shown), squeeze=False, sharex="col",
        sharey="row", height_ratios=[3, 3, 2],
    )  # fmt: skip
    for column, (_, event) in zip(axes.T, shown.iterrows(), strict=True):
        middle = np.datetime64(str(event["start"])[:-1])
        part = series.sel(time=slice(middle - HALF, middle + HALF))
        time = part["time"].to_numpy()
        for energy in range(1, 5):
            for axis, telescope in zip(column, (0, 90), strict=False):
                flux = part[f"e{energy}_{telescope}"].where(lambda f: f > 0)
                axis.semilogy(time, flux, color=COLOURS[energy - 1], label=ENERGY[energy], lw=0.9)
        for k, label in enumerate(("REP", "CSS"), 1):
            column[2].plot(time, part["probability"][:, k], color=SHADE[label], label=label)
        for axis in column:
            shade(axis, events, time)
        column[2].set_ylim(-0.02, 1.05)
        time_axis(column[2])
        begin, end = (pd.Timestamp(t, tz="UTC") for t in (time[0], time[-1]))
        inside = pd.to_datetime(events["start"]).between(begin, end)
        labels = " + ".join(sorted(events.loc[inside, "label"].unique(), reverse=True))
        column[0].set_title(
            f"{labels}  L {event['L']:.1f}  {event['MLT']:04.1f} MLT\n"
            f"{event['satellite']}  {str(event['start'])[:19]}",
            fontsize=8,
        )
    axes[0, 0].set_ylabel("0° flux\n(cm$^{-2}$ s$^{-1}$ sr$^{-1}$)")
    axes[1, 0].set_ylabel("90° flux\n(cm$^{-2}$ s$^{-1}$ sr$^{-1}$)")
    axes[2, 0].set_ylabel("probability")
    for row, columns in ((0, 4), (2, 2)):
        handles, names = axes[row, 0].get_legend_handles_labels()
        if row == 0:
            made.legend(handles, names, fontsize=8, ncols=columns, loc="outside upper left")
        else:
            axes[row, -1].legend(handles, names, fontsize=7, loc="upper right")
    return made


def shade(axis: Any, events: pd.DataFrame, time: np.ndarray) -> None:
    """Shade the events that lie in a span of time."""
    second = np.timedelta64(1, "s")
    for _, event in events.iterrows():
        lo, hi = (np.datetime64(str(event[k])[:-1]) for k in ("start", "stop"))
        if len(time) and hi >= time[0] and lo <= time[-1]:
            axis.axvspan(lo - second, hi + second, color=SHADE[event["label"]], alpha=0.22, lw=0)


@styled
def overview(series: xr.Dataset, events: pd.DataFrame) -> Any:
    """The span at a glance: fluxes against time, and track and events on an L-MLT dial."""
    from matplotlib.gridspec import GridSpec

    made, unused = figure(1, size=(10.0, 5.2))
    unused.remove()
    grid = GridSpec(3, 2, figure=made, width_ratios=[1.7, 1], height_ratios=[2, 2, 1.1])
    panels = [made.add_subplot(grid[k, 0]) for k in range(3)]
    time, L = series["time"].to_numpy(), series["L"].to_numpy()
    belt = (L > 1.5) & (L < 10)
    for axis, name in zip(panels[:2], ("e4_0", "e4_90"), strict=True):
        flux = series[name].to_numpy()
        seen = belt & (flux > 0)
        shown: Any = {"s": 2, "cmap": "viridis", "vmin": 2, "vmax": 4, "rasterized": True}
        axis.scatter(time[seen], L[seen], c=np.log10(flux[seen]), **shown)
        axis.set(ylabel="L", ylim=(1.5, 10), xlim=(time[0], time[-1]))
        axis.set_title(f">612 keV, {name[3:]}° telescope", fontsize=8, loc="left")
    bar = made.colorbar(panels[0].collections[0], ax=panels[:2], pad=0.01)
    bar.set_label("log$_{10}$ flux (cm$^{-2}$ s$^{-1}$ sr$^{-1}$)", fontsize=8)
    for k, label in enumerate(("REP", "CSS"), 1):
        panels[2].plot(time, series["probability"][:, k], color=SHADE[label], lw=0.7, label=label)
    panels[2].set(ylabel="probability", ylim=(-0.02, 1.05), xlim=(time[0], time[-1]))
    panels[2].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.05))
    for axis in panels[:2]:
        axis.sharex(panels[2])
        axis.tick_params(labelbottom=False)
    time_axis(panels[2])
    round_ = made.add_subplot(grid[:, 1], projection="polar")
    _dial(round_, series, events, belt)
    satellite = series.attrs.get("satellite", "")
    counts: Any = events["label"].value_counts() if len(events) else {}
    made.suptitle(
        f"{satellite}  {str(time[0])[:16]} to {str(time[-1])[:16]} UTC:  "
        + ",  ".join(f"{counts.get(k, 0)} {k}" for k in SHADE),
        fontsize=10,
    )  # fmt: skip
    return made


def _dial(axis: Any, series: xr.Dataset, events: pd.DataFrame, belt: np.ndarray) -> None:
    near = belt & (series["L"].to_numpy() < 8.5)
    axis.scatter(
        angle(series["MLT"].to_numpy()[near]),
        series["L"].to_numpy()[near],
        s=0.3,
        color="0.75",
        rasterized=True,
    )
    for label, mark in (("CSS", "s"), ("REP", "o")):
        rows = events[events["label"] == label] if len(events) else events
        if len(rows):
            inside = rows[rows["L"].between(0, 8.5)]
            clean = inside["flags"].fillna("").eq("")
            size = 34 if label == "CSS" else 16  # a REP beside a CSS stays visible
            for part, fill in ((inside[clean], SHADE[label]), (inside[~clean], "none")):
                at = angle(part["MLT"].to_numpy())
                name = label if fill != "none" else None
                edge = "white" if fill != "none" else SHADE[label]
                axis.scatter(
                    at, part["L"], s=size, marker=mark, color=fill, edgecolor=edge, lw=0.6,
                    label=name, zorder=3,
                )  # fmt: skip
    dial(axis, (2, 4, 6, 8), 8.5)
    if len(events):
        axis.legend(fontsize=7, loc="lower left", bbox_to_anchor=(-0.1, -0.12))
    axis.set_title("L and MLT, noon up (hollow: flagged)", fontsize=8)
