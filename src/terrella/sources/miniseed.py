"""Magnetometer records in MiniSEED 2 and 3, through libmseed (package ``pymseed``)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from terrella.sources.magnetogram import Array, Magnetogram, Times
from terrella.types import Refused

#: Last letter of the channel -> element; N and E are geographic when they come with each other.
_ORIENTATION = {"H": "H", "D": "D", "Z": "Z", "X": "X", "Y": "Y", "N": "X", "E": "Y", "F": "F"}


def sniff(data: bytes) -> bool:
    """Whether bytes begin as MiniSEED: a v2 sequence number and quality, or the v3 mark."""
    return data[:3] == b"MS\x03" or (data[:6].isdigit() and data[6:7] in (b"D", b"R", b"Q", b"M"))


def _library(where: str) -> Any:
    try:
        import pymseed
    except ImportError:
        raise Refused(
            f"{where}: MiniSEED needs the package pymseed: pip install 'terrella[magnetometer]'"
        ) from None
    return pymseed


def _segments(trace: Any, where: str, scale: float | None) -> tuple[Times, Array, float]:
    """Times, values in nT and cadence of one channel, its segments one after the other."""
    times, values, rates = [], [], set()
    for segment in trace:
        samples = np.array(segment.np_datasamples)
        if samples.dtype.kind in "iu" and scale is None:
            raise Refused(
                f"{where}: {trace.sourceid} holds integer counts; give the scale in nT per count "
                "(--scale)"
            )
        values.append(samples.astype(np.float64) * (1.0 if scale is None else scale))
        step = 1e9 / float(segment.samprate)
        nanos = int(segment.starttime) + np.round(np.arange(len(samples)) * step).astype(np.int64)
        times.append(nanos.astype("datetime64[ns]"))
        rates.add(round(step / 1e9, 6))
    if len(rates) != 1:
        raise Refused(f"{where}: {trace.sourceid} has several sampling rates")
    return np.concatenate(times), np.concatenate(values), rates.pop()


def parse(data: bytes, where: str = "bytes", scale: float | None = None) -> Magnetogram:
    """Read MiniSEED bytes of one station.

    Args:
        data: the file's bytes.
        where: file name for messages.
        scale: nT per count. Needed where samples are integers; floats are taken as nT.

    Returns:
        A Magnetogram on the union of the channels' sample times, nT.

    Raises:
        Refused: package missing, not MiniSEED, several stations or rates, counts without scale.
    """
    library = _library(where)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.mseed"
        path.write_bytes(data)
        try:
            traces = library.MS3TraceList.from_file(str(path), unpack_data=True)
        except library.PymseedError as error:
            raise Refused(f"{where}: damaged MiniSEED ({error})") from None
        found: dict[str, tuple[Times, Array, float]] = {}
        stations = set()
        for trace in traces:
            _, station, _, channel = library.sourceid2nslc(trace.sourceid)
            element = _ORIENTATION.get(channel[-1])
            if element is None:
                continue
            stations.add(station)
            if element in found or len(stations) > 1:
                what = f"two stations ({', '.join(sorted(stations))})"
                raise Refused(
                    f"{where}: {what if len(stations) > 1 else f'two channels of {element}'} "
                    "in one file"
                )
            found[element] = _segments(trace, where, scale)
    if not found:
        raise Refused(f"{where}: no magnetometer channel (H, D, Z, X, Y, N, E, F) in this MiniSEED")
    if "H" in found and "Y" in found and "X" not in found:
        found["E"] = found.pop("Y")
    if len({rate for _, _, rate in found.values()}) > 1:
        raise Refused(f"{where}: channels have different sampling rates")
    time = np.unique(np.concatenate([t for t, _, _ in found.values()]))
    values = {}
    for element, (when, samples, _) in found.items():
        column = np.full(len(time), np.nan)
        column[np.searchsorted(time, when)] = samples
        values[element] = column
    return Magnetogram(
        station=stations.pop(), time=time, values=values, units=dict.fromkeys(values, "nT"),
        cadence=next(iter(found.values()))[2], format="MiniSEED",
    )  # fmt: skip
