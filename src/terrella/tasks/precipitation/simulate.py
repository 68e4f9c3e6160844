"""Simulated POES passes with the truth of every sample.

A circular orbit at 850 km and 98.7 degrees crosses a tilted dipole. Trapped electrons fill two
belts with an energy-dependent slot; a share of them precipitates. REP bursts and the dispersed
isotropy boundary (CSS) are placed on top, together with what only looks like them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from terrella.steps.events import runs
from terrella.tasks.precipitation.prepare import ORDER, QUANTUM
from terrella.tasks.precipitation.task import INPUTS
from terrella.types import Record

INCLINATION = np.radians(98.7)
PERIOD = 102.0 * 60.0  # s
RADIUS = 1.0 + 850.0 / 6371.2  # R_E
POLE = np.radians([80.65, -72.68])  # geographic latitude and longitude of the dipole's north pole
STEP = 2.0  # s
KEV = np.array([40.0, 130.0, 287.0, 612.0])
CHANNELS = np.arange(4)


@dataclass(frozen=True)
class World:
    """Rates and strengths of a scene.

    Attributes:
        rep, css: chance of an event at a crossing of the outer belt (CSS: on the night side).
        soft: chance of a burst in E1 and E2 alone at a crossing.
        spikes: stray counts in E4_0 a day.
        gaps: breaks in the record a day.
        protons: chance that a day holds a solar proton event, which spoils E4 over the poles.
    """

    rep: float = 0.12
    css: float = 0.22
    soft: float = 0.5
    spikes: float = 40.0
    gaps: float = 3.0
    protons: float = 0.1


def simulate(
    seed: int = 0, hours: float = 24.0, start: str = "2013-01-01", satellite: str = "n18",
    world: World = World(),
) -> Record:  # fmt: skip
    """One satellite's record with its truth.

    Args:
        seed: of everything.
        hours: length of the record.
        start: first instant, UTC.
        satellite: what the record says it is.
        world: rates of events and nuisances.

    Returns:
        All of the task's inputs, with ``truth`` (0 none, 1 REP, 2 CSS), every 2 s but for gaps.
    """
    rng = np.random.default_rng(seed)
    samples = max(int(hours * 3600 / STEP), 1)
    place = orbit(rng, samples, start)
    trapped = belts(rng, place["L"], place["lon"])
    lost = trapped * anisotropy(rng, place["L"], place["MLT"])
    truth = np.zeros(samples, np.int8)
    for crossing in crossings(place["L"]):
        add_css(rng, crossing, place, trapped, lost, truth, world)
        add_rep(rng, crossing, place, trapped, lost, truth, world)
        add_soft(rng, crossing, place, trapped, lost, truth, world)
    counts = detect(rng, trapped, lost, place, samples, world)
    flux, ifc = counts_to_flux(rng, counts, place, world, samples)
    clean_truth(truth, lost[:, 3])
    keep = gaps(rng, samples, world)
    values = {
        **{n: flux[:, k] for k, n in enumerate(ORDER)},
        **{k: place[k].astype(np.float32) for k in ("L", "MLT", "lat", "lon")},
        "ifc": ifc,
        "truth": truth,
    }
    time = np.datetime64(start, "ms") + (1000 * STEP * np.arange(samples)).astype("m8[ms]")
    time = (time + rng.integers(-2, 3, samples).astype("m8[ms]")).astype("M8[ns]")
    return {
        v.name: xr.DataArray(
            values[v.name][keep],
            coords={"time": ("time", time[keep])},
            dims="time",
            attrs={"units": v.units, "long_name": v.long_name, "satellite": satellite},
        )
        for v in INPUTS
    }


def export(record: Record, path: Path) -> list[Path]:
    """Write a scene in the SEM-2 layout, with the truth beside the fluxes."""
    from terrella.sources.poes import write

    return [write(record, path, record["L"].attrs.get("satellite", "n18"))]


def orbit(rng: np.random.Generator, samples: int, start: str) -> dict[str, np.ndarray]:
    """Latitude, longitude, L and MLT along a sun-synchronous orbit over a tilted dipole.

    Returns:
        ``lat``, ``lon`` (deg), ``L`` (-1 where undefined), ``MLT`` (h), ``mlat`` (deg).
    """
    t = STEP * np.arange(samples)
    u = 2 * np.pi * (t / PERIOD + rng.random())
    lat = np.arcsin(np.sin(INCLINATION) * np.sin(u))
    along = np.arctan2(np.cos(INCLINATION) * np.sin(u), np.cos(u))
    midnight = np.datetime64(start, "D")
    hour = (np.datetime64(start, "ms") - midnight) / np.timedelta64(1, "h") + t / 3600.0
    sun = np.pi * (1.0 - hour / 12.0)  # longitude of noon
    node = rng.uniform(0, 2 * np.pi)  # local time of the ascending node, as an angle from noon
    lon = sun + node + along
    sin_mlat = np.sin(POLE[0]) * np.sin(lat) + np.cos(POLE[0]) * np.cos(lat) * np.cos(lon - POLE[1])
    L = RADIUS / np.maximum(1.0 - sin_mlat**2, 1e-6)
    MLT = (
        12.0 + np.degrees(_magnetic_longitude(lat, lon) - _magnetic_longitude(0 * sun, sun)) / 15
    ) % 24
    return {
        "lat": np.degrees(lat), "lon": np.degrees(lon) % 360.0, "MLT": MLT,
        "L": np.where(L > 60.0, -1.0, L), "mlat": np.degrees(np.arcsin(sin_mlat)),
    }  # fmt: skip


def _magnetic_longitude(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    x = np.cos(lat) * np.cos(lon - POLE[1]) * np.sin(POLE[0]) - np.sin(lat) * np.cos(POLE[0])
    angle: np.ndarray = np.arctan2(np.cos(lat) * np.sin(lon - POLE[1]), x)
    return angle


def belts(rng: np.random.Generator, L: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Flux that the 90-degree telescope would see, cm-2 s-1 sr-1.

    An outer belt whose peak moves inward with energy, an inner belt of soft electrons, a plasma
    sheet in E1 and E2, ragged along the track.

    Returns:
        (samples, 4).
    """
    level = rng.normal(0, 0.25)
    tilt = rng.normal(0, 0.2)
    x = np.where(L > 0, L, 60.0)[:, None]
    log_e = np.log10(KEV / 40.0)
    outer = 10 ** (4.45 + level - (1.15 + 0.3 * tilt) * log_e)
    peak = 5.9 - 1.1 * log_e + rng.normal(0, 0.25)
    width = np.where(x < peak, 0.75, rng.uniform(1.1, 1.9))
    flux = outer * np.exp(-0.5 * ((x - peak) / width) ** 2)
    sheet = 10 ** (4.0 + level - 2.6 * log_e) * np.exp(-(((x - 8.0) / 3.0) ** 2))
    inner = 10 ** (4.6 - 2.2 * log_e + rng.normal(0, 0.2)) * np.exp(-0.5 * ((x - 2.1) / 0.35) ** 2)
    # Ragged: a slow wander shared by the channels, less at high energy.
    wander = _wander(rng, len(L), 40.0)[:, None] * (0.5 - 0.12 * CHANNELS)
    drift = 1.0 + 0.6 * np.cos(np.radians(lon - 40.0))[:, None]  # the drift loss cone empties east
    made: np.ndarray = (flux + sheet + inner) * 10**wander * drift
    return made


