"""Magnetometer samples -> spectrogram images, many windows at a time.

The chain, per component: short gaps bridged, Butterworth high-pass of 4th order at 1 mHz run
forwards and backwards (the published band-pass 0.001-0.5 Hz ends at Nyquist, where a digital
band-pass cannot be made), STFT with Hann 256, overlap 128 and constant detrend, one-sided power
density, 10 log10 (dB re 1 nT^2/Hz), linear frequency, bilinear resize. Equal to
``scipy.signal.spectrogram`` of the same window; no plotting library takes part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft, signal

from terrella.tasks.precursor.quality import FLAGS
from terrella.types import Refused

Array = NDArray[np.float64]

#: Least power density, nT^2/Hz, that is told from zero: -120 dB, far under any instrument's noise.
FLOOR = 1e-12


@dataclass(frozen=True)
class Chain:
    """Everything the image of a window depends on.

    Attributes:
        window: seconds a window spans.
        overlap: share of a window that the next one repeats, 0 to below 1.
        cadence: seconds between samples.
        cutoff: Hz, corner of the high-pass.
        segment: samples in one spectrum.
        hop: samples from one spectrum to the next.
        bridge: seconds; gaps up to this long are bridged by a straight line and flagged.
        missing: share of spectra a window may lack before it is dropped.
        size: pixels on each side of the image.
        low: dB that is drawn as 0.
        high: dB that is drawn as 1.
        margin: seconds of context on each side that the filter sees where they exist.
    """

    window: float = 21600.0
    overlap: float = 0.0
    cadence: float = 1.0
    cutoff: float = 0.001
    segment: int = 256
    hop: int = 128
    bridge: float = 10.0
    missing: float = 0.25
    size: int = 224
    low: float = -60.0
    high: float = 40.0
    margin: float = 3600.0

    @property
    def samples(self) -> int:
        """Samples in a window."""
        return round(self.window / self.cadence)

    @property
    def stride(self) -> int:
        """Samples from one window's start to the next."""
        return max(round(self.samples * (1.0 - self.overlap)), 1)

    @property
    def frequency(self) -> Array:
        """(segment / 2 + 1,) Hz."""
        return np.asarray(np.fft.rfftfreq(self.segment, self.cadence), np.float64)

    @property
    def rows(self) -> Array:
        """(size,) Hz of the image's rows, highest first: where the resize reads each of them."""
        return np.asarray(resizer(len(self.frequency), self.size)[::-1] @ self.frequency)

    @property
    def columns(self) -> Array:
        """(size,) seconds from a window's start of the image's columns."""
        return np.asarray(resizer(len(self.offset), self.size) @ self.offset)

    @property
    def offset(self) -> Array:
        """(spectra,) seconds from a window's start to the middle of each spectrum."""
        count = (self.samples - self.segment) // self.hop + 1
        middle = (np.arange(count) * self.hop + self.segment / 2) * self.cadence
        return np.asarray(middle, np.float64)


def check(chain: Chain) -> None:
    """Refuse settings no spectrogram can be made with, in one line."""
    if not 0 <= chain.overlap < 1:
        raise Refused(f"overlap {chain.overlap:g} is not in 0 .. below 1 (a share of the window)")
    if chain.samples < 2 * chain.segment:
        need = 2 * chain.segment * chain.cadence / 3600
        raise Refused(
            f"a window of {chain.window:g} s has {chain.samples} samples at {chain.cadence:g} s; "
            f"two spectra of {chain.segment} need {need:.2g} h or more (--window)"
        )
    if not 0 < chain.cutoff < 0.5 / chain.cadence:
        raise Refused(
            f"high-pass at {chain.cutoff:g} Hz is not below Nyquist {0.5 / chain.cadence:g}"
        )


