"""Where things live on this machine: weights, data and caches."""

from __future__ import annotations

import os
from pathlib import Path

APP = "terrella"


def weight_root() -> Path:
    """Folder of imported and fetched weights (``TERRELLA_WEIGHTS`` overrides it)."""
    if given := os.environ.get("TERRELLA_WEIGHTS"):
        return Path(given)
    from platformdirs import user_data_path

    return user_data_path(APP) / "weights"


def cache_root() -> Path:
    """Folder of files that can be made or fetched again (``TERRELLA_CACHE`` overrides it)."""
    if given := os.environ.get("TERRELLA_CACHE"):
        return Path(given)
    from platformdirs import user_cache_path

    return user_cache_path(APP)


def packaged(task: str) -> Path:
    """Folder of the weights that ship with a task."""
    return Path(__file__).parent / "tasks" / task / "weights"