def anisotropy(rng: np.random.Generator, L: np.ndarray, MLT: np.ndarray) -> np.ndarray:
    """Share of the trapped flux that the 0-degree telescope sees: weak inside, near 1 poleward.

    The soft channels become isotropic beyond L ~ 6.5, by night closer in; the hard ones further
    out, where there is no flux left to see.

    Returns:
        (samples, 4).
    """
    x = np.where(L > 0, L, 60.0)[:, None]
    night = 0.5 * (1.0 + np.cos(np.pi * MLT / 12.0))[:, None]
    inside = 10 ** (-2.3 + 0.5 * _wander(rng, len(L), 60.0)[:, None] + 0.1 * (3 - CHANNELS))
    diffuse = 0.25 * np.exp(-0.5 * ((x - 6.5) / 1.5) ** 2) * np.array([1.0, 0.5, 0.2, 0.05])
    diffuse = diffuse * 10 ** (0.6 * _wander(rng, len(L), 12.0)[:, None])
    boundary = 8.6 - 0.9 * night + np.array([0.0, 0.3, 0.7, 1.2]) + rng.normal(0, 0.3)
    open_cone = 1.0 / (1.0 + np.exp(-(x - boundary) / 0.12))
    made: np.ndarray = np.clip(inside + diffuse + open_cone, 0.0, 1.0)
    return made