def bridge(field: Array, longest: int) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Join all gaps by straight lines, and tell short from long ones.

    Every gap is joined, since a filter needs numbers and zeros would ring at the height of the
    field itself; what lies in a long gap is masked afterwards.

    Args:
        field: (rows, n) nT, NaN where missing.
        longest: samples; the longest gap that counts as short.

    Returns:
        (rows, n) without NaN (a row of NaN only becomes 0); (rows, n) in short gaps; in long gaps.
    """
    out = field.copy()
    short, long = np.zeros(field.shape, bool), np.zeros(field.shape, bool)
    for row, bad in enumerate(np.isnan(field)):
        if not bad.any():
            continue
        if bad.all():
            out[row], long[row] = 0.0, True
            continue
        good = np.flatnonzero(~bad)
        gone = np.flatnonzero(bad)
        out[row, gone] = np.interp(gone, good, field[row, good])
        edges = np.flatnonzero(np.diff(np.concatenate([[0], bad.view(np.int8), [0]])))
        starts, stops = edges[::2], edges[1::2]
        for start, stop in zip(starts, stops, strict=True):
            # A gap at either end has nothing to join, however short.
            brief = stop - start <= longest and start > 0 and stop < len(bad)
            (short if brief else long)[row, start:stop] = True
    return out, short, long


def highpass(data: Array, chain: Chain) -> Array:
    """Zero-phase Butterworth high-pass of 4th order along the last axis; same shape, nT."""
    sos = signal.butter(4, chain.cutoff, "highpass", fs=1.0 / chain.cadence, output="sos")
    # scipy's own pad, but never longer than the data allow; odd padding starts at rest.
    pad = min(int(3 / (chain.cutoff * chain.cadence)), data.shape[-1] - 1)
    centred = data - data.mean(-1, keepdims=True)
    return np.asarray(signal.sosfiltfilt(sos, centred, axis=-1, padlen=pad), np.float64)


def power(data: Array, chain: Chain) -> Array:
    """One-sided power density of windows, before the resize.

    Equal to ``scipy.signal.spectrogram(data, fs, "hann", segment, segment - hop,
    detrend="constant", scaling="density")``.

    Args:
        data: (..., samples) nT, filtered.
        chain: settings.

    Returns:
        (..., frequency, spectra) nT^2/Hz.
    """
    taper = signal.get_window("hann", chain.segment)
    pieces = sliding_window_view(data, chain.segment, axis=-1)[..., :: chain.hop, :]
    tapered = (pieces - pieces.mean(-1, keepdims=True)) * taper
    spectra = fft.rfft(tapered, axis=-1, overwrite_x=True)
    density = spectra.real**2 + spectra.imag**2
    density *= chain.cadence / (taper**2).sum()
    density[..., 1 : -1 if chain.segment % 2 == 0 else None] *= 2.0
    return np.asarray(np.moveaxis(density, -1, -2))


def resizer(count: int, size: int) -> NDArray[np.float32]:
    """(size, count) matrix of bilinear interpolation, pixel centres aligned, edges held."""
    at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
    left = np.minimum(at.astype(int), max(count - 2, 0))
    share = at - left
    out = np.zeros((size, count), np.float32)
    rows = np.arange(size)
    np.add.at(out, (rows, left), 1 - share)
    np.add.at(out, (rows, np.minimum(left + 1, count - 1)), share)
    return out


def decibel(density: Array) -> NDArray[np.float32]:
    """10 log10 of power density (dB re 1 nT^2/Hz), never below -120; same shape."""
    return np.asarray(10.0 * np.log10(np.maximum(density, FLOOR)), np.float32)


def images(db: NDArray[np.float32], chain: Chain) -> NDArray[np.float32]:
    """Resize dB spectrograms and map the fixed range low .. high to 0 .. 1.

    Args:
        db: (..., frequency, spectra), NaN free.
        chain: settings.

    Returns:
        (..., size, size) float32 in 0 .. 1, as drawn: the last row is the lowest frequency, column
        0 the first time.
    """
    rows, columns = resizer(db.shape[-2], chain.size), resizer(db.shape[-1], chain.size)
    unit = (db - np.float32(chain.low)) / np.float32(chain.high - chain.low)
    out: NDArray[np.float32] = np.clip(rows[::-1] @ np.clip(unit, 0.0, 1.0) @ columns.T, 0.0, 1.0)
    return out


def _neutral(db: NDArray[np.float32], lost: NDArray[np.bool_], chain: Chain) -> NDArray[np.float32]:
    """Masked spectra of (3, frequency, spectra) replaced by each frequency's median of the rest."""
    out = db.copy()
    for row in range(len(db)):
        kept = db[row][:, ~lost[row]]
        level = np.median(kept, 1) if kept.shape[1] else np.full(db.shape[1], chain.low)
        out[row][:, lost[row]] = level[:, None]
    return out


