"""Geomagnetic indices from the files people have: SME/AE and SYM-H at one minute to one hour.

Formats are told by content: OMNI high resolution (CDF, ASCII records, OMNIWeb lists), hourly OMNI2,
SuperMAG (CSV, ASCII), Kyoto WDC exchange, IAGA-2002, and any CSV with a time column and columns
named by the index. A value keeps the flags that say what it is: provisional, or a stand-in.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from terrella.sources import kyoto
from terrella.types import Refused

PROVISIONAL, SUBSTITUTE, BRIDGED, HOURLY = 1, 2, 4, 8
FLAGS = {"provisional": 1, "substitute_index": 2, "bridged_gap": 4, "hourly_means": 8}
NAMES = ("SME", "SYM_H")
STAND_INS = {"SME": ("SME", "AE"), "SYM_H": ("SYM_H", "SMR", "DST")}
FILL = (
    9999  # OMNI writes 9999 and 99999, SuperMAG 999999, IAGA 88888 and 99999; no index gets there
)
LIMITS = {"SME": (0, 8000), "SYM_H": (-2000, 500)}
OFTEN = {"SME": "SME = SMU - SML is never negative; is this SML or AL?", "SYM_H": "is this SYM-H?"}
RELATIVE = np.datetime64("2000-01-01T00:00", "ns")

Times = NDArray[np.datetime64]


@dataclass(frozen=True)
class Table:
    """Columns as a file holds them: time (n,), values in nT by index name, flags alike."""

    time: Times
    values: Mapping[str, NDArray[np.floating]]
    flags: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


def read_indices(
    path: Path | str, columns: Sequence[str] = (), origin: np.datetime64 | None = None
) -> dict[str, xr.DataArray]:
    """Read every index that a file holds.

    Args:
        path: the file, plain or gzipped.
        columns: names of the value columns of a list that does not name them (``SYM_H``, ``AE``).
        origin: instant that a ``minute`` column counts from; 2000-01-01 where none is given.

    Returns:
        Index name (``SME``, ``AE``, ``SYM_H``, ``DST``, ``SMR``) -> (time,) in nT, NaN where
        missing, coordinate ``flag`` (bits of FLAGS), attrs ``units``, ``cadence`` (s), ``source``.

    Raises:
        Refused: not a format known here, damaged, or without an index that can be used.
    """
    path = Path(path)
    table = _parse(path, tuple(columns), origin)
    found = {}
    for name, values in table.values.items():
        values = np.asarray(values, float)
        values = np.where(np.abs(values) >= FILL, np.nan, values)
        flag = table.flags.get(name, np.zeros(len(values), np.uint8))
        found[name] = _series(path, name, table.time, values, flag)
    wanted = {n for options in STAND_INS.values() for n in options}
    if not wanted & set(found):
        raise Refused(
            f"{path}: holds no index that is used (found {', '.join(found) or 'none'}; "
            f"wanted one of {', '.join(sorted(wanted))})"
        )
    return {k: v for k, v in found.items() if k in wanted}


def merge(paths: Sequence[Path | str], columns: Sequence[str] = (),
          origin: np.datetime64 | None = None) -> dict[str, xr.DataArray]:  # fmt: skip
    """SME and SYM-H from any set of files, the better value of each instant kept.

    AE stands in for SME, SMR or Dst for SYM-H, flagged, where the index itself is missing.

    Raises:
        Refused: a file cannot be used, or the set lacks one of the two indices.
    """
    parts = [read_indices(p, columns, origin) for p in paths]
    out = {}
    for name, options in STAND_INS.items():
        rows = [(k, part[o]) for k, o in enumerate(options) for part in parts if o in part]
        rows = [(k, s) for k, s in rows if np.isfinite(s.values).any()]
        if not rows:
            empty = [part[o] for part in parts for o in options if o in part]
            if empty:
                raise Refused(
                    f"{empty[0].attrs['source']}: {empty[0].name} holds fill values only; "
                    f"add a file with values of {'SME (or AE)' if name == 'SME' else 'SYM-H'}"
                )
            have = sorted({n for part in parts for n in part})
            raise Refused(
                f"{', '.join(map(str, paths))}: no {'SME (or AE)' if name == 'SME' else 'SYM-H'}, "
                f"only {', '.join(have) or 'nothing'}; add a file that holds it"
            )
        finest = min(float(s.attrs["cadence"]) for _, s in rows)
        rows = [(k, s) for k, s in rows if float(s.attrs["cadence"]) == finest]
        frame = pd.concat(
            pd.DataFrame(
                {"time": s["time"].values, "value": s.values, "rank": k,
                 "flag": s["flag"].values | np.uint8(SUBSTITUTE if k else 0)}
            )
            for k, s in rows
        )  # fmt: skip
        frame = frame[frame["value"].notna()].sort_values(["time", "flag", "rank"], kind="stable")
        frame = frame.drop_duplicates("time")
        out[name] = xr.DataArray(
            frame["value"].to_numpy(float),
            dims="time",
            coords={"time": frame["time"].to_numpy(), "flag": ("time", frame["flag"].to_numpy())},
            name=name,
            attrs={"units": "nT", "cadence": finest,
                   "source": ", ".join(dict.fromkeys(s.attrs["source"] for _, s in rows))},
        )  # fmt: skip
    return out


def by_minute(
    series: xr.DataArray, start: np.datetime64, minutes: int, bridge: float, hourly: bool = False
) -> tuple[NDArray[np.floating], NDArray[np.uint8]]:
    """One value a minute from a one-minute or five-minute series.

    A value is held over the five minutes (or the hour) that it averages. Gaps of up to ``bridge``
    minutes are bridged by a straight line and flagged; longer ones stay NaN.

    Args:
        series: from ``merge``.
        start: the first minute. minutes: how many. bridge: minutes.
        hourly: accept hourly means, flagged.

    Returns:
        (minutes,) nT and (minutes,) flags.

    Raises:
        Refused: the cadence is neither one nor five minutes (nor hourly, where that is allowed).
    """
    cadence = float(series.attrs["cadence"])
    if cadence not in (60.0, 300.0) and not (hourly and cadence == 3600.0):
        extra = "; --hourly accepts hourly means, at a loss" if cadence == 3600.0 else ""
        raise Refused(
            f"{series.attrs.get('source', '')}: {series.name} comes every {cadence / 60:g} min, "
            f"the histories need one-minute or five-minute values{extra}"
        )
    at = (series["time"].values - start) / np.timedelta64(60, "s")
    slot = np.floor(at + 1e-6).astype(np.int64)
    value, flag = np.full(minutes, np.nan), np.zeros(minutes, np.uint8)
    for step in range(int(cadence // 60)):
        ok = (slot + step >= 0) & (slot + step < minutes)
        value[slot[ok] + step] = series.values[ok]
        flag[slot[ok] + step] = series["flag"].values[ok] | np.uint8(HOURLY * (cadence == 3600.0))
    return _bridged(value, flag, bridge)


def _bridged(
    value: NDArray[np.floating], flag: NDArray[np.uint8], longest: float
) -> tuple[NDArray[np.floating], NDArray[np.uint8]]:
    gap = np.isnan(value)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], gap, [False]]).astype(np.int8)))
    first, stop = edges[::2], edges[1::2]
    inner = (stop - first <= longest) & (first > 0) & (stop < len(value))
    fill = np.zeros(len(value), bool)
    for lo, hi in zip(first[inner], stop[inner], strict=True):
        fill[lo:hi] = True
        flag[lo:hi] = flag[lo - 1] | flag[hi]
    known = np.flatnonzero(~gap)
    if fill.any():
        value[fill] = np.interp(np.flatnonzero(fill), known, value[known])
        flag[fill] |= np.uint8(BRIDGED)
    return value, flag


def _series(path: Path, name: str, time: Times, values: NDArray[np.floating],
            flag: NDArray[np.uint8]) -> xr.DataArray:  # fmt: skip
    order = np.argsort(time, kind="stable")
    time, values, flag = time[order].astype("datetime64[ns]"), values[order], flag[order]
    keep = np.append(True, np.diff(time) > np.timedelta64(0)) if len(time) else np.zeros(0, bool)
    time, values, flag = time[keep], values[keep], flag[keep]
    if len(time) < 2 or np.isnat(time).any():
        raise Refused(f"{path}: holds {len(time)} usable instants of {name}; a series needs more")
    steps, counts = np.unique(np.diff(time) // np.timedelta64(1, "s"), return_counts=True)
    step = float(steps[np.argmax(counts)])
    if counts.max() < 0.5 * counts.sum():
        raise Refused(
            f"{path}: {name} has no regular cadence (steps of {steps[0]} to {steps[-1]} s)"
        )
    low, high = LIMITS["SME" if name in STAND_INS["SME"] else "SYM_H"]
    wrong = np.flatnonzero((values < low) | (values > high))
    if len(wrong):
        at = wrong[0]
        raise Refused(
            f"{path}: {name} is {values[at]:g} nT at {str(time[at])[:16]}, outside {low}..{high}; "
            + OFTEN["SME" if name in STAND_INS["SME"] else "SYM_H"]
        )
    return xr.DataArray(
        values,
        dims="time",
        coords={"time": time, "flag": ("time", flag)},
        name=name,
        attrs={"units": "nT", "cadence": step, "source": path.name},
    )


def _parse(path: Path, columns: tuple[str, ...], origin: np.datetime64 | None) -> Table:
    if path.is_dir() or not path.exists():
        raise Refused(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise Refused(f"{path}: is a damaged gzip file ({error})") from None
    if data[:4] in (b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02"):
        return _cdf(path)
    if not data.strip():
        raise Refused(f"{path}: is empty")
    if b"\x00" in data[:4096]:
        raise Refused(
            f"{path}: is neither CDF nor text; give an index file (OMNI, SuperMAG, Kyoto)"
        )
    text = data.decode("latin-1")
    try:
        table = _text(path, text, columns, origin)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused(f"{path}: is damaged or no index file ({reason[:120]})") from None
    if table is None:
        raise Refused(
            f"{path}: is no index file known here (OMNI CDF or ASCII, OMNI2, SuperMAG, Kyoto WDC, "
            "IAGA-2002, or CSV with a time column and SME, AE, SYM_H)"
        )
    return table


def _text(path: Path, text: str, columns: tuple[str, ...], origin: np.datetime64 | None
          ) -> Table | None:  # fmt: skip
    lines = [line for line in text.splitlines() if line.strip()]
    first = lines[0]
    if kyoto.is_wdc(first):
        return Table(*kyoto.read_wdc(lines))
    if re.match(r"\s*Format\s+IAGA-2002", first, re.IGNORECASE):
        return Table(*kyoto.read_iaga(lines))
    words = first.replace(",", " ").split()
    if re.fullmatch(r"(19|20)\d\d", words[0]) and all(map(_number, words)) and len(words) >= 5:
        return _omni(path, text.replace(",", " "), len(words), columns)
    header = next((k for k, line in enumerate(lines) if line.startswith("<year>")), None)
    if header is not None:
        return _supermag_ascii(lines[header:])
    return _csv(text, origin)


def _number(word: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word) is not None


def canonical(name: str) -> str | None:
    """Our name of an index as a file spells it (``SYM/H``, ``AE_INDEX``, ``SME (nT)``)."""
    plain = re.sub(r"[^A-Z]", "", re.sub(r"\(.*?\)|,.*", "", str(name).upper()))
    plain = re.sub(r"(INDEX|NT)$", "", plain)
    known = {"SYMH": "SYM_H"} | {
        n: n for n in ("SME", "SML", "SMU", "AE", "AL", "AU", "DST", "SMR")
    }
    return known.get(plain)


def _omni(path: Path, text: str, width: int, columns: tuple[str, ...]) -> Table:
    frame = pd.read_csv(io.StringIO(text), sep=r"\s+", header=None, dtype=float)
    if not np.isfinite(frame.to_numpy()).all():
        raise Refused(f"{path}: some lines have fewer than {width} columns; the file is cut short")
    hourly = width in (55, 56, 57)
    year, day, hour = (frame[k].to_numpy() for k in range(3))
    minute = np.zeros(len(frame)) if hourly else frame[3].to_numpy()
    if ((day < 1) | (day > 366) | (hour < 0) | (hour > 24) | (minute < 0) | (minute > 60)).any():
        raise Refused(f"{path}: its first columns are not year, day of year, hour, minute")
    years = (year - 1970).astype("int64").astype("datetime64[Y]").astype("datetime64[m]")
    time = years + ((day - 1) * 1440 + hour * 60 + minute).astype("timedelta64[m]")
    if hourly:
        names = {40: "DST", 41: "AE"}
    elif width in (46, 49):
        names = {37: "AE", 41: "SYM_H"}
    else:
        names = _listed(path, width - 4, columns)
    values = {n: frame[k].to_numpy() for k, n in names.items()}
    return Table(time.astype("datetime64[ns]"), values)


def _listed(path: Path, count: int, columns: tuple[str, ...]) -> dict[int, str]:
    """Which columns of an OMNIWeb list are which: from --columns, the .fmt file, or the name."""
    given = [canonical(c) for c in columns]
    beside = path.with_suffix(".fmt")
    if not given and beside.is_file():
        rows = re.findall(r"^\s*\d+\s+(.+?)\s+[IF]\d[\d.]*\s*$", beside.read_text("latin-1"), re.M)
        given = [canonical(r) for r in rows[4:]]
    if not given:
        words = re.split(r"[^a-z]+", path.name.lower().replace("sym_h", "symh"))
        given = [canonical(w) for w in words if canonical(w)]
    if len(given) != count:
        raise Refused(
            f"{path}: {count} value columns without names; say which with --columns, "
            "as in --columns SYM_H,AE"
        )
    return {k + 4: n for k, n in enumerate(given) if n}


def _supermag_ascii(lines: list[str]) -> Table:
    names = re.findall(r"<([^>]+)>", lines[0])
    body = pd.read_csv(io.StringIO("\n".join(lines[1:])), sep=r"\s+", header=None).iloc[
        :, : len(names)
    ]
    parts = ("year", "month", "day", "hour", "minute", "second")
    clock = body.iloc[:, :6].set_axis(list(parts), axis=1)
    time = pd.to_datetime(clock)
    values = {n: body[k].to_numpy(float) for k, raw in enumerate(names) if (n := canonical(raw))}
    return Table(time.to_numpy("datetime64[ns]"), _with_sme(values))


def _with_sme(values: dict[str, NDArray[np.floating]]) -> dict[str, NDArray[np.floating]]:
    for made, upper, lower in (("SME", "SMU", "SML"), ("AE", "AU", "AL")):
        if made not in values and upper in values and lower in values:
            up, low = values[upper], values[lower]
            missing = (np.abs(up) >= FILL) | (np.abs(low) >= FILL)
            values[made] = np.where(missing, np.nan, up - low)
    return {k: v for k, v in values.items() if k in {n for o in STAND_INS.values() for n in o}}


def _csv(text: str, origin: np.datetime64 | None) -> Table | None:
    frame = pd.read_csv(io.StringIO(text), comment="#", skipinitialspace=True)
    values: dict[str, Any] = {}
    for column in frame.columns:
        if (name := canonical(str(column))) and name not in values:
            values[name] = pd.to_numeric(frame[column], errors="raise").to_numpy(float)
    by = {re.sub(r"[^a-z]", "", str(c).lower()): c for c in frame.columns}
    clock = next((k for k in ("dateutc", "time", "datetime", "timestamp", "utc", "date", "epoch",
                              "tval", "minute") if k in by), None)  # fmt: skip
    if clock is None or not values or frame.empty:
        return None
    raw = frame[by[clock]]
    if pd.api.types.is_numeric_dtype(raw) and not (raw.abs() < 1e11).all():
        raise ValueError("times that are no numbers")
    if clock == "minute":
        start = RELATIVE if origin is None else origin.astype("datetime64[ns]")
        time = start + raw.to_numpy("int64").astype("timedelta64[m]")
    elif pd.api.types.is_numeric_dtype(raw):
        time = (raw.to_numpy(float) * 1e3).round().astype("int64").astype("datetime64[ms]")
    else:
        parsed = pd.to_datetime(raw.astype(str), utc=True, format="ISO8601")
        time = parsed.dt.tz_localize(None).to_numpy("datetime64[ns]")
    return Table(time.astype("datetime64[ns]"), _with_sme(values))


def _cdf(path: Path) -> Table:
    import cdflib

    try:
        file = cdflib.CDF(path)
        names = {n: canonical(n) for n in file.cdf_info().zVariables}
        time = cdflib.cdfepoch.to_datetime(file.varget("Epoch")).astype("datetime64[ns]")
        values = {n: np.asarray(file.varget(v), float) for v, n in names.items() if n}
        about = {n: str(file.varattsget(v).get("CATDESC", "")) for v, n in names.items() if n}
    except Exception as error:  # cdflib raises many kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused(f"{path}: cannot be read as an index CDF ({reason[:120]})") from None
    if any(v.shape != time.shape for v in values.values()):
        raise Refused(f"{path}: an index and Epoch differ in length; the file is damaged")
    flags = {n: _cdf_flag(about[n], time) for n in values}
    return Table(time, _with_sme(values), flags)


def _cdf_flag(about: str, time: Times) -> NDArray[np.uint8]:
    """OMNI's description of an index states the span that is provisional."""
    flag = np.zeros(len(time), np.uint8)
    for lo, hi in re.findall(r"Provisional\s+(\d{4}/\d{3})-(\d{4}/\d{3})", about):
        first, last = (np.datetime64(pd.to_datetime(d, format="%Y/%j"), "ns") for d in (lo, hi))
        flag[(time >= first) & (time < last + np.timedelta64(1, "D"))] |= np.uint8(PROVISIONAL)
    return flag
