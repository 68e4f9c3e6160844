"""How this task is trained and judged: rolling origin, the past alone for each test year."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella.learn.metrics import ratio, reliability
from terrella.tasks.geoflux import conformal
from terrella.tasks.geoflux.daily import LEADS
from terrella.tasks.geoflux.inputs import Inputs, assemble, open_source
from terrella.tasks.geoflux.prepare import check_causal, folds, prepare, take
from terrella.tasks.geoflux.simulate import as_series, simulate
from terrella.tasks.geoflux.task import Evaluation, Options, Recipe
from terrella.types import Fold, Outputs, Record, Refused, Scene, Windows

ALERT = 3.0  # log10 of NOAA's flux alert, cm-2 s-1 sr-1
BLOCK, EPOCH = np.timedelta64(27, "D"), np.datetime64("2000-01-01", "ns")
ACTIVITY = ("Kp >= 5", "quiet")  # whether Kp reached 5 in the 48 h before issue
AHEAD = np.timedelta64(24 * max(LEADS), "h")  # a row's last target ends so long after issue
# Closer rows share hours of their targets; at AHEAD itself one's end where the other's begin.
EMBARGO = AHEAD - np.timedelta64(1, "us")
KNOWN = ("last", "lags", "storm")  # what models and judge may see beside the inputs
LEAST = 200  # training rows without which nothing is judged


def judge(outputs: Outputs, scene: Scene, recipe: Recipe, options: Options) -> pd.DataFrame:
    """Errors, quantiles and probabilities of every issue time and lead that can be scored.

    Scored are forecasts whose target day and last day before issue both have enough valid hours;
    the same for every model. Intervals are steered by outcomes known at each issue time, for every
    model alike.

    Returns:
        One row an issue time and lead, with ``lead``, ``block`` (27 days), ``group`` (the year)
        and ``activity``.
    """
    windows = scene.windows
    assert windows.y is not None
    order = np.argsort(windows.time, kind="stable")
    truth, time = windows.y["log_flux"].numpy().astype(float)[order], windows.time[order]
    mean = outputs["mean"][order].astype(float)
    quantile, _ = conformal.quantiles(
        mean, outputs["scale"][order].astype(float), outputs["table"][0], truth, time
    )
    crps, p = conformal.crps(quantile, truth), conformal.exceedance(quantile, ALERT)
    last, storm = windows.extra["last"][order], windows.extra["storm"][order]
    year = windows.groups["year"][order]
    parts = []
    for k, lead in enumerate(LEADS):
        scored = np.isfinite(truth[:, k]) & np.isfinite(last) & windows.valid[order]
        above = (truth[:, k] > ALERT).astype(float)
        inside = {f"in{c}": _inside(quantile[:, k], truth[:, k], c) for c in (50, 80, 95)}
        part = pd.DataFrame(
            {
                "lead": lead, "time": time, "truth": truth[:, k], "mean": mean[:, k],
                "square": (truth[:, k] - mean[:, k]) ** 2, "crps": crps[:, k],
                "brier": (p[:, k] - above) ** 2, "rows": 1.0, "year": year,
                "group": year.astype(str), "block": (time - EPOCH) // BLOCK,
                "activity": np.select([storm == 1, storm == 0], ACTIVITY, ""),
                **inside, "storm": storm == 1, "in80_storm": inside["in80"] * (storm == 1),
                **reliability(p[:, k], above),
            }
        )  # fmt: skip
        parts.append(part[scored])
    table: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return table


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
    return float(np.sqrt(ratio("square", "rows")(table, weight)))


crps, brier = ratio("crps", "rows"), ratio("brier", "rows")
coverage50, coverage80, coverage95 = (ratio(f"in{c}", "rows") for c in (50, 80, 95))
coverage80_storm = ratio("in80_storm", "storm")


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
        test = _inside_year(_bare(take(windows, rows)), stop)
        learned, held = folds(_before(_bare(_rows(record, recipe, options)), start), recipe)
        if learned.valid.sum() < LEAST:
            raise Refused(
                f"--years {year}: {int(learned.valid.sum())} training rows before it; give more "
                "years"
            )
        sim = "" if paths else "simulated solar cycle, "
        yield Fold(
            f"year {year}", (Scene(record, test),), (learned,), (held,), refit=True,
            data=f"{sim}{source.series['flux'].attrs.get('satellite', '')} daily means, "
            f"{recipe.need} valid hours at least",
            split="rolling origin: trained only on data before each test year; 27-day blocks",
            keys=("year",), embargo=EMBARGO,
        )  # fmt: skip


def _all(source: Inputs) -> Record:
    return dict(source.series)


def _rows(record: Record, recipe: Recipe, options: Options) -> Windows:
    return prepare(record, recipe, dataclasses.replace(options, every=recipe.every, issue=""))


def _bare(windows: Windows) -> Windows:
    """Rows without the hourly series, which run on past their issue times: for decoding alone."""
    return dataclasses.replace(windows, extra={k: windows.extra[k] for k in KNOWN})


def _before(windows: Windows, start: np.datetime64) -> Windows:
    """Rows whose last target ends before ``start``."""
    return take(windows, np.asarray(windows.time + AHEAD <= start))


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
