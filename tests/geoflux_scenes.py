"""Small scenes that the tests of geoflux share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from terrella.tasks.geoflux.daily import HOUR
from terrella.tasks.geoflux.inputs import Inputs, assemble
from terrella.tasks.geoflux.simulate import as_series, simulate
from terrella.tasks.geoflux.task import Options
from terrella.types import Record

START = np.datetime64("2016-01-01", "ns")


def hours(n: int, start: np.datetime64 = START) -> np.ndarray:
    return start + np.arange(n) * HOUR


def source(days: float = 500, seed: int = 1, **options: object) -> Inputs:
    made = as_series(simulate(seed, days * 24))
    return assemble(made, Options(**options), "simulated")  # type: ignore[arg-type]


def record(days: float = 500, seed: int = 1) -> Record:
    return dict(source(days, seed).series)


def write_csv(
    path: Path, n: int = 24 * 60, flux: np.ndarray | None = None, **columns: object
) -> Path:
    """A CSV with a header that names quantities and units."""
    rng = np.random.default_rng(0)
    time = hours(n)
    values = 10 ** (2.5 + 0.4 * np.sin(np.arange(n) / 24 * 2 * np.pi) + rng.normal(0, 0.05, n))
    table = {"flux [cm-2 s-1 sr-1]": values if flux is None else flux, **columns}
    lines = ["time," + ",".join(table)]
    for k in range(n):
        cells = [f"{np.asarray(v)[k]:.6g}" for v in table.values()]
        lines.append(f"{np.datetime_as_string(time[k], 's')},{','.join(cells)}".replace("nan", ""))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
