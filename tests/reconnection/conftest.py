"""Scenes that several tests share: made once, never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from terrella.tasks.reconnection.simulate import export, simulate


@pytest.fixture(scope="session")
def record() -> dict[str, Any]:
    """Half a minute of two probes, field at a gentle rate."""
    return simulate(seed=3, hours=30 / 3600, probes="1,2", field_rate=1024.0)


@pytest.fixture(scope="session")
def scene(record: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as L2 files in a folder."""
    folder = tmp_path_factory.mktemp("mms") / "scene"
    export(record, folder)
    return folder
