"""From a file's samples to an even clock, and what is wrong with them.

A file decoded with the wrong reader, a jumping clock, a dead sensor: all still give numbers. What
no magnetometer on the ground can have measured is refused; what may be real but spoils a window is
flagged sample by sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrella.sources.base import EARLIEST, LATEST
from terrella.sources.magnetogram import Array, Magnetogram, to_hdz
from terrella.types import NoData, Refused

#: Bits of a window's flag word.
FLAGS = {
    "interpolated": 1,  # a short gap was bridged by a straight line
    "masked": 2,  # a long gap: the spectra that touch it are missing
    "step": 4,  # a jump no field makes in one sample
    "constant": 8,  # a component stood still
    "clock": 16,  # time went backwards, repeated, or stood between two grid points
    "dropped": 32,  # too little left: the window is not used
    "truncated": 64,  # the file ended early or the reader noted something
}

LARGEST_FIELD = 80_000.0  # nT; the field's greatest strength on the ground is about 67,000
LARGEST_MEDIAN_STEP = 25.0  # nT per second; storms in the auroral zone have medians below 5
LARGEST_STEP = 400.0  # nT between two samples, one second apart: instrument, not field


@dataclass(frozen=True)
class Even:
    """H, D, Z of one station on an even clock.

    Attributes:
        station: code.
        start: time of sample 0.
        cadence: seconds.
        field: (3, n) float64 nT, components H, D, Z, NaN where missing.
        flags: (n,) uint8, bits of FLAGS that hold for single samples.
        conversion: how H, D, Z came from what was recorded.
        notes: one line for each thing found odd.
    """

    station: str
    start: np.datetime64
    cadence: float
    field: NDArray[np.float64]
    flags: NDArray[np.uint8]
    conversion: str
    notes: tuple[str, ...]


def check_plausible(values: dict[str, Array], cadence: float, where: str) -> None:
    """Refuse components that no ground magnetometer can have measured.

    Args:
        values: "H", "D", "Z" -> (n,) nT.
        cadence: seconds between samples.
        where: file name for the message.

    Raises:
        NoData: a component has no sample at all.
        Refused: a mean or a typical step beyond any field: a wrong decoder or unit.
    """
    for name, samples in values.items():
        good = samples[np.isfinite(samples)]
        if not len(good):
            raise NoData(f"{where}: component {name} has no valid sample")
        middle = float(np.median(good))
        if abs(middle) > LARGEST_FIELD:
            raise Refused(
                f"{where}: {name} has a median of {middle:,.0f} nT, beyond any field on the "
                "ground: wrong decoder, scale or unit"
            )
        steps = np.abs(np.diff(good))
        typical = float(np.median(steps)) if len(steps) else 0.0
        most = LARGEST_MEDIAN_STEP * max(cadence, 1.0) ** 0.5
        if typical > most:
            raise Refused(
                f"{where}: {name} typically steps {typical:,.0f} nT from sample to sample "
                f"(at most {most:.0f} is plausible): wrong decoder or byte order"
            )


DAY = 86_400.0
EDGE = 60.0  # seconds that a day file may lack at either end and still be taken as a whole day


def _grid(raw: Magnetogram, where: str) -> tuple[np.datetime64, int, NDArray[np.int64], int]:
    """Start, length, grid index of each sample (-1: dropped), and how many were dropped."""
    if not len(raw.time):
        raise NoData(f"{where}: no sample")
    if not np.isfinite(raw.cadence) or raw.cadence <= 0:
        raise Refused(f"{where}: the sampling interval cannot be told from {len(raw.time)} sample")
    wild = (raw.time < EARLIEST) | (raw.time > LATEST) | np.isnat(raw.time)
    if wild.any():
        raise Refused(f"{where}: time of sample {int(wild.argmax())} is not between 1957 and 2100")
    step = round(raw.cadence * 1e9)
    nanos = raw.time.astype("datetime64[ns]").astype(np.int64)
    # The grid begins on a whole multiple of the cadence, so that files of a station join.
    origin = int(nanos[0] // step) * step
    index = np.round((nanos - origin) / step).astype(np.int64)
    highest = np.maximum.accumulate(index)
    fresh = np.ones(len(index), bool)
    fresh[1:] = index[1:] > highest[:-1]
    index = np.where(fresh & (index >= 0), index, -1)
    length = int(highest[-1]) + 1
    # A day short of its first or last samples is still that day: the rest of it is missing.
    day, edge = round(DAY * 1e9 / step), int(EDGE / raw.cadence)
    before, after = (origin % (day * step)) // step, -(origin // step + length) % day
    if 0 < before <= edge:
        origin, length = origin - before * step, length + before
        index = np.where(index >= 0, index + before, -1)
    if 0 < after <= edge:
        length += after
    if length > 40 * len(index) + 200_000:
        raise Refused(
            f"{where}: the clock runs over {length * raw.cadence / 86400:,.0f} days for "
            f"{len(index):,} samples: times are damaged"
        )
    return np.datetime64(origin, "ns"), length, index, int((~fresh).sum())


def even(raw: Magnetogram, where: str = "record", reference: float | None = None) -> Even:
    """Put a Magnetogram on an even clock as H, D, Z in nT, with flags.

    Args:
        raw: what the file says.
        where: file name for messages.
        reference: declination (degrees) that D is counted from, of the station.

    Returns:
        An Even record: gaps NaN, never filled.

    Raises:
        Refused: elements that do not give H, D, Z; implausible values; a damaged clock.
        NoData: no valid sample of a component.
    """
    values, conversion = to_hdz(raw, where, reference)
    check_plausible(values, raw.cadence, where)
    start, length, index, dropped = _grid(raw, where)
    keep = index >= 0
    field = np.full((3, length), np.nan)
    for row, name in enumerate("HDZ"):
        field[row, index[keep]] = values[name][keep]
    flags = np.zeros(length, np.uint8)
    notes = list(raw.notes)
    if raw.notes:
        flags |= np.uint8(FLAGS["truncated"])
    if dropped:
        at = np.flatnonzero(~keep)[0]
        before = index[:at].max() if at else 0
        flags[max(before - 1, 0) : before + dropped + 2] |= np.uint8(FLAGS["clock"])
        notes.append(f"clock went back or repeated: {dropped} samples dropped, first at {at}")
    holes = int(np.isnan(field).any(0).sum())
    if holes:
        notes.append(f"{holes} of {length} samples missing in at least one component")
    jumps = np.zeros(length, bool)
    with np.errstate(invalid="ignore"):
        jumps[1:] = (np.abs(np.diff(field, axis=1)) > LARGEST_STEP).any(0)
    if jumps.any():
        flags[jumps] |= np.uint8(FLAGS["step"])
        notes.append(
            f"{int(jumps.sum())} steps above {LARGEST_STEP:g} nT, first at {jumps.argmax()}"
        )
    for row, name in enumerate("HDZ"):
        if np.nanmax(field[row]) == np.nanmin(field[row]):
            flags |= np.uint8(FLAGS["constant"])
            notes.append(f"component {name} is constant")
    return Even(raw.station, start, raw.cadence, field, flags, conversion, tuple(notes))
