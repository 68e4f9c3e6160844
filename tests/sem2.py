"""Small SEM-2 scenes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from terrella.sources.poes import write
from terrella.tasks.precipitation.simulate import simulate
from terrella.types import Record

Edit = Callable[[h5py.File], Any]


@pytest.fixture(scope="session")
def record() -> Record:
    return simulate(seed=5, hours=2.0, start="2019-10-24")


@pytest.fixture
def sem2(record: Record, tmp_path: Path) -> Callable[..., Path]:
    """Write a scene, change it in place, and return its path."""

    def make(edit: Edit | None = None, name: str = "poes_n18_20191024_proc.nc") -> Path:
        path = write(record, tmp_path / name)
        if edit is not None:
            with h5py.File(path, "r+") as file:
                edit(file)
        return path

    return make


@pytest.fixture
def replace() -> Callable[[str, Callable[[np.ndarray], np.ndarray]], Edit]:
    """Makes an edit that rewrites one variable."""

    def make(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
        def edit(file: h5py.File) -> None:
            values = change(file[name][()])
            del file[name]
            file[name] = values

        return edit

    return make


@pytest.fixture
def quiet() -> Any:
    """Warnings about damaged files are expected here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
