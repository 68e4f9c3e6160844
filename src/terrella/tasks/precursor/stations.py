"""Magnetometer files, images and side tables -> one job a station and month.

Among the inputs may be an earthquake catalogue, a station list and a Kp table (CSV, told by their
columns): with them every window has its label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from terrella.sources.base import check_file, no_data
from terrella.sources.magnetogram import reference_declination
from terrella.sources.magnetometer import Reading, read, sniff, unpack
from terrella.tasks.precursor import imagefiles
from terrella.tasks.precursor.catalogue import (
    kp_table,
    read_earthquakes,
    read_stations,
    station_place,
)
from terrella.tasks.precursor.labels import Rule, pairs
from terrella.tasks.precursor.quality import Even, even
from terrella.tasks.precursor.task import INPUTS, Options
from terrella.types import Job, NoData, Opening, Record, Refusal, Refused, Variable

UNITS = {v.name: v for v in INPUTS}
#: Values of one earthquake in the record's ``quake``.
QUAKE = ("magnitude", "azimuth", "distance", "cluster", "event")


def reading(options: Options) -> Reading:
    """How files are read, from a run's options.

    Raises:
        Refused: a mapping that is not name=column.
    """
    return Reading(
        format=options.format, columns=_mapping(options.columns, "--columns"),
        units=_mapping(options.units, "--units"), scale=options.scale or None,
        station=options.station.upper(),
    )  # fmt: skip


def _mapping(text: str, flag: str) -> dict[str, str]:
    parts = [p.partition("=") for p in text.split(",") if p.strip()]
    if any(not middle or not name.strip() for name, middle, _ in parts):
        raise Refused(f"{flag} {text!r}: write it as name=column,name=column")
    return {name.strip(): value.strip() for name, _, value in parts}


def rule(options: Options) -> Rule:
    """How labels are made, from a run's options."""
    return Rule(
        smallest=options.smallest, lead=options.lead, quiet=options.quiet,
        radius=options.radius, normals=options.normals,
    )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One file of a station: where it is and what it spans."""

    path: Path
    start: np.datetime64
    stop: np.datetime64
    cadence: float


@dataclass(frozen=True)
class Station:
    """A station's files as a source of H, D, Z.

    Attributes:
        code: station.
        parts: its files in order of time.
        how: how they are read.
        reference: declination (degrees) that D is counted from.
        quakes: earthquakes of this station, from ``labels.pairs``; None: unknown.
        kp: Kp every 3 hours; None: unknown.
    """

    code: str
    parts: tuple[Part, ...]
    how: Reading
    reference: float
    quakes: pd.DataFrame | None = None
    kp: pd.Series | None = None

    def fetch(
        self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
    ) -> Record:
        """H, D, Z (nT, NaN where missing) and flags on one even clock over [start, stop)."""
        first, last = self.parts[0].start, self.parts[-1].stop
        lo, hi = np.maximum(start, first), np.minimum(stop, last)
        inside = [p for p in self.parts if p.start < hi and p.stop > lo]
        if not inside or lo >= hi:
            raise no_data(self.code, start, stop, f"{first} to {last}")
        cadence = inside[0].cadence
        step = np.timedelta64(round(cadence * 1e9), "ns")
        n = int(np.ceil((hi - lo) / step))
        field, flags = np.full((3, n), np.nan), np.zeros(n, np.uint8)
        notes: list[str] = []
        words = ""
        for part in inside:
            if part.cadence != cadence:
                raise Refused(f"{part.path.name}: {part.cadence:g} s beside {cadence:g} s")
            piece = even(read(part.path, self.how), part.path.name, self.reference)
            _place(field, flags, piece, lo, step)
            notes += [f"{part.path.name}: {note}" for note in piece.notes]
            words = piece.conversion
        time = lo + np.arange(n) * step
        attrs = {
            "station": self.code, "conversion": words, "notes": "; ".join(notes),
            "cadence": cadence,
        }  # fmt: skip
        out = {name: _array(name, field[k], time, attrs) for k, name in enumerate("HDZ")}
        out["flag"] = _array("flag", flags, time, attrs)
        return out | self._truth()

    def narrow(self, start: np.datetime64, stop: np.datetime64) -> Station:
        """The files that [start, stop) touches, and one more on either side.

        Those two tell that the station has more: the record then begins and ends as it would.
        """
        inside = [k for k, p in enumerate(self.parts) if p.start < stop and p.stop > start]
        if not inside:
            return self
        return replace(self, parts=self.parts[max(inside[0] - 1, 0) : inside[-1] + 2])

    def _truth(self) -> Record:
        out: Record = {}
        if self.quakes is not None:
            values = self.quakes[list(QUAKE)].to_numpy(np.float64)
            when = self.quakes["time"].to_numpy("datetime64[ns]")
            out["quake"] = xr.DataArray(
                values, {"time": when}, ("time", "quantity"), attrs={"units": "1"}
            )
        if self.kp is not None:
            when = pd.DatetimeIndex(self.kp.index).to_numpy("datetime64[ns]")
            out["kp"] = _array("kp", self.kp.to_numpy(np.float64), when, {})
        return out


def _array(
    name: str, values: np.ndarray, time: np.ndarray, attrs: dict[str, object]
) -> xr.DataArray:
    v = UNITS[name]
    attrs = {"units": v.units, "long_name": v.long_name, **attrs}
    return xr.DataArray(values, {"time": time}, ("time",), attrs=attrs)


def _place(
    field: np.ndarray, flags: np.ndarray, piece: Even, lo: np.datetime64, step: np.timedelta64
) -> None:
    at = round((piece.start - lo) / step)
    begin, end = max(at, 0), min(at + piece.field.shape[1], field.shape[1])
    if begin < end:
        cut = slice(begin - at, end - at)
        # Files that overlap fill each other's gaps.
        there = np.isfinite(piece.field[:, cut])
        field[:, begin:end] = np.where(there, piece.field[:, cut], field[:, begin:end])
        flags[begin:end] |= piece.flags[cut]


@dataclass(frozen=True)
class Side:
    """Side tables found among the inputs."""

    quakes: pd.DataFrame | None = None
    stations: pd.DataFrame | None = None
    kp: pd.Series | None = None


WORDS = {"quakes": "earthquake catalogue", "stations": "station list", "kp": "Kp table"}


def side_tables(paths: Iterable[Path]) -> tuple[Side, list[Path]]:
    """Take catalogue, station list and Kp table out of the inputs.

    Returns:
        The tables, and the paths that are none of them.
    """
    found: dict[str, Path] = {}
    rest = []
    for path in paths:
        kind = _side(path)
        if kind in found and found[kind].resolve() != path.resolve():
            raise Refused(
                f"{path}: a second {WORDS[kind]} beside {found[kind]}; give one, and not a folder "
                "that holds another"
            )
        if kind:
            found[kind] = path
        else:
            rest.append(path)
    quakes = read_earthquakes(found["quakes"]) if "quakes" in found else None
    stations = read_stations(found["stations"]) if "stations" in found else None
    if quakes is not None and stations is None:
        raise Refused(
            f"{found['quakes']}: a catalogue needs the station list (station, latitude, longitude) "
            "beside it"
        )
    # Kp only matters where windows are labelled; without a file it is the package's own table.
    kp = kp_table(found["kp"]) if "kp" in found else None
    if quakes is not None and kp is None:
        kp = kp_table()
    return Side(quakes, stations, kp), rest


def _side(path: Path) -> str:
    if not path.is_file() or path.suffix.lower() != ".csv":
        return ""
    with path.open("rb") as stream:
        words = {w.strip().lower() for w in stream.readline(4096).decode("latin-1").split(",")}
    if words & {"magnitude", "mag"} and words & {"latitude", "lat"}:
        return "quakes"
    if words & {"latitude", "lat"} and words & {"station_code", "station", "code"}:
        return "stations"
    return "kp" if "kp" in words and not words & {"h", "x", "z"} else ""


def _expand(paths: Iterable[Path]) -> list[Path]:
    """Files of folders, in order; side tables and images too."""
    out: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
            if not inside:
                raise Refused(f"{path}: holds no files")
            out += inside
        else:
            out.append(path)
    return out


def _look(path: Path, how: Reading) -> tuple[str, Part, float]:
    """Station, span and reference declination of one file; refuses what cannot be used."""
    raw = read(path, how)
    piece = even(raw, path.name)
    step = np.timedelta64(round(piece.cadence * 1e9), "ns")
    stop = piece.start + piece.field.shape[1] * step
    code = raw.station or how.station or path.name.split(".")[0].upper()
    return code, Part(path, piece.start, stop, piece.cadence), reference_declination(raw, path.name)


def open_files(paths: Iterable[Path], options: Options) -> Opening:
    """One job a station and calendar month, or a set of images.

    Args:
        paths: magnetometer files, folders of them, spectrogram images (PNG, NetCDF), and side
            tables (earthquakes, stations, Kp: CSV).
        options: how to read and label.
    """
    how = reading(options)
    side, rest = side_tables(_expand(paths))
    pictures = [p for p in rest if imagefiles.is_image(p)]
    refused: list[Refusal] = []
    stations: dict[str, list[tuple[Part, float]]] = {}
    for path in rest:
        if path in pictures:
            continue
        try:
            check_file(path)
            code, part, zero = _look(path, how)
            stations.setdefault(code, []).append((part, zero))
        except Refused as refusal:
            refused.append(Refusal(str(path), str(refusal)))
    jobs = [*imagefiles.jobs(pictures, options.station, refused)] if pictures else []
    for code, found in sorted(stations.items()):
        try:
            jobs += _jobs(code, found, how, side, options)
        except Refused as refusal:
            refused.append(Refusal(code, str(refusal)))
    return Opening(tuple(jobs), tuple(refused))


def _jobs(
    code: str, found: list[tuple[Part, float]], how: Reading, side: Side, options: Options
) -> list[Job]:
    parts = tuple(sorted((p for p, _ in found), key=lambda p: (p.start, str(p.path))))
    quakes = None
    if side.quakes is not None and side.stations is not None:
        station_place(side.stations, code)
        mine = side.stations[side.stations["station"] == code]
        quakes = pairs(side.quakes, mine, rule(options))
    source = Station(code, parts, how, found[0][1], quakes, side.kp)
    jobs = []
    months = sorted({p.start.astype("datetime64[M]") for p in parts})
    months += [
        m for p in parts for m in np.arange(
            p.start.astype("datetime64[M]") + 1,
            (p.stop - np.timedelta64(1, "ns")).astype("datetime64[M]") + 1,
        ) if m not in months
    ]  # fmt: skip
    for month in sorted(set(months)):
        lo = np.maximum(month.astype("datetime64[ns]"), parts[0].start)
        hi = np.minimum((month + 1).astype("datetime64[ns]"), parts[-1].stop)
        inside = tuple(p.path for p in parts if p.start < hi and p.stop > lo)
        first, last = (str(t.astype("datetime64[D]")).replace("-", "") for t in
                       (lo, hi - np.timedelta64(1, "ns")))  # fmt: skip
        stem = f"{code}_{first}" if first == last else f"{code}_{first}-{last}"
        jobs.append(Job(stem, source, lo, hi, inside))
    return jobs


def probe(path: Path) -> str:
    """Format of a magnetometer file by content, "" where none fits."""
    try:
        return sniff(unpack(path.read_bytes(), path.name))
    except (OSError, Refused, NoData):
        return ""
