"""Verbs of this task: drivers, calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from terrella import files
from terrella.tasks.geoflux.task import Options
from terrella.types import Refused

Data = Annotated[list[Path], typer.Argument(metavar="DATA ...", help="files or folders")]
Out = Annotated[Path, typer.Option(help="folder for the table and figure")]


def drivers(
    data: Data,
    out: Out = Path("out/drivers"),
    offsets: Annotated[int, typer.Option(help="longest offset, days", min=0, max=400)] = 10,
    draws: Annotated[int, typer.Option(help="of the block bootstrap", min=100)] = 1000,
    seed: Annotated[int, typer.Option(help="of the bootstrap")] = 0,
    satellite: Annotated[str, typer.Option(help="whose flux (goes15)")] = "",
) -> None:
    """Offset-time analysis: how the flux follows each driver, day by day.

    Writes drivers.csv and drivers.png, and prints the history length they imply.
    """
    from terrella.plot import save
    from terrella.tasks.geoflux.drivers import analyse, daily, heatmap, history
    from terrella.tasks.geoflux.inputs import open_source
    from terrella.tasks.geoflux.prepare import hourly_series, issue_ends
    from terrella.verbs import warnings_as_lines

    with warnings_as_lines():
        source = open_source(data, Options(satellite=satellite))
    hourly, hours = hourly_series(source.series)
    ends = issue_ends(hours, Options())
    if len(ends) < 100 + offsets:
        raise Refused(f"{len(ends)} days: an offset-time analysis needs {100 + offsets} at least")
    table = analyse(daily(hourly, ends), offsets, draws, seed)
    with files.whole(out / "drivers.csv") as scratch:
        table.round(4).to_csv(scratch, index=False, lineterminator="\n")
    save(heatmap(table), out / "drivers.png")
    best = table.dropna().assign(size=lambda t: t["rho"].abs())
    for name, part in best.groupby("driver", sort=False):
        top = part.iloc[int(part["size"].to_numpy().argmax())]
        print(f"{name:8s} strongest at {int(top.offset_days)} d: rho {top.rho:+.2f} "
              f"({top.lo:+.2f} .. {top.hi:+.2f}), p {top.p:.3f}")  # fmt: skip
    print(f"history implied: {history(table)} days")
    print(out / "drivers.csv")


def calibrate(
    data: Data,
    pair: Annotated[str, typer.Option(help="A:B puts satellite A on B's scale")],
    out: Out = Path("out/calibrate"),
    until: Annotated[str, typer.Option(help="fit on days before this one only")] = "",
    kind: Annotated[str, typer.Option(help="best, straight or piecewise")] = "best",
) -> None:
    """Fit one satellite to another on log10 daily flux; writes the line, its figure and a check.

    The check is the median log10 ratio of each year, fitted or not.
    """
    from terrella.plot import save
    from terrella.sources.base import instant
    from terrella.tasks.geoflux import calibrate as lines
    from terrella.tasks.geoflux.inputs import open_source
    from terrella.verbs import warnings_as_lines

    if kind not in ("best", "straight", "piecewise"):
        raise Refused(f"--kind {kind!r}: it is best, straight or piecewise")
    pairs = lines.pairs(pair, "--pair")
    rows, figures = [], []
    for satellite, reference in pairs:
        with warnings_as_lines():
            x, day = daily_of(open_source(data, Options(satellite=satellite)).series["flux"])
            y, day_y = daily_of(open_source(data, Options(satellite=reference)).series["flux"])
        days, at_x, at_y = np.intersect1d(day, day_y, return_indices=True)
        x, y = x[at_x], y[at_y]
        fitted = days < (instant(until, "--until") if until else days[-1] + np.timedelta64(1, "D"))
        made = lines.fit(x, np.where(fitted, y, np.nan), days, satellite, reference,
                         kind=kind, flag="--pair")  # fmt: skip
        ratio, before = np.log10(made.apply(10**x)) - y, x - y
        years = days.astype("datetime64[Y]").astype(int) + 1970
        for year in np.unique(years[np.isfinite(ratio)]):
            rest = (years == year) & np.isfinite(ratio)
            used = bool(fitted[rest].any())
            after = float(np.median(ratio[rest]))
            rows.append({**made.describe(), "year": int(year), "n": int(rest.sum()),
                         "median_log10_ratio": round(after, 4),
                         "median_log10_ratio_before": round(float(np.median(before[rest])), 4),
                         "fitted": used})  # fmt: skip
            print(f"{satellite}:{reference} {year}: median log10 ratio {after:+.4f} "
                  f"({int(rest.sum())} days{'' if used else ', not fitted'})")  # fmt: skip
        moved = lines.drift(ratio, days)
        for row in rows[-len(np.unique(years[np.isfinite(ratio)])) :]:
            row["drift_dex_a_year"] = round(moved, 4)
        print(f"{satellite}:{reference} what is left drifts by {moved:+.4f} dex a year: fit anew "
              "when later days are there")  # fmt: skip
        shared = pd.DataFrame({"x": x, "y": y}).dropna()
        figures.append(save(_figure(made, shared), out / f"{satellite}_{reference}.png"))
    with files.whole(out / "calibration.csv") as scratch:
        pd.DataFrame(rows).to_csv(scratch, index=False, lineterminator="\n")
    print(out / "calibration.csv")


def daily_of(flux: Any) -> tuple[np.ndarray, np.ndarray]:
    """log10 daily flux of a series and its days, (days,) each."""
    from terrella.tasks.geoflux.daily import DAY_H, daily_log_flux, hours_of, to_hours

    time = flux["time"].values
    hours = hours_of(time[0].astype("datetime64[D]").astype("datetime64[ns]"),
                     time[-1] + np.timedelta64(1, "ns"))  # fmt: skip
    ends = np.arange(DAY_H, len(hours) + 1, DAY_H)
    return daily_log_flux(to_hours(flux, hours), ends, 18), hours[ends - DAY_H]


def _figure(made: Any, shared: pd.DataFrame) -> Any:
    from terrella.plot import COLOURS, figure

    drawn, axis = figure(1, size=(5.2, 4.6))
    axis.plot(shared["x"], shared["y"], ".", ms=2.5, color="0.5", label="days of both")
    x = np.linspace(shared["x"].min(), shared["x"].max(), 100)
    axis.plot(x, np.log10(made.apply(10**x)), color=COLOURS[1], lw=1.6,
              label=f"fit, {made.first} to {made.last}")  # fmt: skip
    axis.plot(x, x, color=COLOURS[0], lw=0.8, ls="--", label="equal")
    axis.set_xlabel(f"log10 daily flux, {made.satellite} (cm$^{{-2}}$ s$^{{-1}}$ sr$^{{-1}}$)")
    axis.set_ylabel(f"log10 daily flux, {made.reference}")
    axis.set_title(f"correction at the median {made.lo:+.3f} .. {made.hi:+.3f} dex (95 %)")
    axis.legend(fontsize=7)
    return drawn
