"""From the network's outputs to a forecast: quantiles, fluence, probabilities, flags."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from terrella.tasks.geoflux import conformal, features
from terrella.tasks.geoflux.checks import FILLED, JUMP, NEGATIVE, TIMES
from terrella.tasks.geoflux.choices import alerts
from terrella.tasks.geoflux.daily import DAY_H, DAY_S, HOUR, LEADS
from terrella.tasks.geoflux.task import FLUX_UNITS, Options, Recipe
from terrella.types import Outputs, Product, Record, Refused, Span, Windows

PERCENT = (50, 80, 95)
FLAGS = {
    "flux_gap": 1, "flux_missing": 2, "week_missing": 4, "solar_wind_missing": 8,
    "indices_missing": 16, "field_missing": 32, "negative_removed": 64, "level_shift": 128,
    "filled": 256, "times_repaired": 512, "unsteered": 1024,
}  # fmt: skip
MEANING = {
    "flux_gap": "less than 18 valid hours of flux in the day before issue",
    "flux_missing": "no flux in the day before issue",
    "week_missing": "no flux for a week before issue: no forecast is made",
    "solar_wind_missing": "less than half of the solar wind in the day before issue",
    "indices_missing": "less than half of Kp or SYM-H in the day before issue",
    "field_missing": "less than half of the satellite's magnetic field in the day before issue",
    "negative_removed": "negative fluxes were removed in the day before issue",
    "level_shift": "the level of the flux may have jumped in the 27 days before issue; in a "
    "back-test this is hindsight: judged by up to 27 days after the jump, issue or not",
    "filled": "gaps were filled from a calibrated satellite in the day before issue",
    "times_repaired": "times were out of order or doubled in the input",
    "unsteered": "fewer than 30 outcomes since the end of training had steered the intervals: they "
    "are those of training",
}
STEERED = 30
LO, HI = {50: 0.25, 80: 0.1, 95: 0.025}, {50: 0.75, 80: 0.9, 95: 0.975}


def decode(
    outputs: Outputs, windows: Windows, record: Record, span: Span, recipe: Recipe, options: Options
) -> Product:
    """Forecasts issued in a span.

    Args:
        outputs: of the network, rows as in ``windows``.
        windows: rows of the record, history before the span included: their outcomes after the
            end of training steer the intervals.
        record: what was read.
        span: [first, stop) of issue times.
        recipe, options: of the weights and the run.

    Returns:
        Series by ``time`` (issue time) and ``lead`` (days): ``flux`` (median), ``flux_lo80`` ...,
        ``fluence`` and its intervals, ``log_flux_mean``, ``p_...`` of each alert level,
        ``observed``, ``flags``; by ``hour``: the hourly flux. Events: one row a forecast.

    Raises:
        Refused: an alert level that cannot be read, or no issue time in the span.
    """
    assert windows.y is not None
    truth = windows.y["log_flux"].numpy().astype(float)
    quantile, steered = steer(outputs, truth, windows.time)
    inside = (windows.time >= span[0]) & (windows.time < span[1])
    if not inside.any():
        raise Refused(
            f"no issue time between {span[0].astype('datetime64[h]')} and "
            f"{span[1].astype('datetime64[h]')}: issue times lie every {options.every} h from 00 UT"
        )
    flags = flags_of(windows, record, steered)
    quantile[(flags & FLAGS["week_missing"]) > 0] = np.nan
    mean = np.where(np.isfinite(quantile[..., 0]), outputs["mean"], np.nan)
    series = _series(
        windows.time[inside], quantile[inside], mean[inside], truth[inside], flags[inside], options
    )
    series = _with_history(series, windows, span)
    flux = record["flux"].attrs
    series.attrs.update(
        title="forecast of the daily >2 MeV electron flux at geostationary orbit",
        satellite=flux.get("satellite", ""),
        references="doi:10.1029/2018SW001829",
        remarks=flux.get("remarks", ""),
        calibration=str(flux.get("calibration", "none")),
    )
    return Product(series, events_of(series), {"calibration": flux.get("calibration", [])})


def steer(outputs: Outputs, truth: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of each forecast, steered by outcomes that the network did not learn from.

    Errors on days of training are too small, and would make the intervals too narrow. Every hour
    of the day is steered by forecasts of its own, one a day, so an issue time has the same
    intervals however often forecasts are issued.

    Args:
        outputs: of the network, with ``learnt``, days from 1970 to the end of training.
        truth: (rows, leads) that came true, NaN where unknown.
        time: (rows,) issue times, increasing.

    Returns:
        As ``conformal.quantiles``.
    """
    learnt = np.datetime64(0, "ns") + (outputs["learnt"].max() * DAY_H).astype(int) * HOUR
    begins = time[:, None] + (np.array(LEADS) - 1) * DAY_H * HOUR
    fresh = np.where(begins >= learnt, truth, np.nan)
    quantile = np.full((*truth.shape, len(conformal.LEVELS)), np.nan)
    steered = np.zeros(len(time), int)
    hour = time.astype("datetime64[h]").astype(int) % DAY_H
    for each in np.unique(hour):
        rows = hour == each
        quantile[rows], steered[rows] = conformal.quantiles(
            outputs["mean"][rows].astype(float), outputs["scale"][rows].astype(float),
            outputs["table"][0], fresh[rows], time[rows],
        )  # fmt: skip
    return quantile, steered


