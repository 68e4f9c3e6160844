"""From two stages to a product in CF form: probability, occurrence, amplitude, what to distrust."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit

from terrella.sources.geomagnetic import FLAGS
from terrella.tasks.ech.places import parse_grid
from terrella.tasks.ech.task import Options, Recipe
from terrella.types import Product, Record, Span, Windows

Z80 = np.float32(1.2815516)  # half width of a Gaussian's central 80 % in its spreads
MISSING = 16
ABOUT = {
    "probability": ("probability that an ECH wave occurs", "1"),
    "amplitude": ("expected amplitude of the wave, if one occurs", "dB"),
    "amplitude_low": ("10 % quantile of the amplitude", "dB"),
    "amplitude_high": ("90 % quantile of the amplitude", "dB"),
}
UNITS = {"L": ("McIlwain L", "1"), "MLT": ("magnetic local time", "h"),
         "MLAT": ("magnetic latitude", "degrees")}  # fmt: skip


def decode(
    outputs: Mapping[str, NDArray[np.floating]],
    windows: Windows,
    record: Record,
    span: Span,
    recipe: Recipe,
    options: Options,
) -> Product:
    """A map (time, L, MLT, MLAT) or a series along an orbit (time).

    Args:
        outputs: ``logit``, ``mean``, ``spread`` (dB), ``beyond``, each (rows, points).
        windows: of the same rows. record: what they were made from.
        span: [start, stop) that the product is to cover.
    """
    keep = (windows.time >= span[0]) & (windows.time < span[1])
    found = {k: v[keep] for k, v in outputs.items()}
    valid = windows.valid[keep]
    chance = np.where(valid[:, None], expit(found["logit"]), np.nan).astype(np.float32)
    mean = np.where(valid[:, None], found["mean"], np.nan).astype(np.float32)
    half = Z80 * found["spread"]
    happens = np.where(np.isnan(chance), -1, chance >= np.float32(options.threshold)).astype(
        np.int8
    )
    arrays: dict[str, NDArray[Any]] = {
        "probability": chance,
        "occurrence": happens,
        "amplitude": mean,
        "amplitude_low": mean - half,
        "amplitude_high": mean + half,
        "extrapolation": found["beyond"].astype(np.uint8),
    }
    dims, shape, coords = _axes(record, windows.time[keep], keep)
    series = xr.Dataset({n: (dims, v.reshape(shape)) for n, v in arrays.items()}, coords)
    flag = windows.extra["flag"][keep] | np.where(windows.extra["whole"][keep], 0, MISSING)
    series["history_flag"] = ("time", flag.astype(np.uint8))
    for name, history, text in (("SME", "sme_fast", "SME, or AE in its place"),
                                ("SYM_H", "symh_fast", "SYM-H")):  # fmt: skip
        value = np.where(
            windows.extra["whole"][keep], windows.x[history][:, -1].numpy()[keep], np.nan
        )
        series[name] = ("time", value.astype(np.float32), {"long_name": text, "units": "nT"})
    _describe(series, options)
    if len(shape) > 1:
        for name in arrays:  # one instant a chunk: a film reads maps one by one
            series[name].encoding["chunksizes"] = (1, *shape[1:])
    return Product(series, None, {})


def _axes(
    record: Record, time: NDArray[np.datetime64], keep: NDArray[np.bool_]
) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
    place = record["L"]
    if "grid" in place.attrs:
        grid = parse_grid(place.attrs["grid"])
        coords = {"time": time, "L": grid.L, "MLT": grid.MLT, "MLAT": grid.MLAT}
        return ("time", "L", "MLT", "MLAT"), (len(time), *grid.shape), coords
    dims = ("time", "probe")[: place.ndim]
    along = {n: (dims, record[n].values[keep]) for n in ("L", "MLT", "MLAT")}
    return dims, (len(time), *place.shape[1:]), {"time": time, **along}


def _describe(series: xr.Dataset, options: Options) -> None:
    for name, (long_name, units) in {**ABOUT, **UNITS}.items():
        series[name].attrs.update(long_name=long_name, units=units)
    series["time"].attrs.update(long_name="instant, UTC", standard_name="time")
    series["occurrence"].attrs.update(
        long_name=f"probability at least {options.threshold:g}", units="1",
        threshold=options.threshold, flag_values=np.array([-1, 0, 1], np.int8),
        flag_meanings="unknown no_wave wave",
    )  # fmt: skip
    series["extrapolation"].attrs.update(
        long_name="outside what the network was trained on", units="1",
        flag_masks=np.array([1, 2], np.uint8),
        flag_meanings="place_not_covered history_not_covered",
    )  # fmt: skip
    bits = {**FLAGS, "history_incomplete": MISSING}
    series["history_flag"].attrs.update(
        long_name="what the index histories were made of", units="1",
        flag_masks=np.array(list(bits.values()), np.uint8), flag_meanings=" ".join(bits),
    )  # fmt: skip
    series.attrs.update(
        title="ECH wave occurrence and amplitude",
        threshold=options.threshold,
        amplitude_reference="that of the data the weights were trained on",
    )
