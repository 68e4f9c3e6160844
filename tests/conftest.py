"""What tests share: the command as a user types it, the real data, folders of their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from terrella.cli import main

pytest_plugins = ["tests.sem2"]

BESIDE = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of the shared real data; the test is skipped where there is none."""
    given = os.environ.get("TERRELLA_REALDATA")
    folder = Path(given) if given else BESIDE
    if not folder.is_dir():
        pytest.skip("no real data: set TERRELLA_REALDATA or put it in ../shared/data")
    return folder


@dataclass(frozen=True)
class Said:
    """What a command left: exit status, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of a refusal."""
        beside = ("warning", "refused", "failed", "removed")
        lines = [x for x in self.err.splitlines() if x and not x.startswith(beside)]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("terrella: ")
        return lines[0]


@pytest.fixture
def terrella(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command, in this process."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main([str(a) for a in arguments])
        said = capsys.readouterr()
        return Said(int(leaving.value.code or 0), said.out, said.err)

    return call


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or changes the user's own weights and caches."""
    root = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("TERRELLA_WEIGHTS", str(root / "weights"))
    monkeypatch.setenv("TERRELLA_CACHE", str(root / "cache"))
