"""A simulated solar cycle: hourly solar wind, indices and flux with a known law.

Streams and storms drive radial diffusion and loss as in a leaky bucket: log10 flux relaxes towards
a level set by the speed of a day or two ago, drops out when the magnetopause is pressed inwards,
and is modulated by local time. Since the law and the noise are known, so is the distribution of
tomorrow's flux given everything up to the issue time and the wind to come.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from terrella import files
from terrella.sources.columns import Series
from terrella.tasks.geoflux.daily import HOUR, subsolar_distance
from terrella.tasks.geoflux.task import FLUX_UNITS, INPUTS
from terrella.types import Record

START = "2008-01-01"
LONGITUDE = -135.0  # of the satellite, degrees: noon at 21 UT
CYCLE_H = 11 * 8766.0
UNITS = {v.name: v.units for v in INPUTS}


def simulate(seed: int = 0, hours: float = 24 * 400.0, start: str = START) -> Record:
    """A scene with its truth.

    Args:
        seed: of everything random.
        hours: length; eleven years make a solar cycle.
        start: first hour, UTC.

    Returns:
        Hourly series of the task's inputs with gaps; ``truth`` (time,) is the flux without the
        instrument's noise, cm-2 s-1 sr-1.
    """
    n = max(int(hours), 48)
    rng = np.random.default_rng(seed)
    time = (np.datetime64(start, "h") + np.arange(n)).astype("datetime64[ns]")
    phase = np.arange(n) / CYCLE_H
    wind = _wind(rng, n, phase)
    indices = _indices(rng, wind)
    level = _belt(rng, wind, indices["Kp"])
    local = ((time - time.astype("datetime64[D]")) / HOUR + LONGITUDE / 15) % 24
    cycle = 0.45 * np.cos(2 * np.pi * (local - 12) / 24)
    clean = 10 ** (level + cycle)
    noise = 10 ** rng.normal(0, 0.04, n)
    flux = clean * noise + rng.gamma(20, 0.02, n)
    flux_08 = 10 ** (0.6 * (level + 0.6 * cycle) + 2.8 + rng.normal(0, 0.05, n))
    Hp = 95 + 18 * np.cos(2 * np.pi * (local - 12) / 24) - 3 * indices["Kp"] + rng.normal(0, 4, n)
    series = {
        "flux": flux, "flux_08": flux_08, "Hp": Hp, "B": np.hypot(Hp, 25), **wind, **indices,
        "truth": clean,
    }  # fmt: skip
    _gaps(rng, series, n)
    record = {}
    for name, values in series.items():
        made = xr.DataArray(values, dims="time", coords={"time": time}, name=name)
        made.attrs["units"] = UNITS.get(name, FLUX_UNITS)
        record[name] = made
    record["flux"].attrs["satellite"] = "simulated"
    return record


def _red(rng: np.random.Generator, n: int, hours: float) -> np.ndarray:
    """Noise of unit variance with a memory of some hours."""
    from scipy.signal import lfilter

    a = np.exp(-1 / hours)
    made: np.ndarray = lfilter([np.sqrt(1 - a**2)], [1, -a], rng.normal(size=n))
    return made


def _wind(rng: np.random.Generator, n: int, phase: np.ndarray) -> dict[str, np.ndarray]:
    """Recurrent fast streams, strongest in the declining phase, and transients near maximum."""
    t = np.arange(n)
    turn = 2 * np.pi * t / (27 * 24)
    declining = np.exp(-(((phase % 1) - 0.7) ** 2) / 0.03)
    active = np.sin(np.pi * (phase % 1)) ** 2
    slow = _red(rng, n, 27 * 24 * 4)
    streams = sum(np.exp(3.0 * (np.cos(k * turn / 2 + 2 * slow + k) - 1)) for k in (2, 3, 4))
    V = 350 + (90 + 170 * declining) * np.minimum(streams, 1.3) + 35 * _red(rng, n, 18)
    n_sw = 5.0 * (350 / np.clip(V, 280, None)) ** 1.5 * 10 ** (0.18 * _red(rng, n, 8))
    # Compression where a fast stream runs into the slow wind ahead of it.
    rise = np.clip(np.gradient(np.convolve(V, np.ones(12) / 12, "same")), 0, None)
    n_sw *= 1 + 0.25 * rise
    Bt = 4.5 + 2 * np.sqrt(n_sw / 5) + np.abs(1.5 * _red(rng, n, 8))
    Bz = 0.5 * Bt * _red(rng, n, 3)
    for at in np.flatnonzero(rng.random(n) < active * 3 / (27 * 24)):
        long = min(int(rng.integers(18, 40)), n - int(at))
        span = slice(int(at), int(at) + long)
        x = np.linspace(0, 1, long)
        V[span] += rng.uniform(80, 300) * np.exp(-1.5 * x)
        n_sw[span] *= 1 + rng.uniform(0.5, 3) * np.exp(-6 * x)
        Bt[span] += rng.uniform(4, 18) * (1 - x)
        Bz[span] += rng.uniform(5, 18) * np.sin(2 * np.pi * x + rng.uniform(0, 6.3))
    V = np.clip(V, 260, 1100)
    Pdyn = 1.92e-6 * n_sw * V**2
    T = 10 ** (4.8 + 0.004 * (V - 400) + 0.1 * _red(rng, n, 6))
    return {"V": V, "n": n_sw, "Pdyn": Pdyn, "T": T, "Bz": Bz, "Bt": np.maximum(Bt, np.abs(Bz))}


def _indices(rng: np.random.Generator, wind: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from scipy.signal import lfilter

    n = len(wind["V"])
    coupling = wind["V"] * np.maximum(-wind["Bz"], 0) / 1000  # mV/m
    drive = lfilter([0.35], [1, -0.65], coupling)
    steps = 0.5 + 1.6 * np.sqrt(np.maximum(drive, 0)) + (wind["V"] - 350) / 180
    kp = steps + 0.3 * _red(rng, n, 6)
    whole = np.repeat(kp[: -(-n // 3) * 3 : 3], 3)[:n]
    Kp = np.round(np.clip(whole, 0, 9) * 3) / 3
    ring = lfilter([-4.5], [1, -np.exp(-1 / 9)], np.maximum(coupling - 0.4, 0))
    SYMH = ring + 7 * np.sqrt(wind["Pdyn"]) - 14
    AE = 60 + 170 * drive * 10 ** (0.12 * _red(rng, n, 2))
    return {"Kp": Kp, "SYM-H": SYMH, "AE": AE, "AL": -0.65 * AE}


def _belt(rng: np.random.Generator, wind: dict[str, np.ndarray], Kp: np.ndarray) -> np.ndarray:
    """log10 flux at noon-midnight mean: fed by yesterday's speed, emptied by pressure."""
    n = len(Kp)
    fed = 1.9 + 0.010 * (np.clip(wind["V"], 300, 650) - 400) + 0.18 * (Kp - 2)
    r0 = subsolar_distance(wind["Bz"], wind["Pdyn"])
    loss = np.clip(8.8 - r0, 0, None) * 0.10
    kick = rng.normal(0, 0.025, n)
    level = np.empty(n)
    x = 2.0
    lag = 30  # hours that acceleration takes to show
    for k in range(n):
        target = fed[k - lag] if k >= lag else fed[0]
        rate = 1 / 30 if target > x else 1 / 120
        x = max(x + rate * (target - x) - loss[k] + kick[k], -0.5)
        level[k] = x
    return level


