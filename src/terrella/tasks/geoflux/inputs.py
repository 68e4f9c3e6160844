"""Files to a source: many satellites and indices, checked at the door, on one vocabulary."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from terrella.sources import columns, goes
from terrella.sources.base import check_file, check_time, no_data
from terrella.tasks.geoflux import calibrate
from terrella.tasks.geoflux.checks import FILLED, JUMP, checked, jumps
from terrella.tasks.geoflux.choices import check_options, issue_times
from terrella.tasks.geoflux.daily import DAY_H, HOUR, daily_log_flux, hours_of, to_hours
from terrella.tasks.geoflux.task import FLUX_UNITS, INPUTS, Options
from terrella.types import Job, Opening, Record, Refusal, Refused, Variable

SUFFIXES = (".csv", ".dat", ".txt", ".lst", ".gz", ".json", ".nc")
UNITS = {v.name: v.units for v in INPUTS}
OWN = ("flux", "flux_08", "Hp", "He", "B")  # measured by a satellite, not by the Sun or the Earth
NAMES = {**UNITS, "truth": "1"}


@dataclass(frozen=True)
class Inputs:
    """Series of every quantity, the reference satellite's flux among them.

    Attributes:
        series: by name, (time,) increasing, in the task's units, ``attrs`` with satellite,
            calibration and remarks.
        where: the files, in words.
    """

    series: Record
    where: str

    def fetch(
        self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
    ) -> Record:
        """Series over [start, stop), shorter where the files are.

        Raises:
            NoData: no flux in the span.
        """
        wanted = {v.name for v in variables} | {"flux_flags", "truth_flux", "truth_quantile"}
        record = {}
        for name, values in self.series.items():
            time = values["time"].values
            part = values.isel(time=slice(*np.searchsorted(time, [start, stop])))
            if name in wanted and part.sizes["time"]:
                record[name] = part
        if "flux" not in record:
            time = self.series["flux"]["time"].values
            raise no_data(self.where, start, stop, f"{time[0]} to {time[-1]}")
        return record


def open_files(
    paths: Iterable[Path], options: Options, until: np.datetime64 | None = None
) -> Opening:
    """One job over all the inputs: their issue times, or those asked for.

    Args:
        paths: files, or folders that are searched; they may be of many kinds.
        options: of the run.
        until: days that calibrations of satellites may be fitted on end here.

    Raises:
        Refused: no file can be used, or none holds electron flux.
    """
    check_options(options)
    paths = [Path(p) for p in paths]
    found, refused, used = read_all(paths, options)
    if not found:
        why = refused[0].why if refused else "no inputs; give files or folders"
        raise Refused(why if len(refused) < 2 else f"{why} (and {len(refused) - 1} more)")
    source = assemble(found, options, ", ".join(p.name for p in paths[:3]), until)
    start, stop = issue_span(source, options)
    stem = "forecast" if not options.issue else f"forecast_{options.issue.replace(':', '_')}"
    return Opening((Job(stem, source, start, stop, tuple(used)),), tuple(refused))


def open_source(
    paths: Sequence[Path], options: Options, until: np.datetime64 | None = None
) -> Inputs:
    """The source of some files; a file that cannot be used is warned of.

    Raises:
        Refused: as ``open_files``.
    """
    opened = open_files(paths, options, until)
    for each in opened.refused:
        warnings.warn(f"left out: {each.why}", UserWarning, stacklevel=2)
    source = opened.jobs[0].source
    assert isinstance(source, Inputs)
    return source


def read_all(
    paths: Sequence[Path], options: Options
) -> tuple[list[columns.Series], list[Refusal], list[Path]]:
    """Every series of every file, what was refused, and the files used."""
    known = columns.layouts()
    if options.columns:
        check_file(Path(options.columns))
        known = columns.layouts(Path(options.columns)) + known
    found: list[columns.Series] = []
    refused: list[Refusal] = []
    used: list[Path] = []
    for path in paths:
        try:
            for file in files_of(path):
                try:
                    found += read_one(file, known)
                    used.append(file)
                except Refused as refusal:
                    refused.append(Refusal(str(file), str(refusal)))
        except Refused as refusal:
            refused.append(Refusal(str(path), str(refusal)))
    return found, refused, used


def files_of(path: Path) -> list[Path]:
    """A file, or the data files under a folder in order of name."""
    if not path.is_dir():
        return [path]
    inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in SUFFIXES)
    if not inside:
        raise Refused(f"{path}: holds no data files ({', '.join(SUFFIXES)})")
    return inside


def read_one(path: Path, known: Sequence[columns.Layout]) -> list[columns.Series]:
    """Series of one file, by its content."""
    if path.suffix == ".json":
        return goes.read_json(path)
    if path.suffix == ".nc":
        return goes.read_netcdf(path, NAMES)
    return columns.read(path, known)


def assemble(
    found: Sequence[columns.Series], options: Options, where: str,
    until: np.datetime64 | None = None,
) -> Inputs:  # fmt: skip
    """Put series of the same quantity together, choose the reference, calibrate the others.

    Raises:
        Refused: units, values or times that cannot be right; no flux; satellites not to be found.
    """
    merged: dict[tuple[str, str], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    remarks: list[str] = []
    for each in found:
        if each.name in NAMES or each.name in ("truth_flux", "truth_quantile"):
            who = each.satellite if each.name in OWN else ""
            time, values, flags, notes = checked(each)
            remarks += notes
            old = merged.get((who, each.name))
            if old is not None:
                time, values, flags = (
                    np.concatenate(pair) for pair in zip(old, (time, values, flags), strict=True)
                )
            merged[who, each.name] = (time, values, flags)
    series = {key: in_order(key[1], *parts, remarks) for key, parts in merged.items()}
    for (who, name), made in series.items():
        # Files are cut anywhere, so a shift is looked for in the whole series.
        shift = jumps(made.values) if name == "flux" else np.zeros(0, bool)
        if shift.any():
            made.attrs["flags"][shift] |= JUMP
            when = made["time"].values[shift].astype("datetime64[D]")
            days = ", ".join(dict.fromkeys(map(str, when)))
            remarks.append(
                f"{where}: level of {who or 'the'} flux may shift on {days} (another satellite, "
                "other units, or a quiet Sun stirred up); flagged"
            )
    for note in dict.fromkeys(remarks):
        # The Sun itself shifts the level about once a year: told in the product, not shouted.
        if "may shift" not in note:
            warnings.warn(note, UserWarning, stacklevel=2)
    reference = _reference(series, options, where)
    record = _of_reference(series, reference, options, remarks, until)
    if options.kp:
        record["Kp"] = _packaged_kp(record)
    return Inputs(record, where)


def in_order(
    name: str, time: np.ndarray, values: np.ndarray, flags: np.ndarray, remarks: list[str]
) -> xr.DataArray:
    """Sort by time and keep the first measurement of each instant; say what was done."""
    order = np.argsort(time, kind="stable")
    time, values, flags = time[order], values[order], flags[order]
    # The first finite value of an instant counts: overlapping files fill each other.
    rank = np.lexsort((~np.isfinite(values), time))
    time, values, flags = time[rank], values[rank], flags[rank]
    first = np.concatenate([[True], np.diff(time) > np.timedelta64(0, "ns")])
    time, values, flags = time[first], values[first], flags[first]
    check_time(time, name)
    if name == "Kp" and len(time) > 2 and np.median(np.diff(time)) == 3 * HOUR:
        # One value stands for its three hours, whose start the time is (or middle: floor it).
        time = time.astype("datetime64[h]").astype("datetime64[ns]")
        time = (time[:, None] + np.arange(3) * HOUR).ravel()
        values, flags = np.repeat(values, 3), np.repeat(flags, 3)
    made = xr.DataArray(values, dims="time", coords={"time": time}, name=name)
    made.attrs["units"] = UNITS.get(name, FLUX_UNITS if name.startswith("truth") else "1")
    made.attrs["flags"] = flags
    return made


def _reference(series: dict[tuple[str, str], xr.DataArray], options: Options, where: str) -> str:
    hours: dict[str, tuple[np.datetime64, int]] = {}
    for (who, name), v in series.items():
        good = v.values > 0
        if name == "flux" and good.any():
            hours[who] = (v["time"].values[good][-1], int(good.sum()))
    if not hours:
        raise Refused(f"{where}: no >2 MeV electron flux in these files; give a GOES file")
    wanted = options.satellite.lower()
    pairs = calibrate.pairs(options.calibrate)
    if pairs:
        if wanted and wanted != pairs[0][1]:
            raise Refused(f"--satellite {wanted} is not --calibrate's reference {pairs[0][1]}")
        wanted = pairs[0][1]
    for name in [wanted, *(a for a, _ in pairs)]:
        if name and name not in hours:
            has = ", ".join(k or "unnamed" for k in hours)
            raise Refused(f"satellite {name!r} is not in these files; they have {has}")
    # A forecast needs the satellite that measures to the end.
    return wanted or max(hours, key=lambda k: (*hours[k], k))


def _of_reference(
    series: dict[tuple[str, str], xr.DataArray], reference: str, options: Options,
    remarks: list[str], until: np.datetime64 | None,
) -> Record:  # fmt: skip
    record: Record = {}
    for (who, name), values in series.items():
        if who in ("", reference) or name not in OWN:
            flags = values.attrs.pop("flags")
            record[name] = values
            if name == "flux":
                record["flux_flags"] = xr.DataArray(
                    flags, dims="time", coords={"time": values["time"]}, attrs={"units": "1"}
                )
    flux = record["flux"]
    flux.attrs["satellite"] = reference or "unnamed"
    flux.attrs["remarks"] = "; ".join(dict.fromkeys(remarks))
    for satellite, _ in calibrate.pairs(options.calibrate):
        record = fill_from(record, series[satellite, "flux"], satellite, reference, until)
    return record


def fill_from(
    record: Record, other: xr.DataArray, satellite: str, reference: str,
    until: np.datetime64 | None = None,
) -> Record:  # fmt: skip
    """Fill the reference's gaps with another satellite on its scale.

    The calibration is fitted on the days both measure (before ``until``, if given) and kept in
    ``attrs["calibration"]``. What is forecast and scored stays the reference's own measurement,
    ``truth_flux``.
    """
    flux = record["flux"]
    hours = hours_of(
        min(flux["time"].values[0], other["time"].values[0]),
        max(flux["time"].values[-1], other["time"].values[-1]) + np.timedelta64(1, "ns"),
    )
    mine, theirs = to_hours(flux, hours), to_hours(other, hours)
    ends = np.arange(DAY_H, len(hours) + 1, DAY_H)
    x, y = (daily_log_flux(v, ends, 18) for v in (theirs, mine))
    days = hours[ends - DAY_H]
    if until is not None:
        y = np.where(days < until, y, np.nan)
    made = calibrate.fit(x, y, days.astype("datetime64[D]"), satellite, reference)
    scaled = made.apply(theirs)
    gap = ~np.isfinite(mine) & np.isfinite(scaled)
    flags = np.zeros(len(hours), np.uint8)
    at = ((record["flux_flags"]["time"].values - hours[0]) // HOUR).astype(int)
    np.bitwise_or.at(flags, at, record["flux_flags"].values.astype(np.uint8))
    flags[gap] |= FILLED

    def hourly(values: np.ndarray, attrs: dict[str, object]) -> xr.DataArray:
        return xr.DataArray(values, dims="time", coords={"time": hours}, attrs=attrs)

    told = {**flux.attrs, "calibration": [*flux.attrs.get("calibration", []), made.describe()]}
    own = record.get("truth_flux", hourly(mine, {"units": FLUX_UNITS}))
    return {
        **record,
        "flux": hourly(np.where(gap, scaled, mine), told),
        "truth_flux": own,
        "flux_flags": hourly(flags, {"units": "1"}),
    }


def _packaged_kp(record: Record) -> xr.DataArray:
    from terrella.sources.kp import packaged

    time = record["flux"]["time"].values
    found = packaged(time[0], time[-1] + HOUR)
    ours = xr.DataArray(found.values, dims="time", coords={"time": found.time})
    if "Kp" in record:
        ours = record["Kp"].combine_first(ours)
    ours.attrs["units"] = "1"
    return ours.rename("Kp")


def issue_span(source: Inputs, options: Options) -> tuple[np.datetime64, np.datetime64]:
    """[first, last] issue time as a half-open span, from ``--issue`` or the data.

    Raises:
        Refused: not a time, or the wrong way round.
    """
    time = source.series["flux"]["time"].values
    end = time[-1].astype("datetime64[h]") + HOUR
    if end - time[0].astype("datetime64[h]") < DAY_H * HOUR:
        raise Refused(
            f"{source.where}: the flux runs from {time[0].astype('datetime64[h]')} to {end}; a "
            "forecast needs a day of it at least, give more files"
        )
    if not options.issue:
        first = (time[0].astype("datetime64[h]") + DAY_H * HOUR).astype("datetime64[ns]")
        return first, (end + HOUR).astype("datetime64[ns]")
    first, last = issue_times(options.issue)
    if first > end or last < time[0] + DAY_H * HOUR:
        raise Refused(
            f"--issue {options.issue}: the flux runs from {time[0].astype('datetime64[h]')} to "
            f"{end}; a forecast needs a day of it before the issue time, and none is made later "
            "than its end"
        )
    return first, np.minimum(last, end.astype("datetime64[ns]")) + np.timedelta64(1, "ns")


def without(source: Inputs, names: Iterable[str]) -> Inputs:
    """The source as it is when some quantities do not arrive."""
    gone = set(names)
    return replace(source, series={k: v for k, v in source.series.items() if k not in gone})
