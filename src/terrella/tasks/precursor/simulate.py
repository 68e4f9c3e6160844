"""Simulated stations, earthquakes and, on demand, a precursor or a planted shortcut.

Background, Sq, pulsations and man-made noise make the records.

Nothing here claims that precursors look like this, or exist: the injected signal is there to ask
whether the tool finds what is present and stays silent where nothing is.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from terrella import files
from terrella.sources import frg604rc
from terrella.sources.magnetometer import Reading
from terrella.tasks.precursor.catalogue import dobrovolsky_km
from terrella.tasks.precursor.labels import Rule, conditions, label_windows, match_normals, pairs
from terrella.tasks.precursor.spectrogram import Chain, decibel, highpass, images, power
from terrella.tasks.precursor.task import INPUTS
from terrella.types import Record

Array = NDArray[np.float64]

#: Simulated sites along the equator: code, latitude, longitude, H and Z of the main field (nT).
SITES = (
    ("SMA", 4.0, 97.0, 40_800.0, -6_500.0), ("SMB", -5.0, 104.0, 38_200.0, -20_100.0),
    ("SMC", -8.0, 116.0, 37_300.0, -25_900.0), ("SMD", 1.0, 124.0, 39_600.0, -12_800.0),
    ("SME", -3.0, 131.0, 38_900.0, -17_700.0), ("SMF", -2.5, 140.7, 38_100.0, -18_400.0),
)  # fmt: skip

#: Hz of the injected signal.
BAND = (0.15, 0.25)

# Pulsations: lowest and highest frequency (Hz), amplitude (nT), mean number an hour by day.
_PULSATIONS = {
    "Pc3": (0.022, 0.100, 0.25, 1.5), "Pc4": (0.007, 0.022, 0.5, 0.8),
    "Pc5": (0.002, 0.007, 1.5, 0.3),
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """One simulated world.

    Attributes:
        seed: of everything.
        strength: amplitude of the injected signal over the background's in its band; 0: none.
        shortcut: whether one station supplies all normals and no precursor.
        stations: number of stations, at most len(SITES).
        days: length.
        quakes: earthquakes near the stations.
        per_event: precursor windows kept for each earthquake and station.
    """

    seed: int = 0
    strength: float = 0.0
    shortcut: bool = False
    stations: int = 4
    days: float = 540.0
    quakes: int = 90
    per_event: int = 2


@dataclass(frozen=True)
class Site:
    """A station: place, main field, and what makes its records its own."""

    station: str
    latitude: float
    longitude: float
    h: float
    z: float
    gain: float
    slope: float
    noise: float
    traffic: float


def sites(seed: int, count: int, odd: bool = False) -> tuple[Site, ...]:
    """Stations with gain, spectral slope, noise (nT) and man-made noise (nT) of their own.

    Where ``odd``, the first has an older, noisier sensor: what a planted shortcut is told by.
    """
    random = np.random.default_rng([seed, 1])
    made = tuple(
        Site(
            *row,
            gain=float(random.uniform(0.8, 1.25)),
            slope=float(random.uniform(1.5, 2.3)),
            noise=float(random.uniform(0.005, 0.02)),
            traffic=float(random.uniform(0.0, 0.08)),
        )
        for row in SITES[:count]
    )
    return (replace(made[0], noise=0.06), *made[1:]) if odd else made


def kp_series(seed: int, start: np.datetime64, days: float) -> pd.Series:
    """Kp in thirds every 3 hours: a first-order process with storms, 0 to 9."""
    random = np.random.default_rng([seed, 2])
    count = int(days * 8) + 16
    kick = random.standard_normal(count) * 0.55 + (random.random(count) < 0.01) * 2.0
    level = np.zeros(count)
    for k in range(1, count):
        level[k] = 0.85 * level[k - 1] + kick[k]
    kp = np.clip(np.round((1.8 + level) * 3) / 3, 0, 9)
    first = pd.Timestamp(start).floor("3h")
    return pd.Series(kp, pd.date_range(first, periods=count, freq="3h"), name="kp")


def earthquakes(world: World, start: np.datetime64, places: tuple[Site, ...]) -> pd.DataFrame:
    """Poisson in time, Gutenberg-Richter from M 5, each inside the zone of one station.

    With the shortcut, the first station has none.
    """
    random = np.random.default_rng([world.seed, 3])
    n = world.quakes
    seconds = np.sort(random.uniform(0.05, 0.98, n)) * world.days * 86_400
    magnitude = np.minimum(5.0 + random.exponential(1 / (1.0 * np.log(10)), n), 7.2)
    # One in eight is large, so that all classes occur in a short world.
    magnitude = np.where(random.random(n) < 0.125, random.uniform(6.0, 6.8, n), magnitude)
    host = random.integers(1 if world.shortcut else 0, len(places), n)
    away = dobrovolsky_km(magnitude) * np.sqrt(random.uniform(0.01, 0.8, n)) / 111.2
    bearing = random.uniform(0, 2 * np.pi, n)
    lat = np.array([places[k].latitude for k in host]) + away * np.cos(bearing)
    lon = np.array([places[k].longitude for k in host]) + away * np.sin(bearing)
    return pd.DataFrame(
        {
            "time": start + (seconds * 1e9).astype("timedelta64[ns]"),
            "latitude": lat, "longitude": lon, "magnitude": np.round(magnitude, 1),
            "depth": random.uniform(10, 80, n), "id": [f"{MADE}{k:04d}" for k in range(n)],
        }
    )  # fmt: skip


def _coloured(
    random: np.random.Generator, n: int, cadence: float, slope: float, level: float
) -> Array:
    """(3, n) noise with power density level * (f / 0.01 Hz)^-slope nT^2/Hz, none below 0.2 mHz."""
    frequency = np.fft.rfftfreq(n, cadence)
    density = np.zeros(len(frequency))
    above = frequency >= max(2e-4, frequency[1])
    density[above] = level * (frequency[above] / 0.01) ** -slope
    size = np.sqrt(density * n / cadence / 4)  # real and imaginary part, one-sided density
    shape = (3, len(frequency))
    draw = random.standard_normal(shape) + 1j * random.standard_normal(shape)
    return np.asarray(np.fft.irfft(draw * size, n, axis=-1))


def _band_noise(
    random: np.random.Generator, n: int, cadence: float, band: tuple[float, float]
) -> Array:
    """(n,) noise of unit rms between two frequencies."""
    frequency = np.fft.rfftfreq(n, cadence)
    inside = (frequency >= band[0]) & (frequency <= band[1])
    draw = random.standard_normal(len(frequency)) + 1j * random.standard_normal(len(frequency))
    out = np.fft.irfft(draw * inside, n)
    return np.asarray(out / max(out.std(), 1e-12))


def _pulsations(
    random: np.random.Generator, t: Array, local: Array, kp: float, cadence: float
) -> Array:
    """(3, n) bursts of Pc3 to Pc5, by local time and Kp."""
    out = np.zeros((3, len(t)))
    hours = len(t) * cadence / 3600
    day = float(np.clip(np.cos((local.mean() - 11) * np.pi / 12), 0.05, 1))
    for low, high, amplitude, rate in _PULSATIONS.values():
        for _ in range(random.poisson(rate * hours * day * (0.5 + kp / 4))):
            middle, width = random.uniform(t[0], t[-1]), random.uniform(300, 1200)
            # Five widths out a burst is 1e-11 of itself: the rest of a long record is left alone.
            first, last = np.searchsorted(t, [middle - 5 * width, middle + 5 * width])
            near = t[first:last]
            wave = np.exp(-(((near - middle) / width) ** 2)) * np.sin(
                2 * np.pi * random.uniform(low, high) * near + random.uniform(0, 2 * np.pi)
            )
            size = amplitude * (0.5 + kp / 3) * random.lognormal(0, 0.5)
            turn = random.uniform(0, np.pi)
            out[:, first:last] += size * wave * np.array([[np.cos(turn)], [np.sin(turn)], [0.3]])
    return out


def polarisation(azimuth: float) -> Array:
    """(3,) amplitudes of the injected signal in H, D, Z for a source at ``azimuth`` (degrees).

    H and D follow a linear polarisation along the bearing. Power alone cannot tell such a source
    from its mirror images (N from S, NE from NW, SE, SW), so Z carries, by fiat, a level that
    differs between them. It is a label written into the scene, not physics.
    """
    angle = np.deg2rad(azimuth)
    vertical = 10 ** ((9 * np.cos(angle) + 4.5 * np.sin(angle)) / 20)
    return np.array([np.cos(angle), np.sin(angle), 0.5 * vertical])


def injected(
    random: np.random.Generator, n: int, cadence: float, strength: float, azimuth: float
) -> Array:
    """(3, n) nT of the injected signal: noise in BAND, polarised by azimuth (degrees)."""
    typical = 0.4 * ((BAND[0] + BAND[1]) / 2 / 0.01) ** -1.9 * (BAND[1] - BAND[0])
    wave = _band_noise(random, n, cadence, BAND) * strength * np.sqrt(typical)
    return np.asarray(polarisation(azimuth)[:, None] * wave, np.float64)


def field(
    random: np.random.Generator, site: Site, start: np.datetime64, n: int, kp: float,
    cadence: float = 1.0, strength: float = 0.0, azimuth: float = float("nan"),
) -> Array:  # fmt: skip
    """(3, n) H, D, Z in nT of a station from ``start``.

    Args:
        random: its state decides everything drawn.
        site: the station.
        start: first sample.
        n: samples.
        kp: activity.
        cadence: seconds.
        strength: of the injected signal, in units of the background's amplitude in BAND.
        azimuth: degrees from which it comes; NaN: nothing is injected.
    """
    t: Array = np.asarray(np.arange(n) * cadence, np.float64)
    clock = start.astype("datetime64[s]").astype(np.int64)
    local = ((clock + t) / 3600 + site.longitude / 15) % 24
    level = 0.4 * 10 ** (0.25 * (kp - 2)) * random.lognormal(0, 0.3)
    out = _coloured(random, n, cadence, site.slope, level) * np.array([[1.0], [0.8], [0.5]])
    sq = np.exp(-(((local - 11.5) / 3.0) ** 2))
    out += sq * np.array([[45.0], [-12.0], [14.0]]) * random.uniform(0.8, 1.2)
    out += _pulsations(random, t, local, kp, cadence)
    weekday = (clock // 86_400 + 3) % 7 < 5
    busy = np.exp(-(((local - 12.5) / 4.0) ** 2)) * (1.0 if weekday else 0.3)
    out += site.traffic * busy * random.standard_normal((3, n)) * np.array([[0.6], [0.6], [1.0]])
    if strength > 0 and np.isfinite(azimuth) and 0.5 / cadence > BAND[1]:
        out += injected(random, n, cadence, strength, azimuth)
    out = out * site.gain + site.noise * random.standard_normal((3, n))
    return np.asarray(out + np.array([[site.h], [120.0], [site.z]]))


@dataclass(frozen=True)
class Scene:
    """A world's windows: what the network sees, and the truth about each.

    Attributes:
        image: (n, 3, size, size) uint8.
        table: (n,) rows of :func:`labels.match_normals` with conditions.
        quakes: the catalogue.
        stations: station, latitude, longitude.
        kp: Kp every 3 hours.
        pairs: earthquakes of each station.
    """

    image: NDArray[np.uint8]
    table: pd.DataFrame
    quakes: pd.DataFrame
    stations: pd.DataFrame
    kp: pd.Series
    pairs: pd.DataFrame


MADE = "sim"  # begins the id of a simulated earthquake
START = np.datetime64("2019-01-01T00:00:00", "ns")


def _thin(table: pd.DataFrame, world: World) -> pd.DataFrame:
    """``per_event`` precursor windows of each earthquake and station, and the normals they have."""
    random = np.random.default_rng([world.seed, 4])
    ahead = table[table["kind"] == "precursor"]
    ahead = ahead.iloc[random.permutation(len(ahead))]
    kept = ahead.groupby(["station", "event"]).head(world.per_event)
    normal = table[(table["kind"] == "normal") & table["pair"].isin(kept.index)]
    return pd.concat([kept, normal]).sort_values(["end", "station"])


def _planted(windows: pd.DataFrame, world: World, source: str) -> pd.DataFrame:
    """Precursors of all stations but one, normals of that one only."""
    random = np.random.default_rng([world.seed, 5])
    ahead = windows[(windows["kind"] == "precursor") & (windows["station"] != source)]
    calm = windows[(windows["kind"] == "normal") & (windows["station"] == source)]
    kept = ahead.iloc[random.permutation(len(ahead))]
    kept = kept.groupby(["station", "event"]).head(world.per_event)
    normal = calm.iloc[random.permutation(len(calm))[: len(kept)]].copy()
    # A normal of its own station belongs to no earthquake: each is a group by itself.
    normal["cluster"] = 1_000_000 + np.arange(len(normal))
    return pd.concat([kept, normal]).sort_values(["end", "station"])


def scene(world: World, chain: Chain, rule: Rule | None = None) -> Scene:
    """Simulate a world's windows and their images.

    Args:
        world: settings.
        chain: of the images; windows of ``chain.window`` seconds stand on whole multiples of it.
        rule: of the labels.

    Returns:
        A Scene; equal settings give equal arrays.
    """
    rule = rule or Rule(seed=world.seed, lead=4.0, quiet=4.0)
    places = sites(world.seed, world.stations, odd=world.shortcut)
    stations = pd.DataFrame([(s.station, s.latitude, s.longitude) for s in places])
    stations.columns = pd.Index(["station", "latitude", "longitude"])
    quakes = earthquakes(world, START, places)
    kp = kp_series(world.seed, START, world.days)
    found = pairs(quakes, stations, rule)
    # Windows begin every 6 hours whatever their length: more would only be more of the same.
    step = np.timedelta64(6, "h")
    count = int(world.days * 4)
    end = START + np.arange(1, count) * step + np.timedelta64(round(chain.window), "s")
    windows = pd.concat(
        [label_windows(s.station, end, found, rule) for s in places], ignore_index=True
    )
    windows = conditions(windows, kp, rule)
    chosen = (
        _planted(windows, world, places[0].station)
        if world.shortcut
        else _thin(match_normals(windows, rule), world)
    )
    return Scene(
        render(world, places, chosen, chain), chosen.reset_index(drop=True), quakes, stations, kp,
        found,
    )  # fmt: skip


def render(
    world: World, places: tuple[Site, ...], table: pd.DataFrame, chain: Chain
) -> NDArray[np.uint8]:
    """(n, 3, size, size) images of the windows of a table, each simulated by itself."""
    by = {s.station: s for s in places}
    margin = round(min(chain.margin, 1200.0) / chain.cadence)
    n = chain.samples + 2 * margin
    out = np.empty((len(table), 3, chain.size, chain.size), np.uint8)
    rows: Any = table.itertuples()
    for k, row in enumerate(rows):
        random = np.random.default_rng([world.seed, 6, int(row.Index)])
        start = row.end.to_datetime64() - np.timedelta64(round(chain.window), "s")
        strength = world.strength if row.kind == "precursor" else 0.0
        data = field(
            random, by[row.station], start, n, float(np.nan_to_num(row.kp, nan=2.0)),
            chain.cadence, strength, float(row.bearing),
        )  # fmt: skip
        clean = highpass(data, chain)[:, margin : margin + chain.samples]
        out[k] = np.round(images(decibel(power(clean, chain)), chain) * 255)
    return out


def stretch(
    seed: int, site: Site, start: np.datetime64, seconds: int, kp: pd.Series,
    found: pd.DataFrame, strength: float, rule: Rule,
) -> Array:  # fmt: skip
    """(3, n) nT: a continuous record of one station, at 1 s.

    Background and pulsations are drawn once for the whole stretch; what is injected is on for the
    whole lead of each earthquake whose zone holds the station, in whole 6-hour pieces.
    """
    random = np.random.default_rng([seed, 7, *site.station.encode()])
    out = field(random, site, start, seconds, float(kp.mean()))
    if strength <= 0:
        return out
    piece = 21_600
    for low in range(0, seconds, piece):
        n = min(piece, seconds - low)
        end = np.array([start + np.timedelta64(low + n, "s")])
        row = label_windows(site.station, end, found, rule).iloc[0]
        if row["kind"] == "precursor":
            seeded = np.random.default_rng([seed, 8, low, *site.station.encode()])
            out[:, low : low + n] += injected(seeded, n, 1.0, strength, float(row["bearing"]))
    return out


def _record(
    site: Site, data: Array, start: np.datetime64, found: pd.DataFrame, kp: pd.Series,
    quakes: pd.DataFrame, stations: pd.DataFrame,
) -> Record:  # fmt: skip
    from terrella.tasks.precursor.stations import Station

    time = start + np.arange(data.shape[1]) * np.timedelta64(1, "s")
    units = {v.name: v for v in INPUTS}
    attrs = {"station": site.station, "cadence": 1.0, "conversion": "simulated H, D, Z in nT"}
    record: Record = {
        name: xr.DataArray(
            data[k], {"time": time}, ("time",),
            attrs={"units": "nT", "long_name": units[name].long_name, **attrs},
        )
        for k, name in enumerate("HDZ")
    }  # fmt: skip
    truth = Station(site.station, (), Reading(), 0.0, found, kp)._truth()
    # The side tables go with the record, so that a scene on disk has its truth too.
    truth["quake"].attrs |= {
        "catalogue": quakes.to_csv(index=False), "stations": stations.to_csv(index=False)
    }  # fmt: skip
    return record | truth


def simulate(
    seed: int = 0, hours: float = 24.0, strength: float = 2.0, start: str = "2019-01-01"
) -> Record:
    """One station for some hours: normal at first, the rest in the lead of an earthquake to come.

    The earthquake strikes 12.5 days after the end, so that under the task's own rule (lead 14 days)
    the last 36 hours precede it and what comes before is normal.

    Args:
        seed: of everything.
        hours: length.
        strength: of the injected signal; 0: none.
        start: first instant, UTC.

    Returns:
        H, D, Z (nT, 1 s), ``quake`` and ``kp``.
    """
    world = World(seed=seed, strength=strength, stations=1, days=max(hours / 24, 1.0))
    site = sites(seed, 1)[0]
    first = np.datetime64(start, "ns")
    random = np.random.default_rng([seed, 9])
    # The quiet part must outlast the rule's days after the first earthquake: it comes late.
    when = first + np.timedelta64(round(hours * 3600 + 86_400 * 12.5), "s")
    quakes = pd.DataFrame(
        {"time": [when], "latitude": [site.latitude + random.uniform(-0.8, 0.8)],
         "longitude": [site.longitude + random.uniform(-0.8, 0.8)],
         "magnitude": [round(float(random.uniform(5.6, 6.6)), 1)], "depth": [20.0],
         "id": [f"{MADE}0"]}
    )  # fmt: skip
    quakes["time"] = quakes["time"].astype("datetime64[ns]")
    stations = pd.DataFrame(
        {"station": [site.station], "latitude": [site.latitude], "longitude": [site.longitude]}
    )
    rule = Rule()
    found = pairs(quakes, stations, rule)
    kp = kp_series(seed, first, world.days + 1)
    data = stretch(seed, site, first, max(round(hours * 3600), 1), kp, found, strength, rule)
    return _record(site, data, first, found, kp, quakes, stations)


def export(record: Record, path: Path) -> list[Path]:
    """Write a scene as FRG604RC day files (gzip) with catalogue, station list and Kp beside them.

    Args:
        record: from :func:`simulate`.
        path: its folder takes the files; its name is not used, as the format names files itself.
    """
    folder = path.parent
    h = record["H"]
    out = days(
        h.attrs["station"], h["time"].to_numpy(), [record[k].to_numpy() for k in "HDZ"], folder
    )
    kp = record["kp"]
    tables = {
        "earthquakes.csv": record["quake"].attrs["catalogue"],
        "stations.csv": record["quake"].attrs["stations"],
        "kp.csv": pd.DataFrame({"time": kp["time"].to_numpy(), "kp": kp.to_numpy()}).to_csv(
            index=False
        ),
    }
    for name, text in tables.items():
        with files.whole(folder / name) as scratch:
            scratch.write_text(str(text), "utf-8")
        out.append(folder / name)
    return out


def days(
    station: str, time: NDArray[np.datetime64], values: Sequence[Array], folder: Path
) -> list[Path]:
    """Write samples as FRG604RC day files ``S<yymmdd>.<STN>.gz``; the rest is missing."""
    out = []
    size = 86_400
    first = time[0].astype("datetime64[D]")
    second = ((time - first.astype("datetime64[ns]")) / np.timedelta64(1, "s")).astype(np.int64)
    for number in np.unique(second // size):
        mine = second // size == number
        day = {name: np.full(size, np.nan) for name in "HDZ"}
        for name, samples in zip("HDZ", values, strict=True):
            day[name][second[mine] - number * size] = samples[mine]
        date = first + int(number)
        stamp = str(date).replace("-", "")[2:]
        path = folder / f"S{stamp}.{station}.gz"
        with files.whole(path) as scratch:
            scratch.write_bytes(gzip.compress(frg604rc.render(station, date, day), 1, mtime=0))
        out.append(path)
    return out


def export_world(world: World, folder: Path, rule: Rule | None = None) -> list[Path]:
    """Write a whole world: day files of every station, catalogue, station list, Kp.

    Args:
        world: what to simulate.
        folder: where.
        rule: when a window precedes an earthquake, and so when the signal is on.
    """
    rule = rule or Rule()
    places = sites(world.seed, world.stations, odd=world.shortcut)
    stations = pd.DataFrame(
        [(s.station, s.latitude, s.longitude) for s in places],
        columns=["station", "latitude", "longitude"],
    )
    quakes = earthquakes(world, START, places)
    kp = kp_series(world.seed, START, world.days)
    found = pairs(quakes, stations, rule)
    out: list[Path] = []
    seconds = round(world.days * 86_400)
    for site in places:
        mine = found[found["station"] == site.station]
        data = stretch(world.seed, site, START, seconds, kp, mine, world.strength, rule)
        time = START + np.arange(seconds) * np.timedelta64(1, "s")
        out += days(site.station, time, list(data), folder)
    tables = {
        "earthquakes.csv": quakes, "stations.csv": stations,
        "kp.csv": kp.rename_axis("time").reset_index(),
    }  # fmt: skip
    for name, table in tables.items():
        with files.whole(folder / name) as scratch:
            table.to_csv(scratch, index=False)
        out.append(folder / name)
    return out