def _gaps(rng: np.random.Generator, series: dict[str, np.ndarray], n: int) -> None:
    """Telemetry gaps: short ones everywhere, days of solar wind now and then."""
    sun = ("V", "n", "Pdyn", "T", "Bz", "Bt")
    for names, a_year, longest in ((("flux", "flux_08"), 8, 30), (sun, 12, 60)):
        for at in rng.integers(0, n, rng.poisson(a_year * n / 8766)):
            for name in names:
                series[name][at : at + int(rng.integers(1, longest))] = np.nan


def as_series(record: Record) -> list[Series]:
    """A scene as a reader would give it."""
    return [
        Series(k, str(v.attrs["units"]), v["time"].values, v.values.astype(float), "simulated")
        for k, v in record.items()
    ]


def export(record: Record, path: Path) -> list[Path]:
    """Write a scene as NetCDF, variables named and in units as the task takes them."""
    path = path.with_suffix(".nc")
    data = xr.Dataset(dict(record)).assign_attrs(
        Conventions="CF-1.11", title="simulated geostationary electron flux", satellite="simulated"
    )
    compact = {"zlib": True, "complevel": 1}
    encoding: dict[str, Any] = {str(name): compact for name in data.data_vars}
    encoding["time"] = {"units": "hours since 1970-01-01", "dtype": "int64"}
    with files.whole(path) as scratch:
        data.to_netcdf(scratch, engine="h5netcdf", encoding=encoding)
    return [path]
