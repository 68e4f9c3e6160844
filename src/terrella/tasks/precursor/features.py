"""Band powers and polarisation of a window: what the network sees, in the field's quantities."""

from __future__ import annotations

import numpy as np

from terrella.types import Features, Windows

# Hz; pulsation bands of Jacobs et al. 1964, doi:10.1029/JZ069i001p00180. What the images resolve of
# Pc4 and Pc5 is one band; Pc1 goes on beyond Nyquist and is cut in two.
BANDS = {
    "Pc4-5": (0.0, 0.022), "Pc3": (0.022, 0.1), "Pc2": (0.1, 0.2), "Pc1 low": (0.2, 0.35),
    "Pc1 high": (0.35, 0.5001),
}  # fmt: skip
AT_ONCE = 128  # images whose bytes become floats together


def features(windows: Windows) -> Features:
    """Mean level and its spread over the window by component and band, and ratios of components.

    Levels are decibels re 1 nT2/Hz; ``Z/H`` and ``D/H`` are differences of decibels. A band that
    the cadence does not reach is NaN.

    Returns:
        (rows, 40).
    """
    hertz, (low, high) = windows.extra["hertz"], windows.extra["range_db"]
    image = windows.x["image"]
    shape = (len(windows), 3, len(BANDS))
    level, spread = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    scale = 255.0 if str(image.dtype) == "torch.uint8" else 1.0
    for first in range(0, len(windows), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        pixels = image[part].numpy()
        for k, (bottom, top) in enumerate(BANDS.values()):
            inside = (hertz >= bottom) & (hertz < top)
            if inside.any():
                course = pixels[:, :, inside].mean(2, dtype=np.float32) / scale  # (rows, 3, time)
                level[part, :, k] = course.mean(-1) * (high - low) + low
                spread[part, :, k] = course.std(-1) * (high - low)
    parts = [level.reshape(len(windows), -1), spread.reshape(len(windows), -1)]
    parts += [level[:, k] - level[:, 0] for k in (2, 1)]
    names = [f"{c} {b}" for c in "HDZ" for b in BANDS]
    names += [f"spread {c} {b}" for c in "HDZ" for b in BANDS]
    names += [f"{ratio} {b}" for ratio in ("Z/H", "D/H") for b in BANDS]
    return Features(tuple(names), np.concatenate(parts, 1))