def flags_of(windows: Windows, record: Record, steered: np.ndarray) -> np.ndarray:
    """(rows,) uint16 flags of each issue time, by ``FLAGS``."""
    extra, ends = windows.extra, windows.extra["ends"]
    hourly, hours = extra["hourly"], extra["hours"]
    out = np.zeros(len(windows), np.uint16)

    def mark(name: str, where: np.ndarray) -> None:
        out[where] |= np.uint16(FLAGS[name])

    seen = extra["coverage"]
    mark("flux_gap", seen < 18 / DAY_H)
    mark("flux_missing", seen == 0)
    week = _share(np.isfinite(hourly["flux"]), ends, 7 * DAY_H)
    mark("week_missing", week == 0)
    nothing = np.full(len(hours), np.nan)
    for flag, names in (("solar_wind_missing", ("V", "n", "Bz")), ("field_missing", ("Hp",)),
                        ("indices_missing", ("Kp", "SYM-H"))):  # fmt: skip
        there = np.mean([np.isfinite(hourly.get(n, nothing)) for n in names], 0)
        mark(flag, _share(there, ends, DAY_H) < 0.5)
    if "flux_flags" in record:
        bits = np.zeros(len(hours), np.uint8)
        at = ((record["flux_flags"]["time"].values - hours[0]) // HOUR).astype(int)
        np.bitwise_or.at(bits, at, record["flux_flags"].values.astype(np.uint8))
        for bit, flag, length in (
            (NEGATIVE, "negative_removed", DAY_H), (JUMP, "level_shift", features.HISTORY_H),
            (FILLED, "filled", DAY_H), (TIMES, "times_repaired", DAY_H),
        ):  # fmt: skip
            mark(flag, _share((bits & bit) > 0, ends, length) > 0)
    mark("unsteered", steered < STEERED)
    return out


def _share(values: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(values.astype(float))])
    share: np.ndarray = (total[ends] - total[np.maximum(ends - length, 0)]) / length
    return share


