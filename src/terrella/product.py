"""Products on disk: NetCDF, CSV, figures and the record of a run."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from terrella import files
from terrella.types import Product

FOLLOWED = ("terrella", "torch", "numpy", "xarray", "h5netcdf", "scipy")


def write(product: Product, folder: Path, stem: str, task: str) -> list[Path]:
    """Write ``<stem>.<task>.nc`` and, where there are events, ``<stem>.<task>.csv``.

    Returns:
        The files written.

    Raises:
        Refused: the folder cannot be written.
    """
    written = [folder / f"{stem}.{task}.nc"]
    write_series(product.series, written[0])
    if product.events is not None:
        written.append(folder / f"{stem}.{task}.csv")
        with files.whole(written[1]) as scratch:
            product.events.to_csv(scratch, index=False, lineterminator="\n")
    return written


def write_series(series: xr.Dataset, path: Path) -> None:
    """Write a dataset as compressed CF NetCDF-4, whole or not at all."""
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in series.variables.items():
        if np.issubdtype(variable.dtype, np.datetime64):
            encoding[str(name)] = {"units": "milliseconds since 1970-01-01", "dtype": "int64"}
        elif variable.ndim and variable.dtype.kind in "fiu":
            encoding[str(name)] = {"zlib": True, "complevel": 1, "shuffle": True}
            if variable.dtype.kind == "f":
                encoding[str(name)]["_FillValue"] = np.float32(np.nan).astype(variable.dtype)
    with files.whole(path) as scratch:
        series.to_netcdf(scratch, engine="h5netcdf", encoding=encoding)


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
