"""A simulated survey whose occurrence probability and mean amplitude are known.

Two probes on the orbit of the Van Allen Probes (1.1 x 5.8 R_E, 10 deg, 9 h) fly through a picture
of ECH waves built from Ni et al. 2011 (doi:10.1029/2011GL048793) and the plasmapause of Carpenter
and Anderson 1992 (doi:10.1029/91JA01548), driven by simulated index histories with storms and
substorms. Amplitudes are dB above the faintest wave of the simulated survey. Nothing here is
observed; the best score that anyone can reach on it is known, because the draws are its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.signal import lfilter

Floats = NDArray[np.floating]
EPOCH = np.datetime64("2013-01-01T00:00", "ns")
SCATTER = 4.0  # dB, of the log-normal amplitude about its mean
WARM_UP = 2880  # minutes before the first instant, which only serve histories
MINUTE = np.timedelta64(1, "m")


@dataclass(frozen=True)
class Drivers:
    """What the waves respond to, one value a minute.

    Attributes:
        activity: log10 of SME over 100 nT, averaged with a memory of 90 min.
        plasmapause: L of the plasmapause, 5.6 - 0.46 Kp, largest Kp of 24 h.
        ring: -SYM-H/100 nT, 0..2.
    """

    activity: Floats
    plasmapause: Floats
    ring: Floats


def _memory(x: Floats, minutes: float) -> Floats:
    keep = np.exp(-1.0 / minutes)
    start = x[: int(minutes) + 1].mean()
    smooth: Floats = lfilter([1 - keep], [1, -keep], x, zi=[keep * start])[0]
    return smooth


def _wander(rng: np.random.Generator, n: int, minutes: float) -> Floats:
    """Gaussian noise of unit variance that remembers itself for ``minutes``."""
    keep = np.exp(-1.0 / minutes)
    noise: Floats = lfilter([np.sqrt(1 - keep**2)], [1, -keep], rng.standard_normal(n))
    return noise


def indices(rng: np.random.Generator, n: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """SME and SYM-H of ``n`` minutes (whole nT) and the number of the storm each belongs to."""
    field = 0.45 * np.exp(0.8 * _wander(rng, n, 180))  # solar-wind electric field, mV/m
    shock, onset, at = np.zeros(n), [], int(rng.uniform(1, 4) * 1440)
    while at < n:
        onset.append(at)
        long = int(rng.uniform(4, 14) * 60)
        span = np.arange(at, min(at + long, n))
        field[span] += rng.lognormal(1.4, 0.5) * np.sin(np.pi * (span - at + 0.5) / long) ** 0.6
        shock[at : at + 180] += rng.uniform(5, 30) * np.exp(
            -np.arange(len(shock[at : at + 180])) / 90
        )
        at += long + int((2.5 + rng.exponential(6.0)) * 1440)
    field *= np.exp(0.35 * _wander(rng, n, 30))
    inject = -4.5 * np.clip(field - 0.5, 0, None) / 60  # Burton et al. 1975, nT a minute
    ring = lfilter([1], [1, -np.exp(-1 / 540)], inject)
    symh = np.round(ring + shock - 3 + 3 * _wander(rng, n, 60))
    drive = _memory(field, 30)
    starts = rng.random(n) < 0.3 * drive**0.7 / 60
    size = starts * rng.lognormal(5.5, 0.5, n) * np.sqrt(drive) * 1.6
    bays = lfilter([1], [1, -np.exp(-1 / 45)], lfilter([1 / 12], [1, -np.exp(-1 / 12)], size))
    sme = (55 + 90 * drive + bays) * np.exp(0.15 * _wander(rng, n, 10))
    edges = [0, *(max(s - 720, 0) for s in onset[1:])]
    storm = np.searchsorted(edges, np.arange(n), side="right") - 1
    return np.clip(np.round(sme), 15, 5000), symh, storm


def drivers(sme: Floats, symh: Floats) -> Drivers:
    """Drivers of one-minute SME and SYM-H (nT); Kp is a stand-in made from SME."""
    kp = np.clip(2.3 * np.log(_memory(sme, 240) / 70), 0, 9)
    day = 1440
    largest = maximum_filter1d(kp, day + 1, origin=day // 2, mode="nearest")
    return Drivers(
        np.log10(_memory(sme, 90) / 100), 5.6 - 0.46 * largest, np.clip(-symh / 100, 0, 2)
    )


def truth(L: Floats, MLT: Floats, MLAT: Floats, activity: Floats, plasmapause: Floats,
          ring: Floats) -> tuple[Floats, Floats]:  # fmt: skip
    """Probability of a wave and its mean amplitude (dB) at places under drivers that broadcast.

    Strongest near the magnetic equator, from dusk through midnight to dawn, outside the
    plasmapause, rising with activity.
    """
    outside = L - plasmapause
    night = np.cos(2 * np.pi * (MLT - 1.5) / 24)
    off = (MLAT / 7.0) ** 2
    odds = (
        -1.9 + 2.2 * np.tanh(outside / 0.6) - ((L - 7.0) / 3.0) ** 2 + 2.0 * night
        - 6.0 * (1 - np.exp(-off / 6.0)) + 3.0 * activity + 0.8 * ring * night
    )  # fmt: skip
    mean = (
        16.0 + 14.0 * activity + 4.0 * night + 3.0 * np.tanh(outside / 0.8)
        - 10.0 * (1 - np.exp(-off / 4.0)) + 3.0 * ring
    )  # fmt: skip
    return 1 / (1 + np.exp(-odds)), mean


def orbit(minutes: Floats, phase: float, probe: int) -> tuple[Floats, Floats, Floats]:
    """L, MLT (h) and MLAT (deg) of a probe at minutes since EPOCH (a dipole that wobbles daily)."""
    low, high, period = 1.1, 5.8, 540.0
    axis, ecc = (low + high) / 2, (high - low) / (high + low)
    mean = 2 * np.pi * (minutes / (period + 0.8 * probe) + phase)
    ecc_anomaly = mean.copy()
    for _ in range(12):
        ecc_anomaly -= (ecc_anomaly - ecc * np.sin(ecc_anomaly) - mean) / (
            1 - ecc * np.cos(ecc_anomaly)
        )
    radius = axis * (1 - ecc * np.cos(ecc_anomaly))
    true = 2 * np.arctan2(
        np.sqrt(1 + ecc) * np.sin(ecc_anomaly / 2), np.sqrt(1 - ecc) * np.cos(ecc_anomaly / 2)
    )
    apogee = 12.0 * (2 * phase) - 24.0 * minutes / (1440 * 730)  # drifts once round in two years
    local = (apogee + (true - np.pi) * 12 / np.pi) % 24
    latitude = 10.0 * np.sin(true + 2 * np.pi * minutes / (1440 * 400) + phase)
    wobble = 10.5 * np.sin(2 * np.pi * (minutes / 1440 + local / 24))
    mlat = latitude + wobble
    return radius / np.cos(np.radians(mlat)) ** 2, local, mlat


def simulate(seed: int = 0, hours: float = 240.0, every: int = 10) -> dict[str, xr.DataArray]:
    """A survey with its truth.

    Args:
        seed: of everything. hours: length of the survey. every: minutes between samples.

    Returns:
        ``SME``, ``SYM_H`` (time,) nT at one minute, from 48 h before the survey; ``L``, ``MLT``,
        ``MLAT`` (time, probe); ``occurrence`` (0, 1), ``amplitude`` (dB, NaN without a wave); the
        truth ``probability`` and ``mean``; ``storm`` (time,), the storm a sample belongs to.
    """
    rng = np.random.default_rng(seed)
    n = WARM_UP + round(hours * 60)
    sme, symh, storm = indices(rng, n)
    force = drivers(sme, symh)
    at = np.arange(WARM_UP, n, every)
    phase = float(rng.random())
    start = float(rng.integers(0, 730 * 1440))
    flown = [orbit(start + at.astype(float), (phase + 0.37 * k) % 1.0, k) for k in range(2)]
    L, MLT, MLAT = (np.stack([f[k] for f in flown], -1) for k in range(3))
    chance, mean = truth(L, MLT, MLAT, force.activity[at, None], force.plasmapause[at, None],
                         force.ring[at, None])  # fmt: skip
    wave = rng.random(chance.shape) < chance
    heard = np.where(wave, mean + SCATTER * rng.standard_normal(mean.shape), np.nan)
    minutes, samples = EPOCH + (np.arange(n) - WARM_UP) * MINUTE, EPOCH + (at - WARM_UP) * MINUTE
    flag = np.zeros(n, np.uint8)

    def index(name: str, value: Floats) -> xr.DataArray:
        coords = {"time": minutes, "flag": ("time", flag)}
        return xr.DataArray(value, coords, "time", name, {"units": "nT", "cadence": 60.0,
                                                          "source": "simulated"})  # fmt: skip

    def along(name: str, value: NDArray[np.generic], units: str) -> xr.DataArray:
        dims = ("time", "probe")[: value.ndim]
        return xr.DataArray(value, {"time": samples}, dims, name, {"units": units})

    return {
        "SME": index("SME", sme),
        "SYM_H": index("SYM_H", symh),
        "L": along("L", L, "1"),
        "MLT": along("MLT", MLT, "h"),
        "MLAT": along("MLAT", MLAT, "degrees"),
        "occurrence": along("occurrence", wave.astype(float), "1"),
        "amplitude": along("amplitude", heard, "dB"),
        "probability": along("probability", chance, "1"),
        "mean": along("mean", mean, "dB"),
        "storm": along("storm", storm[at], "1"),
    }
