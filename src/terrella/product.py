"""Products on disk: NetCDF, CSV, figures and the record of a run."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pandas as pd
import xarray as xr

from terrella import files
from terrella.types import Product

TIME_UNITS = "milliseconds since 1970-01-01"
FOLLOWED = ("terrella", "torch", "numpy", "xarray", "h5netcdf", "scipy")


def write(product: Product, folder: Path, stem: str, task: str) -> list[Path]:
    """Write one product: ``<stem>.<task>.nc``, ``<stem>.<task>.csv`` where there are events.

    Returns:
        The files written.

    Raises:
        Refused: the folder cannot be written.
    """
    with Stream(folder, stem, task) as stream:
        stream.add(product)
        return stream.close()


class Stream:
    """One product that grows along time piece by piece: only a piece is ever in memory.

    A context manager; the files appear when it is closed, and none if no piece was added.

    Args:
        folder: where the files go.
        stem, task: they are named by.
        grows: more than one piece will come.
        own_folder: further tables go to ``folder/<stem>/``: other products share ``folder``.
    """

    def __init__(
        self, folder: Path, stem: str, task: str, *, grows: bool = False, own_folder: bool = False
    ) -> None:
        self.path = folder / f"{stem}.{task}.nc"
        self.tables_in = folder / stem if own_folder else folder
        self.grows = grows
        self.pieces = 0
        self._stack = ExitStack()
        self._scratch = Path()
        self._events: list[pd.DataFrame] = []
        self._tables: dict[str, list[pd.DataFrame]] = {}

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, product: Product) -> None:
        """Append a piece; its variables are those of the first, later in time.

        Raises:
            Refused: the folder cannot be written, or the disk is full.
        """
        series = product.series
        if not self.pieces:
            self._scratch = self._stack.enter_context(files.whole(self.path))
            save_series(series, self._scratch, grows=self.grows)
        else:
            self._grow(series)
        self.pieces += 1
        if product.events is not None:
            self._events.append(product.events)
        for name, table in product.tables.items():
            self._tables.setdefault(name, []).append(table)

    def _grow(self, series: xr.Dataset) -> None:
        with h5netcdf.File(self._scratch, "r+") as grown:
            had = grown.dimensions["time"].size
            grown.resize_dimension("time", had + series.sizes["time"])
            for name, variable in series.variables.items():
                if "time" in variable.dims:
                    values = variable.to_numpy()
                    if np.issubdtype(values.dtype, np.datetime64):
                        values = values.astype("datetime64[ms]").astype(np.int64)
                    grown.variables[str(name)][had:] = values

    def close(self) -> list[Path]:
        """Put the files in place; none if no piece was added."""
        if not self.pieces:
            return []
        self._stack.close()
        written = [self.path]
        if self._events:
            written.append(self.path.with_suffix(".csv"))
            save_table(pd.concat(self._events), written[-1])
        for name, tables in self._tables.items():
            written.append(self.tables_in / f"{name}.csv")
            save_table(pd.concat(tables), written[-1])
        return written


def read(written: Iterable[Path]) -> Product:
    """Open a written product; its series stays on disk until it is used."""
    series, *tables = written
    opened = xr.open_dataset(series, engine="h5netcdf", decode_timedelta=False, cache=False)
    events = [t for t in tables if t == series.with_suffix(".csv")]
    return Product(opened, pd.read_csv(events[0]) if events else None)


def save_series(series: xr.Dataset, path: Path, *, grows: bool = False) -> None:
    """Write a series as NetCDF, the same bytes for the same series."""
    series.to_netcdf(
        path,
        engine="h5netcdf",
        encoding=_encoding(series),
        unlimited_dims=["time"] if grows else [],
    )


def series_bytes(series: xr.Dataset) -> memoryview:
    """A series as the bytes of a NetCDF file: HDF5 does not survive a disk that fills under it."""
    made: Any = series.to_netcdf(engine="h5netcdf", encoding=_encoding(series))
    return memoryview(made)


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with files.whole(path) as scratch:
        table.to_csv(scratch, index=table.index.name is not None, lineterminator="\n")


def _encoding(series: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Compressed, times as whole milliseconds unless a variable asks for other units or chunks."""
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in series.variables.items():
        if np.issubdtype(variable.dtype, np.datetime64):
            units = variable.encoding.get("units", TIME_UNITS)
            encoding[str(name)] = {"units": units, "dtype": "int64"}
        elif variable.ndim and variable.dtype.kind in "fiu":
            encoding[str(name)] = {"zlib": True, "complevel": 1, "shuffle": True}
            if variable.dtype.kind == "f":
                encoding[str(name)]["_FillValue"] = np.float32(np.nan).astype(variable.dtype)
            if "chunksizes" in variable.encoding:  # a task knows how its product is read
                encoding[str(name)]["chunksizes"] = variable.encoding["chunksizes"]
    return encoding


def write_record(
    folder: Path,
    command: Iterable[str],
    *,
    inputs: Iterable[Path] = (),
    name: str = "run.json",
    **body: Any,
) -> Path:
    """Write ``run.json``: versions, hashes of the inputs, options, weights, what was refused."""
    record = {
        "command": list(command),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {p: _version(p) for p in FOLLOWED},
        "inputs": {str(p): files.sha256(p) for p in inputs if p.is_file()},
        **body,
    }
    path = folder / name
    with files.whole(path) as scratch:
        scratch.write_text(json.dumps(record, indent=2, default=_jsonable) + "\n", "utf-8")
    return path


def history(task: str, weights: Mapping[str, Any]) -> dict[str, str]:
    """Global attributes that every series carries."""
    return {
        "Conventions": "CF-1.11",
        "source": f"terrella {_version('terrella')} {task}",
        "weights": f"{weights.get('name', '')} sha256:{weights.get('sha256', '')}",
    }


def _version(package: str) -> str:
    # A module already imported knows its own version; the package index is slower to search.
    module = sys.modules.get(package)
    if module is not None and isinstance(getattr(module, "__version__", None), str):
        return str(module.__version__)
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _jsonable(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