@dataclass(frozen=True)
class Batch:
    """Windows of one station, in order.

    Attributes:
        index: (w,) sample at which each window starts.
        image: (w, 3, size, size) float32, 0 .. 1; H, D, Z; low frequency in the last row. Masked
            spectra hold each frequency's median, which says nothing.
        lost: (w, 3, spectra) bool, spectra that touch a long gap or a step.
        flags: (w,) uint8, bits of FLAGS.
    """

    index: NDArray[np.int64]
    image: NDArray[np.float32]
    lost: NDArray[np.bool_]
    flags: NDArray[np.uint8]


def _spectra_any(mark: NDArray[np.bool_], chain: Chain) -> NDArray[np.bool_]:
    """(..., samples) marks -> (..., spectra): any mark under each spectrum."""
    total = np.concatenate(
        [np.zeros((*mark.shape[:-1], 1), np.int32), np.cumsum(mark, -1, dtype=np.int32)], -1
    )
    starts = np.arange(len(chain.offset)) * chain.hop
    return np.asarray(total[..., starts + chain.segment] > total[..., starts])


def filtered(
    field: Array, flags: NDArray[np.uint8], chain: Chain
) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """High-passed field, samples that were bridged, samples not to be used.

    A step is where the instrument jumped: the later part is moved to meet the earlier one, so that
    the filter does not ring, and the samples on both sides are not used.

    Args:
        field: (3, n) nT, NaN where missing.
        flags: (n,) sample flags.
        chain: settings.

    Returns:
        (3, n) nT; (3, n) bool; (3, n) bool.
    """
    joined, short, long = bridge(field, round(chain.bridge / chain.cadence))
    steps = np.flatnonzero(flags & FLAGS["step"])
    if len(steps):
        jump = np.zeros(joined.shape)
        jump[:, steps] = joined[:, steps] - joined[:, steps - 1]
        joined = joined - np.cumsum(jump, 1)
        for near in (steps, steps - 1):
            long[:, near] = True
    return highpass(joined, chain), short, long


def _window_flags(
    inside: NDArray[np.uint8], bridged: NDArray[np.bool_], lost: NDArray[np.bool_], chain: Chain
) -> NDArray[np.uint8]:
    """(w,) flag words from (w, samples) sample flags, (w, 3, samples) and (w, 3, spectra) marks."""
    flags = np.bitwise_or.reduce(inside, axis=-1)
    flags |= np.where(bridged.any((1, 2)), FLAGS["interpolated"], 0).astype(np.uint8)
    flags |= np.where(lost.any((1, 2)), FLAGS["masked"], 0).astype(np.uint8)
    poor = (lost.mean(-1) > chain.missing).any(-1) | ((flags & FLAGS["constant"]) > 0)
    return np.asarray(flags | np.where(poor, FLAGS["dropped"], 0).astype(np.uint8))


def batches(
    field: Array, flags: NDArray[np.uint8], chain: Chain, first: int = 0, size: int = 16
) -> Iterator[Batch]:
    """Spectrogram images of all whole windows of a record, a few at a time.

    Memory does not grow with the record: each batch filters its own stretch with ``margin`` seconds
    of context on both sides, so that windows do not see an edge.

    Args:
        field: (3, n) nT, NaN where missing (H, D, Z).
        flags: (n,) uint8 sample flags.
        chain: settings.
        first: sample at which the first window starts.
        size: windows in one batch.

    Yields:
        Batch of at most ``size`` windows.
    """
    check(chain)
    starts = np.arange(first, field.shape[1] - chain.samples + 1, chain.stride)
    margin = round(chain.margin / chain.cadence)
    for low in range(0, len(starts), size):
        these = starts[low : low + size]
        begin = max(int(these[0]) - margin, 0)
        end = min(int(these[-1]) + chain.samples + margin, field.shape[1])
        piece, bridged, unused = filtered(field[:, begin:end], flags[begin:end], chain)
        local = these - begin

        def cut(a: NDArray[np.generic], local: NDArray[np.int64] = local) -> NDArray[np.generic]:
            views = sliding_window_view(a, chain.samples, axis=-1)[..., local, :]
            return np.moveaxis(views, -2, 0)

        lost = _spectra_any(np.asarray(cut(unused), bool), chain)
        db = decibel(power(np.asarray(cut(piece), np.float64), chain))
        for k in np.flatnonzero(lost.any((1, 2))):
            db[k] = _neutral(db[k], lost[k], chain)
        words = _window_flags(
            np.asarray(cut(flags[begin:end]), np.uint8), np.asarray(cut(bridged), bool), lost, chain
        )
        yield Batch(these, images(db, chain), lost, words)
