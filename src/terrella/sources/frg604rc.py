"""BMKG FRG604RC binary day files, ``S<yymmdd>.<STN>[.gz]``: reader and writer.

144 blocks of 10,230 bytes: a 30-byte header (bytes 2-4 the station in ASCII, 5-9 year, month, day,
hour, minute in plain binary, 27 the voltage times ten) and 600 records of 17 bytes. A record holds,
little-endian and signed: H, D, Z int24 in 0.01 nT; IX, IY int16 in 0.1; TempS, TempP int16 in 0.01.
Missing is 0x7FFFFF or 0x7FFF. Bytes after the last block are ignored. D is in nT, not in degrees.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from terrella.sources.magnetogram import Array, Magnetogram, Times
from terrella.types import Refused

HEADER, RECORD, RECORDS, BLOCKS = 30, 17, 600, 144
BLOCK = HEADER + RECORD * RECORDS
_MISSING24, _MISSING16 = 0x7FFFFF, 0x7FFF
_SHORTS = {"IX": (9, 0.1), "IY": (11, 0.1), "TempS": (13, 0.01), "TempP": (15, 0.01)}


def plausible_header(head: bytes) -> bool:
    """Whether 30 bytes can be a block header: station letters and a calendar date and time."""
    if len(head) < HEADER:
        return False
    _, month, day, hour, minute = head[5:10]
    letters = head[2:5]
    return (
        letters.isalnum() and letters.isupper() and 1 <= month <= 12 and 1 <= day <= 31
        and hour < 24 and minute < 60 and head[5] < 100
    )  # fmt: skip


def sniff(data: bytes) -> bool:
    """Whether unpacked bytes look like this format."""
    if len(data) >= 2 * BLOCK and not plausible_header(data[BLOCK : BLOCK + HEADER]):
        return False
    # A file cut inside its first block still has the header; 9 bytes and one record tell enough.
    return len(data) >= HEADER + RECORD and plausible_header(data[:HEADER])


def _int24(block: NDArray[np.uint8], at: int) -> Array:
    low, mid, high = (block[..., at + k].astype(np.int32) for k in range(3))
    raw = low | (mid << 8) | (high << 16)
    signed = np.where(raw >= 1 << 23, raw - (1 << 24), raw)
    return np.where(raw == _MISSING24, np.nan, signed * 0.01)


def _int16(block: NDArray[np.uint8], at: int, scale: float) -> Array:
    raw = np.ascontiguousarray(block[..., at : at + 2]).view("<i2")[..., 0]
    return np.where(raw == _MISSING16, np.nan, raw * scale)


def _starts(heads: NDArray[np.uint8], where: str) -> Times:
    """(blocks,) start of each block, from its own header."""
    bad = [k for k, head in enumerate(heads) if not plausible_header(head.tobytes())]
    if bad:
        raise Refused(
            f"{where}: block {bad[0] + 1} of {len(heads)} has no station and date where "
            "FRG604RC has them: not this format, or damaged"
        )
    stamps = [
        f"20{h[5]:02d}-{h[6]:02d}-{h[7]:02d}T{h[8]:02d}:{h[9]:02d}:00" for h in heads.tolist()
    ]
    try:
        return np.array(stamps, "datetime64[ns]")
    except ValueError:
        raise Refused(f"{where}: a block header holds an impossible date") from None


def parse(data: bytes, where: str = "bytes") -> Magnetogram:
    """Read an unpacked FRG604RC file.

    Args:
        data: the file's bytes.
        where: file name for messages.

    Returns:
        A Magnetogram with H, D, Z in nT (n = 600 x whole blocks), 1 s.

    Raises:
        Refused: not one whole block, headers that are not this format's, two stations.
    """
    whole = min(len(data) // BLOCK, BLOCKS)
    if whole == 0:
        raise Refused(
            f"{where}: truncated: {len(data)} bytes are less than one FRG604RC block ({BLOCK})"
        )
    blocks = np.frombuffer(data, np.uint8, whole * BLOCK).reshape(whole, BLOCK)
    starts = _starts(blocks[:, :HEADER], where)
    codes = {head[2:5].tobytes().decode("ascii") for head in blocks[:, :HEADER]}
    if len(codes) > 1:
        raise Refused(f"{where}: two stations in one file ({', '.join(sorted(codes))})")
    records = blocks[:, HEADER:].reshape(whole, RECORDS, RECORD)
    values = {name: _int24(records, 3 * k).ravel() for k, name in enumerate("HDZ")}
    notes = []
    spare = len(data) - whole * BLOCK
    if whole < BLOCKS:
        notes.append(f"truncated: {whole} of {BLOCKS} blocks, {spare} bytes of a broken one left")
    seconds = np.arange(RECORDS) * np.timedelta64(1, "s")
    return Magnetogram(
        station=codes.pop(), time=(starts[:, None] + seconds).ravel(), values=values,
        units=dict.fromkeys("HDZ", "nT"), cadence=1.0, format="FRG604RC", notes=tuple(notes),
    )  # fmt: skip


def housekeeping(data: bytes) -> dict[str, Array]:
    """IX, IY, TempS, TempP per record and Voltage per block of a whole file, in their units."""
    whole = min(len(data) // BLOCK, BLOCKS)
    blocks = np.frombuffer(data, np.uint8, whole * BLOCK).reshape(whole, BLOCK)
    records = blocks[:, HEADER:].reshape(whole, RECORDS, RECORD)
    found = {name: _int16(records, at, s).ravel() for name, (at, s) in _SHORTS.items()}
    return {**found, "Voltage": np.asarray(blocks[:, 27] * 0.1, np.float64)}


def _pack24(values: Array) -> NDArray[np.uint8]:
    missing = ~np.isfinite(values)
    raw = np.round(np.where(missing, 0.0, values) * 100.0).astype(np.int64)
    if (np.abs(raw) >= _MISSING24).any():
        raise Refused("FRG604RC holds at most +-83,886 nT: a value is larger")
    raw = np.where(missing, _MISSING24, raw) & 0xFFFFFF
    return np.stack([raw & 255, (raw >> 8) & 255, raw >> 16], -1).astype(np.uint8)


def render(station: str, day: np.datetime64, values: Mapping[str, Array]) -> bytes:
    """One day as FRG604RC bytes: the inverse of :func:`parse`.

    Args:
        station: three upper-case letters or digits.
        day: the day that begins the file.
        values: "H", "D", "Z" -> (86400,) nT; NaN is written as missing.
    """
    size = BLOCKS * RECORDS
    if any(len(values[name]) != size for name in "HDZ"):
        raise Refused(f"an FRG604RC day holds {size} samples of each of H, D, Z")
    out = np.zeros((BLOCKS, BLOCK), np.uint8)
    date = str(day.astype("datetime64[D]"))
    out[:, 2:5] = np.frombuffer(station.encode("ascii"), np.uint8)
    out[:, 5:8] = [int(date[2:4]), int(date[5:7]), int(date[8:10])]
    out[:, 8], out[:, 9] = np.divmod(np.arange(BLOCKS) * 10, 60)
    out[:, 27] = 124
    records = np.zeros((size, RECORD), np.uint8)
    for k, name in enumerate("HDZ"):
        records[:, 3 * k : 3 * k + 3] = _pack24(np.asarray(values[name], np.float64))
    out[:, HEADER:] = records.reshape(BLOCKS, -1)
    return out.tobytes()
