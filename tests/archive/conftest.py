"""A small archive, made once, and what its store holds."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.archive.days import EVERY_CROSSING, cut, flight
from tests.conftest import Said

HOURS = 2.0  # of a file: short, so that many fit in a test


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven files of one flight; never changed."""
    folder = tmp_path_factory.mktemp("small")
    cut(flight(6, HOURS, world=EVERY_CROSSING), folder, HOURS)
    return folder


@pytest.fixture
def days(small: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(small, tmp_path / "days"))


@pytest.fixture
def fill(terrella: Callable[..., Said]) -> Callable[..., Said]:
    """Bring a store up to date with the files of a folder, in this process."""

    def call(days: Path, store: Path, *more: object) -> Said:
        given = more if "--workers" in more else ("--workers", 1, *more)
        return terrella("run", "precipitation", days / "**/*.nc", "--out", store, *given)

    return call


def content(store: Path) -> dict[str, str]:
    """Every file of a store by name and hash, but for what tells of runs."""
    apart = ("runs", "hashes.tsv", ".lock")
    return {
        str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(store.rglob("*"))
        if p.is_file() and p.relative_to(store).parts[0] not in apart
    }