def _series(
    time: np.ndarray, quantile: np.ndarray, mean: np.ndarray, truth: np.ndarray,
    flags: np.ndarray, options: Options,
) -> xr.Dataset:  # fmt: skip
    leads, units = ("time", "lead"), {"flux": FLUX_UNITS, "fluence": "cm-2 sr-1 day-1"}
    data: dict[str, Any] = {}

    def at(level: float) -> np.ndarray:
        values: np.ndarray = quantile[..., int(np.argmin(np.abs(conformal.LEVELS - level)))]
        return values

    for name, scale in (("flux", 1.0), ("fluence", DAY_S)):
        long = "daily mean flux >2 MeV" if name == "flux" else "daily fluence >2 MeV"
        for suffix, level, words in (
            ("", 0.5, "median"),
            *((f"_lo{c}", LO[c], f"lower edge of the {c} % interval") for c in PERCENT),
            *((f"_hi{c}", HI[c], f"upper edge of the {c} % interval") for c in PERCENT),
        ):
            attrs = {"units": units[name], "long_name": f"{long}, {words}"}
            data[name + suffix] = (leads, (scale * 10 ** at(level)).astype(np.float32), attrs)
    for kind, level in alerts(options.alerts):
        edge = np.log10(level if kind == "flux" else level / DAY_S)
        label = f"{level:.0e}".replace("e+0", "e").replace("e+", "e")
        data[f"p_{kind}_{label}"] = (
            leads, conformal.exceedance(quantile, edge).astype(np.float32),
            {"units": "1", "long_name": f"probability of a daily {kind} above {level:g} "
             f"{units[kind]}", "threshold": level},
        )  # fmt: skip
    data["log_flux_mean"] = (
        leads, mean.astype(np.float32),
        {"units": "1", "long_name": "mean of log10 of the daily flux in cm-2 s-1 sr-1"},
    )  # fmt: skip
    data["observed"] = (
        leads, (10**truth).astype(np.float32),
        {"units": FLUX_UNITS, "long_name": "daily mean flux that came true, 18 valid hours"},
    )  # fmt: skip
    data["flags"] = (
        ("time",), flags,
        {"flag_masks": np.array(list(FLAGS.values()), np.uint16),
         "flag_meanings": " ".join(FLAGS), "comment": "; ".join(
             f"{k}: {v}" for k, v in MEANING.items())},
    )  # fmt: skip
    made = xr.Dataset(data, coords={"time": time.astype("datetime64[ns]"),
                                    "lead": np.array(LEADS, np.int32)})  # fmt: skip
    made["time"].attrs.update(long_name="issue time, UTC: no forecast uses data at or after it")
    made["lead"].attrs.update(units="days", long_name="1 is the day that starts at issue time")
    return made


def _with_history(series: xr.Dataset, windows: Windows, span: Span) -> xr.Dataset:
    hours, flux = windows.extra["hours"], windows.extra["hourly"]["flux"]
    near = (hours >= span[0] - np.timedelta64(30, "D")) & (hours < span[1] + np.timedelta64(3, "D"))
    return series.assign_coords(hour=hours[near].astype("datetime64[ns]")).assign(
        hourly_flux=(("hour",), flux[near].astype(np.float32),
                     {"units": FLUX_UNITS, "long_name": "hourly flux >2 MeV as measured"})
    )  # fmt: skip


def events_of(series: xr.Dataset) -> pd.DataFrame:
    """One row a forecast: issue time, lead, day, what is expected and how likely alerts are."""
    rows = series.drop_dims("hour").to_dataframe().reset_index().sort_values(["time", "lead"])
    day = rows["time"] + pd.to_timedelta(rows["lead"] - 1, unit="D")
    stamp = "%Y-%m-%dT%H:%MZ"
    alerts_ = [c for c in rows if str(c).startswith("p_")]
    columns = ["flux", "flux_lo80", "flux_hi80", "flux_lo95", "flux_hi95", "fluence", *alerts_]
    table = pd.DataFrame(
        {
            "issued": rows["time"].dt.strftime(stamp),
            "lead": rows["lead"],
            "day_from": day.dt.strftime(stamp),
            **{c: rows[c].map(lambda v: float(f"{v:.4g}")) for c in columns},
            "flags": [flag_names(int(f)) for f in rows["flags"]],
        }
    )
    return table.reset_index(drop=True)


def flag_names(bits: int) -> str:
    """Names of the flags that are set, joined by ``|``."""
    return "|".join(k for k, v in FLAGS.items() if bits & v)
