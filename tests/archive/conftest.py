"""A small archive, made once, and what its store holds."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.archive.days import EVERY_CROSSING, cut, flight

from terrella.cli import main

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


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def line(self) -> str:
        """The one line of a refusal."""
        begin = ("warning", "failed", "removed")
        lines = [x for x in self.err.splitlines() if x and not x.startswith(begin)]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("terrella: ")
        return lines[0]


@pytest.fixture
def terrella(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main([str(a) for a in arguments])
        said = capsys.readouterr()
        return Said(int(leaving.value.code or 0), said.out, said.err)

    return call


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
