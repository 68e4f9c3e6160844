"""How far a run has come: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

EVERY = 30.0  # seconds between lines in a log


class Progress:
    """Counts units, with rate and time left.

    Args:
        total: units to do.
        say: takes a line for the user.
    """

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self.total, self.done = total, 0
        self._say = say
        self._begun = self._last = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and self.total > 1:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._bar.start()
            self._bar.add_task("units", total=self.total)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self) -> None:
        """One unit more."""
        self.done += 1
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(0, completed=self.done, description=self.words(now))
        elif now - self._last > EVERY and self.done < self.total:
            self._last = now
            self._say(f"{self.done} of {self.total} units, {self.words(now)}")

    def words(self, now: float) -> str:
        """Rate, and time left at that rate."""
        rate = self.done / max(now - self._begun, 1e-9)
        return f"{rate:.3g} units a second, {clock((self.total - self.done) / rate)} left"


def clock(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, _ = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {round(seconds) % 60:02d} s"
