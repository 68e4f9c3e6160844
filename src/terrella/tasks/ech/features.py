"""The published 224 inputs: four of place and four index histories, oldest first.

Layout: L, cos MLT, sin MLT, cos^6 MLAT | SME hourly x 49 | SYM-H hourly x 49 | SME fast x 61 |
SYM-H fast x 61. "Hourly" means instantaneous values every 60 min over 48 h; "fast" (called
1-minute by its authors) means every 5 min over 5 h; both end at the instant itself. Raw nT.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrella.types import Features, Windows

Floats = NDArray[np.floating]

HOURLY_STEPS = np.arange(-48, 1) * 60  # minutes before the instant
FAST_STEPS = np.arange(-60, 1) * 5
REACH_MINUTES = int(-HOURLY_STEPS[0])
HISTORIES = ("sme_hourly", "symh_hourly", "sme_fast", "symh_fast")
LENGTHS = {"sme_hourly": 49, "symh_hourly": 49, "sme_fast": 61, "symh_fast": 61}
WIDTH = 4 + sum(LENGTHS.values())


def place_features(L: Floats, MLT: Floats, MLAT: Floats) -> Floats:
    """(..., 4) float64: L, cos(15 deg MLT), sin(15 deg MLT), cos^6(MLAT).

    Args:
        L: McIlwain L or L-star, R_E. MLT: hours. MLAT: degrees; all of one shape.
    """
    angle = np.asarray(MLT, float) * (np.pi / 12)
    lat = np.radians(np.asarray(MLAT, float))
    return np.stack([np.asarray(L, float), np.cos(angle), np.sin(angle), np.cos(lat) ** 6], -1)


def history_features(sme: Floats, symh: Floats, at: NDArray[np.integer]) -> dict[str, Floats]:
    """Four histories for the minutes ``at`` of two one-minute series.

    Args:
        sme, symh: (minutes,) nT, one value a minute, NaN where missing.
        at: (rows,) positions of the instants in the series, each at least 2880.

    Returns:
        The keys of HISTORIES, each (rows, 49 or 61) nT, oldest to newest.
    """
    at = np.asarray(at)
    if at.size and (at.min() < REACH_MINUTES or at.max() >= len(sme)):
        raise ValueError(f"an instant's history leaves the series: it needs {REACH_MINUTES} min")
    slow, fast = at[:, None] + HOURLY_STEPS, at[:, None] + FAST_STEPS
    return {
        "sme_hourly": sme[slow],
        "symh_hourly": symh[slow],
        "sme_fast": sme[fast],
        "symh_fast": symh[fast],
    }


def flatten(place: Floats, histories: dict[str, Floats]) -> Floats:
    """(rows, 224) in the published order."""
    return np.concatenate([place, *(histories[k] for k in HISTORIES)], axis=-1)


def split(features: Floats) -> tuple[Floats, dict[str, Floats]]:
    """The inverse of ``flatten``: place (rows, 4) and the four histories."""
    if features.ndim != 2 or features.shape[1] != WIDTH:
        raise ValueError(f"expected (rows, {WIDTH}) features, got {features.shape}")
    edges = np.cumsum([4, *(LENGTHS[k] for k in HISTORIES)])
    parts = np.split(features, edges[:-1], axis=1)
    return parts[0], dict(zip(HISTORIES, parts[1:], strict=True))


def summary(windows: Windows) -> Features:
    """What the indices did before each instant; asinh of nT over 100, as the network sees them.

    Places are not among it: a row may be a whole map, whose points ``extrapolation`` marks.

    Returns:
        (rows, 18): of SME and of SYM-H the value now, the change and mean over an hour, mean and
        both extremes over 5 h, means over 12 and 48 h, and the extreme of 48 h (highest SME, lowest
        SYM-H).
    """
    names: list[str] = []
    columns: list[Floats] = []
    for name, key, extreme in (("SME", "sme", np.max), ("SYM-H", "symh", np.min)):
        slow, fast = (
            np.arcsinh(windows.x[f"{key}_{k}"].numpy().astype(float) / 100)
            for k in ("hourly", "fast")
        )
        now, hour = fast[:, -1], fast[:, -13:]
        found = {
            "now": now, "change in 1 h": now - fast[:, -13], "mean 1 h": hour.mean(1),
            "mean 5 h": fast.mean(1), "least 5 h": fast.min(1), "most 5 h": fast.max(1),
            "mean 12 h": slow[:, -13:].mean(1), "mean 48 h": slow.mean(1),
            "extreme 48 h": extreme(slow, axis=1),
        }  # fmt: skip
        names += [f"asinh {name} {what}" for what in found]
        columns += found.values()
    return Features(tuple(names), np.stack(columns, 1))
