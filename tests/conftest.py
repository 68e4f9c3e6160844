"""What tests share: the real data where it lies, and folders of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or changes the user's own weights and caches."""
    root = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("TERRELLA_WEIGHTS", str(root / "weights"))
    monkeypatch.setenv("TERRELLA_CACHE", str(root / "cache"))
