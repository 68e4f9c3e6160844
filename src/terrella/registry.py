"""Finds tasks: every folder of ``terrella.tasks`` and every ``terrella.tasks`` entry point."""

from __future__ import annotations

import importlib
from pathlib import Path

from terrella.task import Task
from terrella.types import Refused

GROUP = "terrella.tasks"
FOLDER = Path(__file__).parent / "tasks"


def names() -> list[str]:
    """Names of all tasks, sorted, without importing any."""
    own = {p.parent.name for p in FOLDER.glob("*/task.py")}
    return sorted(own | set(_entry_points()))


def get(name: str) -> Task:
    """Import one task.

    Raises:
        Refused: there is no such task; the message names the nearest.
    """
    if (FOLDER / name / "task.py").is_file():
        found: Task = importlib.import_module(f"{GROUP}.{name}.task").task
        return found
    points = _entry_points()
    if name in points:
        module, _, attribute = points[name].partition(":")
        outside: Task = getattr(importlib.import_module(module), attribute or "task")
        return outside
    raise Refused(f"no task is called {name!r}; {nearest(name, names())}")


def nearest(word: str, known: list[str]) -> str:
    """A hint for a misspelt name."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known) or 'none'}"


def card(name: str) -> dict[str, object]:
    """The task's ``card.toml``: what it is, where the method comes from, its traps."""
    import tomllib

    path = FOLDER / name / "card.toml"
    return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {p.name: p.value for p in entry_points(group=GROUP)}
