"""What a magnetometer file says, and its conversion to H, D, Z in nanotesla.

Every reader returns a :class:`Magnetogram`: the elements exactly as the file has them, with their
units. :func:`to_hdz` is the only place where components are turned, so that the conversion is one
and can be stated beside the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrella.types import Refused

Array = NDArray[np.float64]
Times = NDArray[np.datetime64]

#: Step, in degrees, to which the reference declination of a station is rounded.  Coarse on purpose:
#: it is the same on every day of a station, yet keeps D nearly perpendicular to H.
REFERENCE_STEP = 5.0


@dataclass(frozen=True)
class Magnetogram:
    """One station's record as one file gives it.

    Attributes:
        station: IAGA (or network) code, upper case; empty where the file names none.
        time: (n,) datetime64[ns], as recorded: not yet sorted or gridded.
        values: element letter (H, D, Z, X, Y, E, F, I, U, V, W) -> (n,) float64, NaN where missing.
        units: element letter -> "nT" or "arcmin".
        cadence: nominal seconds between samples.
        latitude: degrees north, NaN where unknown.
        longitude: degrees east, NaN where unknown.
        format: name of the format it was read as.
        notes: what the reader found odd, one line each.
    """

    station: str
    time: Times
    values: dict[str, Array]
    units: dict[str, str]
    cadence: float
    latitude: float = float("nan")
    longitude: float = float("nan")
    format: str = ""
    notes: tuple[str, ...] = ()


def _polar(raw: Magnetogram, where: str) -> tuple[Array, Array | None, Array, str]:
    """Horizontal intensity (nT), declination (rad; None where D is already nT), Z (nT), words."""
    v, units = raw.values, raw.units
    have = set(v)
    if {"X", "Y", "Z"} <= have:
        words = "H = hypot(X, Y), declination = atan2(Y, X)"
        return np.hypot(v["X"], v["Y"]), np.arctan2(v["Y"], v["X"]), v["Z"], words
    if {"H", "E", "Z"} <= have:
        words = "H = hypot(H, E), declination from sensor north = atan2(E, H)"
        return np.hypot(v["H"], v["E"]), np.arctan2(v["E"], v["H"]), v["Z"], words
    if {"H", "D", "Z"} <= have and units["D"] == "nT":
        return v["H"], None, v["Z"], "H, D, Z in nT as recorded"
    if {"H", "D"} <= have and ("Z" in have or "I" in have):
        angle = np.deg2rad(v["D"] / 60.0)
        if "Z" in have:
            return v["H"], angle, v["Z"], "H, Z as recorded, declination from arc-minutes"
        return v["H"], angle, v["H"] * np.tan(np.deg2rad(v["I"] / 60.0)), "Z = H tan(I)"
    if {"D", "I", "F"} <= have:
        dip = np.deg2rad(v["I"] / 60.0)
        words = "H = F cos(I), Z = F sin(I), declination from arc-minutes"
        return v["F"] * np.cos(dip), np.deg2rad(v["D"] / 60.0), v["F"] * np.sin(dip), words
    names = "".join(v) or "nothing"
    hint = "; U, V, W are sensor axes whose orientation is not known" if "U" in have else ""
    raise Refused(
        f"{where}: elements {names} cannot be turned into H, D, Z{hint}. "
        "Needed: HDZ, HEZ, XYZ, HDI or DIF."
    )


def reference_declination(raw: Magnetogram, where: str = "record") -> float:
    """Declination (degrees) that D is counted from: the median, to the nearest 5 degrees."""
    _, angle, _, _ = _polar(raw, where)
    if angle is None or not np.isfinite(angle).any():
        return 0.0
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return float(REFERENCE_STEP * np.round(np.rad2deg(np.nanmedian(angle)) / REFERENCE_STEP) + 0.0)


def to_hdz(
    raw: Magnetogram, where: str = "record", reference: float | None = None
) -> tuple[dict[str, Array], str]:
    """Components H, D, Z in nT, and the conversion in words.

    D in nT is H (nT) times the declination (rad) counted from ``reference``: the arc, as
    INTERMAGNET converts it (D[nT] = D[arcmin] H / 3437.75).

    Args:
        raw: the file's own elements.
        where: file name for messages.
        reference: declination in degrees that D is counted from; of a station, not of a day.
            None: :func:`reference_declination` of this record.

    Returns:
        ``{"H", "D", "Z"}`` each (n,) nT, and one sentence that states the conversion.

    Raises:
        Refused: elements from which H, D, Z do not follow.
    """
    h, angle, z, words = _polar(raw, where)
    if angle is None:
        return {"H": h, "D": raw.values["D"], "Z": z}, words + "; D in nT as recorded"
    zero = reference_declination(raw, where) if reference is None else reference
    d = h * (angle - np.deg2rad(zero))
    return {"H": h, "D": d, "Z": z}, f"{words}; D[nT] = H (declination - {zero:g} deg)"
