"""How this task is trained and judged: rolling origin, the past alone for each test year."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella.tasks.geoflux import conformal
from terrella.tasks.geoflux.daily import LEADS
from terrella.tasks.geoflux.inputs import Inputs, assemble, open_source
from terrella.tasks.geoflux.prepare import check_causal, folds, prepare, take
from terrella.tasks.geoflux.simulate import as_series, simulate
from terrella.tasks.geoflux.task import Evaluation, Options, Recipe
from terrella.types import Fold, Outputs, Record, Refused, Scene, Windows

ALERT = 3.0  # log10 of NOAA's flux alert, cm-2 s-1 sr-1
BLOCK = np.timedelta64(27, "D")
LEAST = 200  # training days without which nothing is judged
Metric = Callable[[pd.DataFrame, np.ndarray], float]


def judge(outputs: Outputs, scene: Scene, recipe: Recipe, options: Options) -> pd.DataFrame:
    """Errors, quantiles and probabilities of every issue time and lead that can be scored.

    Scored are forecasts whose target day and last day before issue both have enough valid hours;
    the same for every model. Intervals are steered by outcomes known at each issue time, for every
    model alike.

    Returns:
        One row an issue time and lead, with ``lead``, ``block`` (27 days), ``group`` and ``year``.
    """
    windows = scene.windows
    assert windows.y is not None
    truth = windows.y["log_flux"].numpy().astype(float)
    order = np.argsort(windows.time, kind="stable")
    table = outputs["table"][0]
    quantile, _ = conformal.quantiles(
        outputs["mean"][order].astype(float), outputs["scale"][order].astype(float), table,
        truth[order], windows.time[order],
    )  # fmt: skip
    mean, time, truth = outputs["mean"][order].astype(float), windows.time[order], truth[order]
    storm, last = windows.extra["storm"][order], windows.extra["last"][order]
    year = windows.groups["year"][order]
    crps = conformal.crps(quantile, truth)
    p = conformal.exceedance(quantile, ALERT)
    parts = []
    for k, lead in enumerate(LEADS):
        scored = np.isfinite(truth[:, k]) & np.isfinite(last) & windows.valid[order]
        part = pd.DataFrame(
            {
                "lead": lead, "time": time, "truth": truth[:, k], "mean": mean[:, k],
                "crps": crps[:, k], "storm": storm.astype(float), "p_alert": p[:, k],
                "alert": (truth[:, k] > ALERT).astype(float), "year": year,
                "group": year.astype(str),
                "block": ((time - np.datetime64("2000-01-01")) // BLOCK).astype(int),
                **{f"in{c}": _inside(quantile[:, k], truth[:, k], c) for c in (50, 80, 95)},
            }
        )  # fmt: skip
        parts.append(part[scored])
    table_: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return table_


def _inside(quantile: np.ndarray, truth: np.ndarray, percent: int) -> np.ndarray:
    edge = (1 - percent / 100) / 2
    lo, hi = (int(np.argmin(np.abs(conformal.LEVELS - e))) for e in (edge, 1 - edge))
    return ((truth >= quantile[:, lo]) & (truth <= quantile[:, hi])).astype(float)


def prediction_efficiency(table: pd.DataFrame, weight: np.ndarray) -> float:
    """PE = 1 - sum (m - p)^2 / sum (m - mean m)^2 on log10 flux; the mean over years of each."""
    values = []
    m, p, years = (table[c].to_numpy() for c in ("truth", "mean", "year"))
    for year in np.unique(years):
        rows = years == year
        w, truth = weight[rows], m[rows].astype(float)
        if w.sum() < 2:
            continue
        around = truth - (w @ truth) / w.sum()
        spread = float(w @ around**2)
        if spread > 0:
            values.append(1 - float(w @ (truth - p[rows]) ** 2) / spread)
    return float(np.mean(values)) if values else float("nan")


def rmse(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Root mean square error, dex."""
    error = (table["truth"] - table["mean"]).to_numpy(float)
    return float(np.sqrt(_mean(error**2, weight)))


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    total = float(weight.sum())
    return float(weight @ values) / total if total else float("nan")


def _share(column: str, only: str = "") -> Metric:
    def metric(table: pd.DataFrame, weight: np.ndarray) -> float:
        counted = weight * table[only].to_numpy(float) if only else weight
        return _mean(table[column].to_numpy(float), counted)

    return metric


mean_crps = _share("crps")
coverage50, coverage80, coverage95 = (_share(f"in{c}") for c in (50, 80, 95))
coverage80_storm = _share("in80", "storm")


def brier(table: pd.DataFrame, weight: np.ndarray) -> float:
    """Brier score of the probability of more than 1e3 cm-2 s-1 sr-1."""
    error = (table["p_alert"] - table["alert"]).to_numpy(float)
    return _mean(error**2, weight)


