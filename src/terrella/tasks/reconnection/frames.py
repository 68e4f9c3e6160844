"""GSE to GSM: a rotation about the Sun-Earth line that keeps the dipole in the x-z plane.

The angle comes from the geopack library (Hapgood 1992, doi:10.1016/0032-0633(92)90012-D, for the
systems): its Sun position and its IGRF dipole. It turns by at most some 0.01 degree a second, so a
knot each half minute and a straight line between are exact to 1e-5 degree.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np

KNOT = 30.0  # s


def gsm_angle(time: np.ndarray) -> np.ndarray:
    """Angle psi by which GSM is turned about x against GSE.

    y_gsm = y cos(psi) + z sin(psi), z_gsm = -y sin(psi) + z cos(psi).

    Args:
        time: (samples,) datetime64[ns] UTC.

    Returns:
        (samples,) radians.
    """
    if not len(time):
        return np.empty(0)
    # The library prints a line at import.
    with contextlib.redirect_stdout(io.StringIO()):
        from geopack import geopack

    seconds = np.asarray(time, "datetime64[ns]").astype(np.int64) / 1e9
    lo, hi = seconds.min(), seconds.max()
    knots = np.linspace(lo, hi, int((hi - lo) / KNOT) + 2)
    angles = []
    for knot in knots:
        geopack.recalc(float(knot))
        _, sine, cosine = geopack.gsmgse(0.0, 0.0, 1.0, -1)  # GSE's z axis as seen in GSM
        angles.append(np.arctan2(sine, cosine))
    turned: np.ndarray = np.interp(seconds, knots, np.unwrap(angles))
    return turned


def to_gsm(vectors: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Turn GSE vectors (samples, 3) into GSM, any units.

    Args:
        vectors: (samples, 3) in GSE.
        time: (samples,) datetime64[ns] UTC.
    """
    return turn(vectors, gsm_angle(time))


def turn(vectors: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Rotate (samples, 3) about x by ``angle`` radians; a negative angle turns GSM into GSE."""
    x, y, z = np.moveaxis(np.asarray(vectors, float), -1, 0)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([x, y * c + z * s, z * c - y * s], axis=-1)
