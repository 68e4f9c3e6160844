"""Text files of columns, described by a small mapping instead of a reader each.

A ``Layout`` says which column is what, in which units, and how its time is written. Layouts of
known archives are in ``layouts.toml``; a user's own go in a file of the same form. A file whose
header names quantities with units, ``flux [cm-2 s-1 sr-1]``, needs none.
"""

from __future__ import annotations

import gzip
import io
import re
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from terrella.sources.base import check_file
from terrella.types import Refused

KNOWN = Path(__file__).with_name("layouts.toml")
NAMED = re.compile(r"^\s*([A-Za-z][\w-]*)\s*(?:\[(.*)\])?\s*$")


@dataclass(frozen=True)
class Column:
    """One quantity of a text file: its name, its units, and the value from which it is missing."""

    name: str
    units: str
    fill: float | None = None


@dataclass(frozen=True)
class Layout:
    """What the columns of a kind of file are.

    Attributes:
        name: of the layout.
        columns: quantity by column number, from 0.
        width: columns a line has.
        time: ``iso`` or ``year-day-hour``.
        match: regular expression on the path, or empty.
        header: names of the first line, or empty where there is no header.
        satellite: whose measurements they are, or empty.
    """

    name: str
    columns: Mapping[int, Column]
    width: int
    time: str = "iso"
    match: str = ""
    header: tuple[str, ...] = ()
    satellite: str = ""


@dataclass(frozen=True)
class Series:
    """One quantity read from a file: times (UTC, as they stand), values, units, satellite."""

    name: str
    units: str
    time: np.ndarray
    values: np.ndarray
    satellite: str = ""
    path: Path = field(default_factory=Path)


def layouts(path: Path = KNOWN) -> list[Layout]:
    """Layouts in a TOML file.

    Raises:
        Refused: it is not TOML, or a table lacks what a layout needs.
    """
    try:
        body = tomllib.loads(path.read_text("utf-8"))
        return [_layout(name, table) for name, table in body.items()]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused(f"{path}: is not a file of layouts ({error})") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(f"{path}: a layout lacks or mistakes {error}; see docs/geoflux.md") from None


def _layout(name: str, table: Mapping[str, Any]) -> Layout:
    columns = {int(k): Column(**v) for k, v in table["columns"].items()}
    width = int(table.get("width", max(columns) + 1))
    return Layout(
        name, columns, width, str(table.get("time", "iso")), str(table.get("match", "")),
        tuple(table.get("header", ())), str(table.get("satellite", "")),
    )  # fmt: skip


def read(path: Path, known: Sequence[Layout]) -> list[Series]:
    """Read a text file by the layout that fits it.

    Args:
        path: text, gzip or not.
        known: layouts to choose from; the first that fits is taken.

    Returns:
        One series a column, missing values NaN.

    Raises:
        Refused: no layout fits, a time cannot be read, the last line is cut off.
    """
    check_file(path)
    text = _text(path)
    if not text.endswith("\n"):
        raise Refused(f"{path}: the last line is cut off; get the file again")
    first = [c.strip() for c in text[: text.index("\n")].split(",")]
    layout = _choose(path, first, known) or _named(first)
    if layout is None:
        raise Refused(
            f"{path}: columns not known (first line {','.join(first)[:60]!r}); name them with "
            "units in a header, as 'time,flux [cm-2 s-1 sr-1]', or give --columns FILE.toml"
        )
    return _parse(path, text, layout)


def _text(path: Path) -> str:
    try:
        body = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = body.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise Refused(f"{path}: is not text ({' '.join(str(error).split())[:80]})") from None
    if "\0" in text or not text.strip():
        raise Refused(f"{path}: is not a text file with columns")
    return text


def _choose(path: Path, first: list[str], known: Sequence[Layout]) -> Layout | None:
    place = path.absolute().as_posix()
    for layout in known:
        if layout.header and [h.lower() for h in layout.header] == [f.lower() for f in first]:
            return layout
        if not layout.header and layout.match and re.search(layout.match, place):
            return layout
    return None


def _named(first: list[str]) -> Layout | None:
    """A layout from a header that names quantities, ``time,flux [cm-2 s-1 sr-1],Kp [1]``."""
    found = [NAMED.match(f) for f in first]
    if first[0].lower() != "time" or len(first) < 2 or not all(found[1:]):
        return None
    columns = {k: Column(m[1], m[2] or "") for k, m in enumerate(found) if k and m}
    return Layout("named columns", columns, len(first), header=tuple(first))


def _parse(path: Path, text: str, layout: Layout) -> list[Series]:
    spaced = layout.time == "year-day-hour"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO(text), header=None, skiprows=1 if layout.header else 0,
                sep=r"\s+" if spaced else ",", skipinitialspace=True, dtype=str,
                names=range(layout.width), index_col=False, on_bad_lines="error",
            )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        reason = " ".join(str(error).split())[:80]
        raise Refused(f"{path}: not {layout.width} columns of {layout.name} ({reason})") from None
    if table.empty:
        raise Refused(f"{path}: holds no rows of {layout.name}")
    time = _time(path, table, layout)
    series = []
    for k, column in layout.columns.items():
        values = pd.to_numeric(table[k].str.strip(), errors="coerce").to_numpy(float, copy=True)
        if column.fill is not None:
            values[values >= column.fill] = np.nan
        series.append(Series(column.name, column.units, time, values, layout.satellite, path))
    return series


def _time(path: Path, table: pd.DataFrame, layout: Layout) -> np.ndarray:
    if layout.time == "year-day-hour":
        part = [pd.to_numeric(table[k], errors="coerce") for k in range(3)]
        whole = pd.concat(part, axis=1)
        good = whole.notna().all(axis=1) & part[0].between(1957, 2100) & part[1].between(1, 366)
        if not good.all():
            raise Refused(
                f"{path}: line {int((~good).to_numpy().argmax()) + 1} does not start with a time"
            )
        year = (part[0].astype(int) - 1970).to_numpy().astype("datetime64[Y]")
        hours = ((part[1] - 1) * 24 + part[2]).to_numpy().astype("timedelta64[h]")
        made: np.ndarray = (year.astype("datetime64[h]") + hours).astype("datetime64[ns]")
        return made
    stamp = pd.to_datetime(table[0].str.strip(), errors="coerce", utc=True, format="ISO8601")
    if stamp.isna().any():
        row = int(stamp.isna().to_numpy().argmax())
        line = row + 1 + bool(layout.header)
        raise Refused(f"{path}: line {line}: {str(table[0].iloc[row])[:30]!r} is not a time")
    plain: np.ndarray = stamp.dt.tz_localize(None).to_numpy().astype("datetime64[ns]")
    return plain
