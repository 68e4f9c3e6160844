"""IAGA-2002 text: reader for all common variants, and a writer.

Header of 3 to 24 lines, then a DATE line naming the columns, then one line a sample. Missing values
are 99999.00, 99999.99 or 88888.00; D and I are in arc-minutes. Line ends may be CRLF.
Format: https://www.ngdc.noaa.gov/IAGA/vdat/IAGA2002/iaga2002format.html
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from terrella.sources.magnetogram import Array, Magnetogram, Times
from terrella.types import Refused

_ANGLES = frozenset("DI")
_ELEMENTS = frozenset("HDZXYEFIUVWGS")


def _digits(block: NDArray[np.uint8]) -> Array | None:
    """(n,) numbers of a fixed-width column (n, w) of text, or None where it is not one.

    Works on whole columns: one pass per character place, which is some ten times faster than
    parsing line by line. A column qualifies when its decimal point stands in one place.
    """
    dots = block == ord(".")
    place = int(np.argmax(dots[0])) if dots[0].any() else block.shape[1]
    if place < block.shape[1] and not (dots[:, place].all() and dots.sum() == len(block)):
        return None
    total = np.zeros(len(block))
    negative = np.zeros(len(block), bool)
    begun = np.zeros(len(block), bool)
    for column in range(block.shape[1]):
        if column == place:
            continue
        char = block[:, column]
        minus, blank = char == ord("-"), char == ord(" ")
        digit = char - np.uint8(48)
        if not (minus | blank | (digit <= 9)).all() or ((minus | blank) & begun).any():
            return None
        begun |= digit <= 9
        total = total * 10.0 + np.where(minus | blank, 0, digit)
        negative |= minus
    if not begun.all():
        return None
    total /= 10.0 ** max(block.shape[1] - place - 1, 0)
    return np.where(negative, -total, total)


def _fast(body: bytes, count: int) -> tuple[Times, list[Array]] | None:
    """Times and columns when every line has the standard fixed places; None otherwise."""
    width = body.find(b"\n") + 1
    if width < 31 + 10 * count or len(body) % width:
        return None
    lines = np.frombuffer(body, np.uint8).reshape(-1, width)
    if not (lines[:, -1] == 10).all() or not (lines[:, 4] == ord("-")).all():
        return None
    places = {"Y": (0, 4), "M": (5, 7), "D": (8, 10), "h": (11, 13), "m": (14, 16), "s": (17, 23)}
    parts = {key: _digits(lines[:, a:b]) for key, (a, b) in places.items()}
    starts = [30 + 10 * k for k in range(count)]
    columns = [_digits(lines[:, a : a + 10]) for a in starts]
    if any(p is None for p in parts.values()) or any(c is None for c in columns):
        return None
    y, mo, d, h, mi, s = (np.asarray(parts[key]) for key in "YMDhms")
    if not ((y >= 1957) & (y < 2100) & (mo >= 1) & (mo <= 12) & (d >= 1) & (d <= 31)).all():
        return None
    months = ((y - 1970) * 12 + mo - 1).astype("datetime64[M]").astype("datetime64[D]")
    time = months + (d - 1).astype("timedelta64[D]")
    nanos = np.round((h * 3600 + mi * 60 + s) * 1000).astype(np.int64) * 1_000_000
    return time.astype("datetime64[ns]") + nanos.astype("timedelta64[ns]"), [
        np.asarray(c) for c in columns
    ]


def _slow(body: bytes, count: int, where: str) -> tuple[Times, list[Array]]:
    """The same by splitting at blanks: for files that keep no columns."""
    names = ["date", "clock", "doy", *map(str, range(count))]
    try:
        table = pd.read_csv(
            io.BytesIO(body), sep=r"\s+", header=None, names=names, usecols=range(len(names)),
            dtype={"date": str, "clock": str}, na_values=["|"], on_bad_lines="error",
        )  # fmt: skip
        stamp = pd.to_datetime(table["date"] + " " + table["clock"], format="ISO8601")
        columns = [table[str(k)].to_numpy(np.float64) for k in range(count)]
    except (ValueError, pd.errors.ParserError) as error:
        line = str(error).splitlines()[0]
        raise Refused(f"{where}: a data line is not IAGA-2002 ({line})") from None
    return stamp.to_numpy("datetime64[ns]"), columns


def _header(text: bytes, where: str) -> tuple[dict[str, str], str, int]:
    """Header fields, the DATE line, and the offset at which data begin."""
    fields: dict[str, str] = {}
    offset = 0
    for number, line in enumerate(text.split(b"\n", 64)[:64]):
        offset += len(line) + 1
        words = line.decode("latin-1").strip()
        if words.startswith("DATE"):
            return fields, words, offset
        if number and not words:
            continue
        key = line[:24].decode("latin-1").strip()
        fields.setdefault(key.upper(), line[24:69].decode("latin-1").rstrip(" |").strip())
    raise Refused(f"{where}: no DATE line in the first 64 lines: not IAGA-2002")


def _number(text: str) -> float:
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return float("nan")


def _columns(line: str, where: str) -> tuple[str, list[str]]:
    """Station code and element letters of a DATE line."""
    names = line.rstrip("| ").split()[3:]
    if not names:
        raise Refused(f"{where}: the DATE line names no element columns")
    codes = {name[:-1].upper() for name in names}
    if len(codes) > 1:
        raise Refused(f"{where}: columns of several stations ({', '.join(sorted(codes))})")
    letters = [name[-1].upper() for name in names]
    if not set(letters) <= _ELEMENTS:
        raise Refused(f"{where}: unknown elements {''.join(letters)} in the DATE line")
    return codes.pop(), letters


def parse(text: bytes, where: str = "text") -> Magnetogram:
    """Read IAGA-2002 text (already unpacked).

    Args:
        text: the file's bytes.
        where: file name for messages.

    Returns:
        A Magnetogram: values in nT, D and I in arc-minutes, missing samples NaN.

    Raises:
        Refused: no DATE line, no data, two stations in one file, damaged lines.
    """
    text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    fields, line, offset = _header(text, where)
    code, letters = _columns(line, where)
    body = text[offset:].rstrip(b" \n\x1a\x00") + b"\n"
    again = body.find(b"\nDATE ")
    if again >= 0:
        other = _columns(body[again + 1 : body.find(b"\n", again + 1)].decode("latin-1"), where)[0]
        what = f"two stations ({code}, {other})" if other != code else f"two files of {code}"
        raise Refused(f"{where}: {what} in one file; split it at the second header")
    if len(body) < 10:
        raise Refused(f"{where}: a header but no data")
    time, columns = _fast(body, len(letters)) or _slow(body, len(letters), where)
    values, units = {}, {}
    for letter, column in zip(letters, columns, strict=True):
        missing = (column >= 99999.0) | ((column >= 88888.0) & (column < 88889.0))
        values[letter] = np.where(missing, np.nan, column)
        units[letter] = "arcmin" if letter in _ANGLES else "nT"
    steps = np.diff(time[:10_000].astype(np.int64))
    steps = steps[steps > 0]
    cadence = float(np.median(steps)) / 1e9 if len(steps) else float("nan")
    return Magnetogram(
        station=(fields.get("IAGA CODE") or code).upper()[:5],
        time=time, values=values, units=units, cadence=cadence,
        latitude=_number(fields.get("GEODETIC LATITUDE", "")),
        longitude=_number(fields.get("GEODETIC LONGITUDE", "")),
        format="IAGA-2002",
    )  # fmt: skip


def render(
    station: str,
    time: Times,
    values: Mapping[str, Array],
    latitude: float = float("nan"),
    longitude: float = float("nan"),
    crlf: bool = False,
) -> bytes:
    """IAGA-2002 text of a record: the inverse of :func:`parse`.

    Args:
        station: three-letter code.
        time: (n,) datetime64.
        values: element letter -> (n,) nT, D and I in arc-minutes; NaN is written as 99999.00.
        latitude: degrees north.
        longitude: degrees east.
        crlf: end lines with CRLF.
    """
    letters = "".join(values)
    head = {
        "Format": "IAGA-2002", "Source of Data": "Terrella", "Station Name": station,
        "IAGA CODE": station, "Geodetic Latitude": f"{latitude:.3f}",
        "Geodetic Longitude": f"{longitude:.3f}", "Elevation": "", "Reported": letters,
        "Sensor Orientation": letters, "Digital Sampling": "", "Data Interval Type": "",
        "Data Type": "simulated",
    }  # fmt: skip
    lines = [f" {key:<23}{value:<45}|" for key, value in head.items()]
    names = "".join(f"{station + letter:<10}" for letter in letters)
    lines.append(f"DATE       TIME         DOY     {names}".ljust(69) + "|")
    stamp = np.datetime_as_string(time.astype("datetime64[ms]"), unit="ms")
    day = time.astype("datetime64[D]")
    doy = (day - day.astype("datetime64[Y]")).astype(int) + 1
    table = np.column_stack([np.nan_to_num(v, nan=99999.0) for v in values.values()])
    for text, number, row in zip(stamp, doy, table, strict=True):
        date, clock = str(text).split("T")
        lines.append(f"{date} {clock} {number:03d}    " + "".join(f"{v:10.2f}" for v in row))
    end = "\r\n" if crlf else "\n"
    return (end.join(lines) + end).encode("ascii")
