"""Any magnetometer file -> Magnetogram: found out by content, never by suffix alone."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from terrella.sources import frg604rc, iaga2002, imagcdf, miniseed
from terrella.sources.magnetogram import Magnetogram
from terrella.types import Refused

FORMATS = ("iaga2002", "frg604rc", "miniseed", "imagcdf", "csv")

#: Most bytes one unpacked file may have: a day of IAGA-2002 text has 6.1 MB, a year 2.3 GB.
LARGEST = 4 << 30


@dataclass(frozen=True)
class Reading:
    """How to read files whose format does not say everything.

    Attributes:
        format: one of FORMATS, or "" to find out by content.
        columns: for CSV: "time", "station" or an element letter -> column name.
        units: for CSV: element letter -> "nT" or "arcmin" (D and I default to "nT").
        scale: for MiniSEED with integer samples: nT per count.
        station: code for files that name none.
    """

    format: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    scale: float | None = None
    station: str = ""


def unpack(data: bytes, where: str) -> bytes:
    """The bytes, gunzipped where they are gzip; a cut or damaged archive is refused."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.open(io.BytesIO(data)) as archive:
            plain = archive.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"{where}: damaged gzip ({error})") from None
    if len(plain) > LARGEST:
        raise Refused(f"{where}: unpacks to more than {LARGEST >> 30} GiB")
    return plain


def sniff(data: bytes) -> str:
    """Format name by content of unpacked bytes, "" where none fits."""
    head = data[:4096]
    if imagcdf.sniff(head):
        return "imagcdf"
    if frg604rc.sniff(data[: 2 * frg604rc.BLOCK]):
        return "frg604rc"
    if miniseed.sniff(head):
        return "miniseed"
    text = head.lstrip()
    if b"IAGA-2002" in text[:80] or b"\nDATE " in head.replace(b"\r", b"\n"):
        return "iaga2002"
    # The last lines of a cut read may be broken in the middle of a character: latin-1 forgives.
    first = text.splitlines()[0].decode("latin-1") if text else ""
    if first.isprintable() and first.count(",") + first.count(";") >= 1:
        return "csv"
    return ""


def _csv(data: bytes, where: str, how: Reading) -> Magnetogram:
    """CSV by mapping; without one, columns named as the elements are."""
    try:
        table = pd.read_csv(io.BytesIO(data), sep=None, engine="python", comment="#") \
            if b";" in data[:2000] else pd.read_csv(io.BytesIO(data), comment="#")  # fmt: skip
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise Refused(f"{where}: not a readable CSV ({str(error).splitlines()[0]})") from None
    names = dict(how.columns) or {
        **{k: str(c) for c in table for k in ("time", "station") if str(c).strip().lower() == k},
        **{
            str(c).strip().upper(): str(c)
            for c in table
            if str(c).strip().upper() in set("HDZXYEFI")
        },
    }
    lost = [c for c in names.values() if c not in table]
    if "time" not in names or lost:
        raise Refused(
            f"{where}: CSV has columns {', '.join(map(str, table))[:120]}; "
            + (f"no {', '.join(lost)}" if lost else "say which is the time")
            + " (--columns time=...,H=...,D=...,Z=...)"
        )
    codes = {how.station} if "station" not in names else set(table[names["station"]].astype(str))
    if len(codes) > 1:
        raise Refused(f"{where}: two stations in one file ({', '.join(sorted(codes)[:4])})")
    try:
        time = pd.to_datetime(table[names["time"]].astype(str), utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise Refused(
            f"{where}: column {names['time']} is not ISO 8601 time "
            f"({str(error).splitlines()[0][:80]})"
        ) from None
    elements = [k for k in names if k not in ("time", "station")]
    values = {}
    for k in elements:
        column = pd.to_numeric(table[names[k]], errors="coerce").to_numpy(np.float64)
        values[k] = np.where(np.abs(column) >= 88888.0, np.nan, column)
    stamps = time.dt.tz_localize(None).to_numpy("datetime64[ns]")
    steps = np.diff(stamps[:10_000].astype(np.int64))
    return Magnetogram(
        station=codes.pop().upper(), time=stamps, values=values,
        units={k: how.units.get(k, "nT") for k in elements},
        cadence=float(np.median(steps)) / 1e9 if len(steps) else float("nan"), format="CSV",
    )  # fmt: skip


def read(path: str | Path, how: Reading | None = None) -> Magnetogram:
    """Read one magnetometer file of any known format.

    Args:
        path: the file, plain or gzip.
        how: what the file does not say itself.

    Returns:
        Its Magnetogram, elements as recorded (see ``to_hdz`` for H, D, Z in nT).

    Raises:
        Refused: missing, empty, unknown, damaged, or more than one station.
    """
    how = how or Reading()
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror})") from None
    if not data:
        raise Refused(f"{path}: empty file")
    data = unpack(data, path.name)
    if how.format and how.format not in FORMATS:
        raise Refused(f"unknown format {how.format!r}; known are {', '.join(FORMATS)}")
    found = how.format or sniff(data)
    match found:
        case "iaga2002":
            return iaga2002.parse(data, path.name)
        case "frg604rc":
            return frg604rc.parse(data, path.name)
        case "miniseed":
            return miniseed.parse(data, path.name, how.scale)
        case "imagcdf":
            return imagcdf.parse(data, path.name)
        case "csv":
            return _csv(data, path.name, how)
    raise Refused(
        f"{path.name}: no magnetometer format known ({', '.join(FORMATS)}); "
        f"it begins with {data[:12]!r}"
    )