def _wander(rng: np.random.Generator, samples: int, length: float) -> np.ndarray:
    """Unit-variance noise with a given correlation length in samples."""
    from scipy.signal import lfilter

    keep = float(np.exp(-1.0 / length))
    noise = rng.normal(0, np.sqrt(1 - keep**2), samples)
    made: np.ndarray = lfilter([1.0], [1.0, -keep], noise)
    return made


def crossings(L: np.ndarray) -> list[np.ndarray]:
    """Samples of each passage through L 3 to 8.2, ordered from low L to high."""
    start, stop = runs((L > 3.0) & (L < 8.2))
    found = []
    for lo, hi in zip(start, stop, strict=True):
        index = np.arange(lo, hi + 1)
        bottom = int(np.argmax(L[index]))
        # A pass that turns inside the belt goes up and down again: two crossings.
        for part in (index[: bottom + 1], index[bottom + 1 :]):
            if len(part) >= 20:
                found.append(part if L[part[0]] < L[part[-1]] else part[::-1])
    return found


def add_css(
    rng: np.random.Generator, crossing: np.ndarray, place: dict[str, np.ndarray],
    trapped: np.ndarray, lost: np.ndarray, truth: np.ndarray, world: World,
) -> None:  # fmt: skip
    """Current-sheet scattering: on the night side, all energies become isotropic one by one.

    The harder the electrons, the lower the L where their ratio reaches 1.
    """
    MLT = place["MLT"][crossing]
    night = (MLT[len(MLT) // 2] >= 18) or (MLT[len(MLT) // 2] < 6)
    if rng.random() > world.css or not night:
        return
    L = place["L"][crossing]
    edge = rng.uniform(4.6, 6.6) + np.array([1.0, 0.62, 0.32, 0.0]) * rng.uniform(0.15, 0.6)
    sharp = rng.uniform(0.02, 0.06)
    ratio = 1.0 / (1.0 + np.exp(-(L[:, None] - edge) / sharp))
    # Beyond the boundary the belt ends: hard electrons thin out over a few tenths of L.
    reach = rng.uniform(0.08, 0.5) * np.array([4.0, 2.5, 1.5, 1.0])
    fade = np.exp(-np.clip(L[:, None] - edge - reach, 0, None) / (0.5 * reach))
    trapped[crossing] *= np.maximum(fade, np.array([0.3, 0.1, 0.03, 0.01]))
    trapped[crossing, 3] *= 10 ** rng.uniform(0.0, 0.5)
    lost[crossing] = np.maximum(lost[crossing] * fade, np.clip(ratio * rng.uniform(0.7, 1.05), 0, 1)
                                * trapped[crossing])  # fmt: skip
    lit = (ratio[:, 3] > 0.5) & (fade[:, 3] > 0.3)
    truth[crossing[lit]] = 2


def add_rep(
    rng: np.random.Generator, crossing: np.ndarray, place: dict[str, np.ndarray],
    trapped: np.ndarray, lost: np.ndarray, truth: np.ndarray, world: World,
) -> None:  # fmt: skip
    """Wave-driven precipitation: an isolated burst, near isotropy in E3 and E4, weaker in E1."""
    if rng.random() > world.rep:
        return
    L = place["L"][crossing]
    fit = np.flatnonzero((L > 3.2) & (L < 7.0) & (trapped[crossing, 3] > 500.0))
    if len(fit) < 15:
        return
    length = int(rng.integers(2, 16))
    middle = fit[rng.integers(len(fit))] + 0.5 * rng.random()
    shape = np.exp(-(np.abs((np.arange(len(crossing)) - middle) / (0.5 * length)) ** 4))
    soft = [rng.uniform(0.02, 0.4), rng.uniform(0.1, 0.8)]
    top = rng.uniform(0.45, 1.0) * np.array([*soft, 1.0, 1.0])
    trapped[crossing] *= 1.0 + shape[:, None] * rng.uniform(0, 0.6)
    burst = trapped[crossing] * np.clip(top * shape[:, None], 0, 1)
    free = truth[crossing] == 0
    lost[crossing[free]] = np.maximum(lost[crossing], burst)[free]
    truth[crossing[free & (shape > 0.4)]] = 1


def add_soft(
    rng: np.random.Generator, crossing: np.ndarray, place: dict[str, np.ndarray],
    trapped: np.ndarray, lost: np.ndarray, truth: np.ndarray, world: World,
) -> None:  # fmt: skip
    """A burst without relativistic electrons (chorus, plasma sheet): not an event."""
    for _ in range(rng.poisson(world.soft * 2)):
        middle = rng.integers(len(crossing))
        width = rng.uniform(1.0, 12.0)
        shape = np.exp(-(((np.arange(len(crossing)) - middle) / width) ** 2))[:, None]
        top = np.array([rng.uniform(0.3, 1.0), rng.uniform(0.1, 0.9), rng.uniform(0.02, 0.4), 0.01])
        free = truth[crossing] == 0
        lost[crossing[free]] = np.maximum(lost[crossing], trapped[crossing] * top * shape)[free]


def detect(
    rng: np.random.Generator, trapped: np.ndarray, lost: np.ndarray,
    place: dict[str, np.ndarray], samples: int, world: World,
) -> np.ndarray:  # fmt: skip
    """Poisson counts of both telescopes, background and anomaly included.

    Returns:
        (samples, 8) counts, in the order of the features.
    """
    flux = np.stack([lost, trapped], 2).reshape(samples, 8)
    background = np.array([1.2, 3.0, 1.3, 2.0, 0.9, 1.0, 0.25, 0.3])
    expected = flux / QUANTUM + background
    # Inner-belt protons count in every channel, more in the 0-degree telescope, which looks up.
    anomaly = 10 ** (rng.uniform(2.6, 3.1) * np.exp(-(saa(place) ** 2))) - 1.0
    expected += anomaly[:, None] * np.array([1.2, 0.5, 1.0, 0.4, 0.7, 0.35, 0.25, 0.08])
    counts: np.ndarray = rng.poisson(expected).astype(float)
    strays = rng.random(samples) < world.spikes * STEP / 86400.0
    counts[strays, 6] += rng.integers(1, 6, int(strays.sum()))
    return counts


def saa(place: dict[str, np.ndarray]) -> np.ndarray:
    """Distance from the middle of the South Atlantic anomaly in units of its size."""
    east = (place["lon"] + 35.0 + 180.0) % 360.0 - 180.0
    away: np.ndarray = np.hypot(east / 45.0, (place["lat"] + 22.0) / 20.0)
    return away


def counts_to_flux(
    rng: np.random.Generator, counts: np.ndarray, place: dict[str, np.ndarray], world: World,
    samples: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Fluxes in the archive's steps, with calibration runs and withheld E4.

    Returns:
        (samples, 8) float32 and (samples,) int8, 1 while calibration is on.
    """
    ifc = np.zeros(samples, np.int8)
    if samples > 20_000 and rng.random() < 0.5:
        begin = int(rng.integers(samples - 400))
        ifc[begin : begin + 350] = 1
        counts[begin : begin + 350] = rng.poisson(200, (min(350, samples - begin), 8))
    flux = (counts * QUANTUM).astype(np.float32)
    strong = saa(place) < rng.uniform(0.5, 1.0)
    if rng.random() < world.protons:
        cap = np.abs(place["mlat"]) > rng.uniform(62, 70)
        strong |= cap
        flux[cap, :6] += rng.poisson(30, (int(cap.sum()), 6)) * QUANTUM[:6].astype(np.float32)
    for k in (6, 7):
        flux[strong & (rng.random(samples) < 0.5), k] = -999.0
    return flux, ifc


def clean_truth(truth: np.ndarray, e4_lost: np.ndarray) -> None:
    """Events that no instrument could tell from background are not events: two counts at least."""
    for label in (1, 2):
        for lo, hi in zip(*runs(truth == label), strict=True):
            if e4_lost[lo : hi + 1].max() < 2.5 * QUANTUM[6]:
                truth[lo : hi + 1] = 0


def gaps(rng: np.random.Generator, samples: int, world: World) -> np.ndarray:
    """(samples,) bool, False where the record has a hole."""
    keep = np.ones(samples, bool)
    for _ in range(rng.poisson(world.gaps * samples * STEP / 86400.0)):
        begin = int(rng.integers(samples))
        keep[begin : begin + int(rng.integers(2, 200))] = False
    keep[:1] = True
    return keep
