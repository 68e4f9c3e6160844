"""Simulated archives: one long flight cut into files, with an event across a cut."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from terrella.sources import poes
from terrella.steps.events import runs
from terrella.tasks.precipitation.simulate import World, simulate
from terrella.types import Record

PLAIN = World()
EVERY_CROSSING = World(rep=0.9, gaps=1.0)
START = np.datetime64("2013-01-01", "ns")


def flight(days: int, hours: float = 24.0, seed: int = 5, world: World = PLAIN) -> Record:
    """A record whose clock is shifted so that a true event lies across the end of a day.

    Args:
        days: how many, each of ``hours``.
    """
    record = simulate(seed=seed, hours=days * hours, world=world)
    truth = record["truth"].to_numpy()
    first, last = runs(truth > 0)
    day = np.timedelta64(round(hours * 3600), "s")
    time = record["L"]["time"].to_numpy()
    bright = np.array([record["e4_0"][a : b + 1].max() for a, b in zip(first, last, strict=True)])
    bright[(last - first < 5) | (time[first] < START + day) | (time[last] > time[-1] - day)] = 0
    best = int(bright.argmax())
    middle = time[(first[best] + last[best]) // 2]
    shift = -((middle - START) % day).astype("m8[ns]")
    return {k: v.assign_coords(time=v["time"].to_numpy() + shift) for k, v in record.items()}


def cut(record: Record, folder: Path, hours: float = 24.0, satellite: str = "n18") -> list[Path]:
    """Files of the record, one a day of ``hours``, named by days that follow each other."""
    folder.mkdir(parents=True, exist_ok=True)
    time = record["L"]["time"].to_numpy()
    number = (time - START) // np.timedelta64(round(hours * 3600), "s")
    paths = []
    for k in np.unique(number):
        day = str(START.astype("M8[D]") + int(k)).replace("-", "")
        path = folder / f"poes_{satellite}_{day}_proc.nc"
        part = {n: v.isel(time=number == k) for n, v in record.items()}
        paths.append(poes.write(part, path, satellite))
    return paths


def truncate(path: Path) -> None:
    """As a transfer that broke off."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def damage(path: Path) -> None:
    """Time can be read, a flux cannot: found only when the file is used."""
    with h5py.File(path) as file:
        chunk = file["mep_ele_tel0_flux_e2"].id.get_chunk_info(0)
    body = bytearray(path.read_bytes())
    body[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\x5a" * chunk.size
    path.write_bytes(bytes(body))