def training(
    paths: Sequence[Path], config: Mapping[str, Any], recipe: Recipe, options: Options
) -> tuple[list[Windows], list[Windows]]:
    """Rows to learn from and rows to check on, by member (see ``prepare.folds``).

    Args:
        paths: files or folders; a simulated solar cycle if none.
        config: ``seed`` and ``years`` of the simulation where no files are given.
        recipe, options: as for a run.
    """
    source = open_source(paths, options) if paths else _simulated(config, options)
    windows = _rows(_all(source), recipe, options)
    learned, held = folds(windows, recipe)
    years = np.unique(windows.time[learned.valid].astype("datetime64[Y]").astype(int) + 1970)
    flux = source.series["flux"].attrs
    told = (
        f"{flux.get('satellite', '')} {years.min()}-{years.max()}, issued every {recipe.every} h"
        + ("" if paths else " (simulated)")
    )
    for part in (learned, held):
        part.extra["data"] = told
        part.extra["split"] = (
            f"{recipe.members} folds of {recipe.block}-day blocks, one left out by each member"
        )
    return [learned], [held]


def plan(
    paths: Sequence[Path], evaluation: Evaluation, recipe: Recipe, options: Options
) -> Iterator[Fold]:
    """Test years, each with a network and baselines trained on the years before it alone.

    Raises:
        Refused: a year without data, too little before it, or an input that looks ahead.
    """
    first_source = open_source(paths, options) if paths else _simulated({}, options)
    time = first_source.series["flux"]["time"].values
    years = _years(evaluation.years, time, [str(p) for p in paths])
    for year in years:
        start, stop = (np.datetime64(f"{y}-01-01", "ns") for y in (year, year + 1))
        source = first_source
        if options.calibrate:
            source = open_source(paths, options, until=start)
        record = _all(source)
        daily = dataclasses.replace(options, every=24, issue="")
        check_causal(record, recipe, daily, start + np.timedelta64(40, "D"))
        windows = prepare(record, recipe, daily)
        rows = (windows.time >= start) & (windows.time < stop)
        if not rows.any():
            raise Refused(f"--years {year}: no issue time of that year lies in the data")
        test = _inside_year(take(windows, rows), stop)
        learned, held = folds(_before(_rows(record, recipe, options), start), recipe)
        if learned.valid.sum() < LEAST:
            raise Refused(
                f"--years {year}: {int(learned.valid.sum())} training rows before it; give more "
                "years"
            )
        sim = "" if paths else "simulated solar cycle, "
        yield Fold(
            str(year), (Scene(record, test),), (learned,), (held,), refit=True,
            data=f"{sim}{source.series['flux'].attrs.get('satellite', '')} daily means, "
            f"{recipe.need} valid hours at least",
            split="rolling origin: trained only on data before each test year; 27-day blocks",
            keys=("year",),
        )  # fmt: skip


def _all(source: Inputs) -> Record:
    return dict(source.series)


def _rows(record: Record, recipe: Recipe, options: Options) -> Windows:
    return prepare(record, recipe, dataclasses.replace(options, every=recipe.every, issue=""))


def _before(windows: Windows, start: np.datetime64) -> Windows:
    """Rows whose last target ends before ``start``."""
    known = np.asarray(windows.time + np.timedelta64(24 * max(LEADS), "h") <= start)
    return take(windows, known)


def _inside_year(windows: Windows, stop: np.datetime64) -> Windows:
    """Targets that end after ``stop`` are another year's."""
    assert windows.y is not None
    truth = windows.y["log_flux"].clone()
    for k, lead in enumerate(LEADS):
        late = np.flatnonzero(windows.time + np.timedelta64(24 * lead, "h") > stop)
        truth[late, k] = float("nan")
    return dataclasses.replace(windows, y={**windows.y, "log_flux": truth})


def _years(text: str, time: np.ndarray, where: Sequence[str]) -> list[int]:
    has = np.unique(time.astype("datetime64[Y]").astype(int) + 1970)
    if not text:
        return [int(y) for y in has[-2:]]
    try:
        years = sorted({int(y) for y in text.split(",") if y.strip()})
    except ValueError:
        raise Refused(f"--years {text!r}: write it as 2017,2018") from None
    for year in years:
        if year not in has:
            place = ", ".join(where) or "the simulation"
            raise Refused(f"--years {year}: {place} holds {has.min()} to {has.max()}")
    return years


def _simulated(config: Mapping[str, Any], options: Options) -> Inputs:
    hours = float(config.get("years", 6)) * 8766.0
    record = simulate(seed=int(config.get("seed", 3)), hours=hours)
    return assemble(as_series(record), options, "simulated")
