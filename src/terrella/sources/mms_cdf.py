"""One variable of one MMS CDF file: times in UTC, fills, units, and clear refusals."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from terrella.sources.mms_variables import SAME, Quantity
from terrella.types import Refused

J2000 = np.datetime64("2000-01-01T12:00:00", "ns")
TT_TAI = 32_184_000_000  # ns
FILL = np.iinfo(np.int64).min


class guarded:  # noqa: N801 - used as a function
    """Open a CDF file; whatever goes wrong inside becomes one clear refusal."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        try:
            return _opened(*_stamped(self.path))
        except Exception as error:
            raise self._refusal(error) from None

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        # The parser meets damaged bytes with any kind of error, from struct to MemoryError.
        if isinstance(error, Exception) and not isinstance(error, Refused):
            raise self._refusal(error) from None

    def _refusal(self, error: Exception) -> Refused:
        reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        if self.path.is_file() and self.path.stat().st_size == 0:
            reason = "it is empty"
        return Refused(f"{self.path}: cannot be read as CDF, damaged or foreign ({reason})")


def _stamped(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _opened(path: str, changed: int, size: int) -> Any:
    # One parse of a file's directory serves all of its variables; a changed file is parsed anew.
    import cdflib

    return cdflib.CDF(path)


def read(
    path: Path, name: str, quantity: Quantity, start: np.datetime64, stop: np.datetime64
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """One variable of one file over [start, stop).

    Returns:
        time (samples,) datetime64[ns], values (samples, *shape) with fills as NaN, and the seconds
        from the time stamp to the centre of the sample; None if the file has nothing there.

    Raises:
        Refused: damaged, or with other units or another shape than expected.
    """
    with guarded(path) as cdf:
        attrs = cdf.varattsget(name)
        clock = str(attrs.get("DEPEND_0") or "Epoch")
        time = _epoch(*_stamped(path), clock)
        inside = np.flatnonzero((time >= start) & (time < stop))
        if not len(inside):
            return None
        info = cdf.varinq(name)
        lo, hi = int(inside[0]), int(inside[-1])
        if info.Rec_Vary:
            raw = np.asarray(cdf.varget(name, startrec=lo, endrec=hi))
            raw = raw.reshape(hi - lo + 1, *info.Dim_Sizes)
        else:
            raw = np.broadcast_to(cdf.varget(name), (hi - lo + 1, *info.Dim_Sizes))
        centre = _centre(cdf, clock)
    if quantity.shape and raw.shape[1:] != quantity.shape:
        if raw.ndim != 2 or raw.shape[1] < quantity.shape[0] or len(quantity.shape) > 1:
            raise Refused(f"{path}: {name} has shape {raw.shape[1:]}, expected {quantity.shape}")
        raw = raw[:, : quantity.shape[0]]
    _check_units(path, name, str(attrs.get("UNITS") or ""), quantity)
    values = clean(raw, attrs)
    # A backward step or a fill in the clock must not survive as a sample.
    keep = inside - lo
    return time[inside], values[keep] if len(keep) < len(values) else values, centre


def _check_units(path: Path, name: str, units: str, quantity: Quantity) -> None:
    if quantity.units == "1" or not units.strip():
        return
    if SAME.get(units.strip(), units.strip()) != quantity.units:
        raise Refused(f"{path}: {name} is in {units!r}, expected {quantity.units!r}")


def clean(raw: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """Values with fills as NaN, single precision; integers as they are."""
    fill = attrs.get("FILLVAL")
    if raw.dtype.kind in "iu":
        return raw  # flags: a fill has every bit set and so counts as bad
    values = np.array(raw, np.float32)
    bad = ~(np.abs(values) < 1e30)  # every float fill of the mission, NaN and infinity
    if fill is not None:
        bad |= values == np.float32(fill)
    values[bad] = np.nan
    return values


@lru_cache(maxsize=64)
def _epoch(path: str, changed: int, size: int, clock: str) -> np.ndarray:
    return tt2000_to_utc(np.atleast_1d(_opened(path, changed, size).varget(clock)))


def epoch_span(path: Path, name: str) -> tuple[np.datetime64, np.datetime64] | None:
    """First and last instant of a variable, UTC; None for a file without records."""
    with guarded(path) as cdf:
        time = _epoch(*_stamped(path), str(cdf.varattsget(name).get("DEPEND_0") or "Epoch"))
    time = time[~np.isnat(time)]
    return (time.min(), time.max()) if len(time) else None


def _centre(cdf: Any, clock: str) -> float:
    attrs = cdf.varattsget(clock)
    plus, minus = attrs.get("DELTA_PLUS_VAR"), attrs.get("DELTA_MINUS_VAR")
    if not plus or not minus:
        return 0.0
    scale = {"ms": 1e-3, "us": 1e-6, "ns": 1e-9}.get(str(cdf.varattsget(plus).get("UNITS")), 1.0)
    widths = [float(np.mean(cdf.varget(str(v)))) for v in (plus, minus)]
    # The widths are stored in single precision.
    return round((widths[0] - widths[1]) / 2 * scale, 6)


def tt2000_to_utc(epoch: np.ndarray) -> np.ndarray:
    """CDF TT2000 to UTC, vectorised.

    Args:
        epoch: (samples,) int64, nanoseconds since J2000 of terrestrial time.

    Returns:
        (samples,) datetime64[ns]; NaT for fills. An instant within a leap second takes the time of
        the second that follows it, as datetime64 has none.
    """
    epoch = np.asarray(epoch)
    if epoch.dtype.kind not in "iu":
        raise ValueError("times are not TT2000")
    epoch = epoch.astype(np.int64)
    starts, leaps = leap_table()
    which = np.searchsorted(starts, epoch, "right") - 1
    utc = epoch - leaps[np.maximum(which, 0)] - TT_TAI + J2000.astype(np.int64)
    valid = (epoch != FILL) & (epoch != FILL + 1)
    return np.where(valid, utc, FILL).view("datetime64[ns]")


@lru_cache(maxsize=1)
def leap_table() -> tuple[np.ndarray, np.ndarray]:
    """TT2000 at which each TAI-UTC offset begins, and the offset in ns, from the CDF library."""
    import cdflib

    rows = [r for r in cdflib.cdfepoch.LTS if r[0] >= 1972]
    days = np.array([f"{int(y):04d}-{int(m):02d}-{int(d):02d}" for y, m, d, *_ in rows], "M8[ns]")
    leaps = np.array([int(r[3]) * 1_000_000_000 for r in rows], np.int64)
    starts = (days - J2000).astype(np.int64) + TT_TAI + leaps
    return starts, leaps
