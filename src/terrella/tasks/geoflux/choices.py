"""What a run may choose, checked before any file is opened."""

from __future__ import annotations

import numpy as np

from terrella.sources.base import instant
from terrella.tasks.geoflux import calibrate
from terrella.tasks.geoflux.daily import DAY_H
from terrella.tasks.geoflux.task import Options
from terrella.types import Refused


def check_options(options: Options) -> None:
    """Refuse options that no data could satisfy.

    Raises:
        Refused: names the option and what it may be.
    """
    if options.every < 1 or DAY_H % options.every:
        raise Refused(
            f"--every {options.every}: issue times lie at the same hours of every day; give a "
            "divisor of 24 (1, 2, 3, 4, 6, 8, 12 or 24)"
        )
    alerts(options.alerts)
    calibrate.pairs(options.calibrate)
    if options.issue:
        issue_times(options.issue)


def issue_times(text: str) -> tuple[np.datetime64, np.datetime64]:
    """First and last issue time of ``--issue``.

    Raises:
        Refused: not times, not on whole hours, or the wrong way round.
    """
    first_text, _, last_text = _parts(text)
    first, last = instant(first_text, "--issue"), instant(last_text or first_text, "--issue")
    if any(t != t.astype("datetime64[h]") for t in (first, last)):
        raise Refused(f"--issue {text}: whole hours are needed, as in 2018-06-01T06")
    if last < first:
        raise Refused(f"--issue {text}: the last issue time is before the first")
    return first, last


def _parts(text: str) -> tuple[str, str, str]:
    """Split FIRST:LAST, whose times may hold colons themselves."""
    if text.count(":") == 1 and "T" not in text:
        return text.partition(":")
    middle = [k for k, c in enumerate(text) if c == ":"]
    for k in middle:
        head, tail = text[:k], text[k + 1 :]
        if len(tail) >= 10 and tail[4:5] == "-":
            return head, ":", tail
    return text, "", ""


def alerts(text: str) -> list[tuple[str, float]]:
    """Read ``flux:1e3,fluence:1e8``.

    Raises:
        Refused: it is not of that form, or a level is not positive.
    """
    found = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        kind, _, level = part.partition(":")
        try:
            value = float(level)
        except ValueError:
            value = -1.0
        if kind not in ("flux", "fluence") or not np.isfinite(value) or value <= 0:
            raise Refused(f"--alerts {text!r}: write it as flux:1e3,fluence:1e8")
        found.append((kind, value))
    return found
