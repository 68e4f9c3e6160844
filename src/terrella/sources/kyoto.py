"""Kyoto's text formats for indices: WDC exchange (minute and hourly records) and IAGA-2002."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

PROVISIONAL = 1
Columns = tuple[
    NDArray[np.datetime64], dict[str, NDArray[np.floating]], dict[str, NDArray[np.uint8]]
]
_MINUTE = re.compile(
    r"^(?:AEALAOAU|ASYSYM).{0,6}?\s*(?:N6E01)?\s*(\d\d)(\d\d)(\d\d)([A-Z])(\d\d)"
    r"(AE|AL|AO|AU|SYM|ASY)(.{0,11}?)((?:\s+-?\d+|-\d+)+)\s*$"
)
_HOUR = re.compile(r"^(DST|AE |AL |AU |AO )")
_FINAL = 2


def is_wdc(line: str) -> bool:
    """Whether a file's first line is of the WDC exchange format for indices."""
    return line.startswith(("AEALAOAU", "ASYSYM")) or (
        _HOUR.match(line) is not None and len(line.rstrip("\r\n")) >= 118 and line[7] == "*"
    )


def read_wdc(lines: list[str]) -> Columns:
    """Time, values (nT) and flags by index from WDC records, one line an hour or a day.

    A record marked provisional, quick-look or real-time flags every value it holds.

    Raises:
        ValueError: a line that is no such record.
    """
    rows: dict[str, dict[np.datetime64, tuple[float, int]]] = {}
    for number, line in enumerate(lines, start=1):
        if line.startswith("["):  # the archive's own notes between records
            continue
        name, start, step, values, flag = _record(line.rstrip("\r\n"), number)
        if name is None:
            continue
        column = rows.setdefault(name, {})
        for k, value in enumerate(values):
            column[start + k * step] = (value, flag)
    if not rows:
        raise ValueError("no AE or SYM-H record")
    # A file may mix indices of two cadences only by mistake; the union keeps both as they are.
    time = np.array(sorted(set().union(*rows.values())), "datetime64[m]")
    blank = (np.nan, 0)
    table = {n: [c.get(t, blank) for t in time] for n, c in rows.items()}
    values_by = {n: np.array([v for v, _ in pairs], float) for n, pairs in table.items()}
    flags_by = {n: np.array([f for _, f in pairs], np.uint8) for n, pairs in table.items()}
    return time.astype("datetime64[ns]"), values_by, flags_by


def _record(line: str, number: int) -> tuple[
    str | None, np.datetime64, np.timedelta64, list[float], int
]:  # fmt: skip
    if line.startswith(("AEALAOAU", "ASYSYM")):
        found = _MINUTE.match(line)
        if found is None:
            raise ValueError(f"line {number} is no WDC record")
        year, month, day, part, hour, index, edition, body = found.groups()
        values = [float(v) for v in re.findall(r"-?\d+", body)]
        if len(values) not in (60, 61):
            raise ValueError(f"line {number} has {len(values)} values, a WDC record has 61")
        wanted = {"AE": "AE", "AL": None, "SYM": "SYM_H" if part == "H" else None}
        start = np.datetime64(f"{_century(int(year))}-{month}-{day}T{hour}:00", "m")
        late = re.search(r"PRV|QUICK|REAL|RT|Q-?L", edition.upper()) is not None
        return wanted.get(index), start, np.timedelta64(1, "m"), values[:60], PROVISIONAL * late
    if not is_wdc(line):
        raise ValueError(f"line {number} is no WDC record")
    century = line[14:16].strip() or "19"
    start = np.datetime64(f"{century}{line[3:5]}-{line[5:7]}-{line[8:10]}T00:00", "m")
    base = 100.0 * float(line[16:20].strip() or 0)
    hours = [float(line[20 + 4 * k : 24 + 4 * k]) for k in range(24)]
    hours = [np.nan if h == 9999 else h + base for h in hours]
    version = line[13].strip()
    late = "RR" in line[10:12] or (version.isdigit() and int(version) < _FINAL)
    name = {"DST": "DST", "AE ": "AE"}.get(line[:3])
    return name, start, np.timedelta64(60, "m"), hours, PROVISIONAL * late


def _century(year: int) -> int:
    return year + (1900 if year >= 57 else 2000)  # the indices begin in 1957


def read_iaga(lines: list[str]) -> Columns:
    """Time, values (nT) and flags by index from an IAGA-2002 file of AE or SYM/ASY.

    Raises:
        ValueError: no DATE line, or a row that does not fit it.
    """
    top = next((k for k, line in enumerate(lines[:60]) if line.startswith("DATE")), None)
    if top is None:
        raise ValueError("IAGA-2002 without a DATE line")
    kind = next((line for line in lines[:top] if "data type" in line.lower()), "")
    late = re.search(r"provisional|quick|real|variation|preliminary", kind[20:].lower()) is not None
    names = lines[top].replace("|", " ").split()[3:]
    rows = [line.split() for line in lines[top + 1 :]]
    for number, row in enumerate(rows, start=top + 2):
        if len(row) != 3 + len(names):
            raise ValueError(f"line {number} has {len(row)} columns, the header {3 + len(names)}")
    time = np.array([f"{r[0]}T{r[1]}" for r in rows], "datetime64[ms]")
    known = {"AE": "AE", "SYM-H": "SYM_H", "SYM_H": "SYM_H", "SYMH": "SYM_H", "DST": "DST"}
    values = {
        known[n.upper()]: np.array([float(r[3 + k]) for r in rows])
        for k, n in enumerate(names)
        if n.upper() in known
    }
    flags = {n: np.full(len(time), PROVISIONAL * late, np.uint8) for n in values}
    return time.astype("datetime64[ns]"), values, flags
