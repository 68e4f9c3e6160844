"""MMS level-2 CDF files: FGM, EDP and FPI moments of any probe, burst or survey.

Files are known by what they hold, not by their names or folders; names in the mission's own pattern
only save opening files that cannot matter. Variables are read over the span asked for and no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terrella.sources.mms_cdf import epoch_span, guarded, read
from terrella.sources.mms_variables import PRODUCT, QUANTITIES, RATES, Quantity
from terrella.types import NoData, Refused, Variable

if TYPE_CHECKING:
    import xarray as xr

NAME = re.compile(
    r"mms(?P<probe>[1-4])_(?P<group>[a-z]+)_(?P<rate>brst|fast|slow|srvy)_l2"
    r"(?:_(?P<kind>[a-z0-9-]+))?_(?P<when>\d{8}(?:\d{6})?)_v(?P<version>\d+(?:\.\d+)*)",
)
WANTED = {("fgm", None), ("edp", "dce"), ("fpi", "dis-moms"), ("fpi", "des-moms")}
LONGEST = np.timedelta64(26, "h")  # a file of any rate reaches no further from the time in its name
BAD_MOMENTS = 0b1000_1000_0001  # FPI error flags: 0 flagged by hand, 7 n <= 0, 11 damaged packet


@dataclass(frozen=True)
class Holding:
    """One CDF file: where it is, what it holds, what time it covers."""

    path: Path
    names: frozenset[str]
    version: tuple[int, ...] = ()
    family: str = ""  # the name without its version: newer versions replace older ones
    probes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class MmsFiles:
    """A source over a set of MMS files.

    Attributes:
        files: from ``index``.
        probes: spacecraft numbers to read.
        rate: ``brst`` or ``fast``.
        keep_flagged: keep moments whose error flags call them unusable.
    """

    files: tuple[Holding, ...]
    probes: tuple[str, ...]
    rate: str = "brst"
    keep_flagged: bool = False

    def fetch(
        self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
    ) -> dict[str, xr.DataArray]:
        """Read [start, stop) of every probe; see ``terrella.types.Source``.

        Returns:
            Arrays named ``mms<probe>_<name>``, times as in the files (the start of a particle
            accumulation), with ``attrs["centre_s"]``, the seconds from there to its centre.

        Raises:
            NoData: an instrument that is needed has nothing in the span.
            Refused: a file is damaged, or a unit is not the expected one.
        """
        record: dict[str, xr.DataArray] = {}
        for probe in self.probes:
            for variable in variables:
                if variable.name not in QUANTITIES:
                    continue
                array = self._read(probe, variable.name, start, stop)
                if array is not None:
                    record[f"mms{probe}_{variable.name}"] = array
            if not self.keep_flagged:
                mask_flagged(record, probe)
        return with_lead(record)

    def narrow(self, start: np.datetime64, stop: np.datetime64) -> MmsFiles:
        """The files that may hold data of [start, stop)."""
        near = tuple(f for f in self.files if may_hold(f.path, start, stop))
        return replace(self, files=near)

    def _read(
        self, probe: str, name: str, start: np.datetime64, stop: np.datetime64
    ) -> xr.DataArray | None:
        quantity = QUANTITIES[name]
        names = [
            quantity.pattern.format(p=probe, r=r) for r in RATES[self.rate][quantity.instrument]
        ]
        holding = [(f, n) for f in self.files for n in names if n in f.names]
        parts = [
            part
            for f, n in holding
            if may_hold(f.path, start, stop) and (part := read(f.path, n, quantity, start, stop))
        ]
        if not parts:
            if quantity.required:
                raise self._missing(probe, quantity, names[0], start, stop, bool(holding))
            return None
        return joined(parts, quantity)

    def _missing(
        self, probe: str, quantity: Quantity, name: str, start: np.datetime64,
        stop: np.datetime64, known: bool,
    ) -> NoData:  # fmt: skip
        rate = RATES[self.rate][quantity.instrument][0]
        product = f"mms{probe}_{PRODUCT[quantity.instrument].format(r=rate)}"
        if not known:
            return missing(self.files, probe, quantity.instrument, self.rate)
        spans = [
            s for f in self.files if name in f.names and (s := epoch_span(f.path, name)) is not None
        ]
        held = (
            f"{_short(min(s[0] for s in spans))} to {_short(max(s[1] for s in spans))}"
            if spans
            else "nothing"
        )
        return NoData(
            f"MMS{probe} {quantity.instrument} ({name}): no data in {_short(start)} to "
            f"{_short(stop)}; the {product} files given hold {held}"
        )


def every_name(files: Iterable[Holding]) -> frozenset[str]:
    """Names of all variables in a set of files."""
    return frozenset(n for f in files for n in f.names)


def missing(files: Iterable[Holding], probe: str, instrument: str, rate: str) -> NoData:
    """The refusal for an instrument that no file holds: names it, and says what else is there."""
    word = RATES[rate][instrument][0]
    product = f"mms{probe}_{PRODUCT[instrument].format(r=word)}"
    names = every_name(files)
    pattern = next(q.pattern for q in QUANTITIES.values() if q.instrument == instrument)
    hints = []
    others = [p for p in "1234" if p != probe and pattern.format(p=p, r=word) in names]
    if others:
        hints.append(f"the one given is of MMS{' and MMS'.join(others)}")
    rates = [
        r for r in ("brst", "fast", "srvy") if r != word and pattern.format(p=probe, r=r) in names
    ]
    if rates:
        hints.append(f"only its {rates[0]} data are given, no {word}")
    said = f" ({'; '.join(hints)})" if hints else ""
    return NoData(f"MMS{probe} {instrument} is missing{said}: add a {product}_*.cdf file")


def index(paths: Iterable[Path]) -> tuple[tuple[Holding, ...], list[tuple[Path, str]]]:
    """Look into files and folders, at any depth, for MMS level-2 data.

    Args:
        paths: files in any mix, or folders (the LASP/SPDF layout or any other).

    Returns:
        What was found, newest version of each file, and the files that could not be used with the
        reason. Files of other instruments inside a folder are passed over in silence.
    """
    found: dict[str, Holding] = {}
    refused: list[tuple[Path, str]] = []
    for path, named in _candidates(paths):
        try:
            holding = _look(path)
        except Refused as error:
            refused.append((path, str(error)))
            continue
        if not holding.probes:
            if named:
                refused.append((path, f"{path}: holds no MMS FGM, EDP or FPI moments variable"))
            continue
        old = found.get(holding.family)
        if old is None or old.version < holding.version:
            found[holding.family] = holding
    return tuple(found[k] for k in sorted(found)), refused


def _candidates(paths: Iterable[Path]) -> Iterable[tuple[Path, bool]]:
    for path in paths:
        if not path.exists():
            raise Refused(f"{path}: no such file or folder")
        if path.is_dir():
            for inside in sorted(path.rglob("*.cdf")):
                match = NAME.match(inside.name)
                if match is None or (match["group"], match["kind"]) in WANTED:
                    yield inside, False
        else:
            yield path, True


def _look(path: Path) -> Holding:
    with guarded(path) as cdf:
        info = cdf.cdf_info()
        names = frozenset(map(str, [*info.zVariables, *info.rVariables]))
    probes = frozenset(
        m[1] for n in names if (m := re.match(r"mms([1-4])_(?:fgm_b_gse|edp_dce_gse|d[ie]s_)", n))
    )
    match = NAME.match(path.name)
    if match is None:
        return Holding(path, names, (), str(path.resolve()), probes)
    if probes and match["probe"] not in probes:
        raise Refused(
            f"{path}: is named as MMS{match['probe']} but holds data of MMS{min(probes)}; "
            "probes were swapped, get the file again"
        )
    version = tuple(map(int, match["version"].split(".")))
    return Holding(path, names, version, path.name[: match.start("version")], probes)


def may_hold(path: Path, start: np.datetime64, stop: np.datetime64) -> bool:
    """Whether a file can hold data of [start, stop), going by a name in the mission's pattern."""
    match = NAME.match(path.name)
    if match is None:
        return True
    w = match["when"].ljust(14, "0")
    begins = np.datetime64(f"{w[:4]}-{w[4:6]}-{w[6:8]}T{w[8:10]}:{w[10:12]}:{w[12:]}")
    # Burst names give the start of the selection to the second, records may begin before it.
    early = np.timedelta64(5, "m")
    return bool(begins - early < stop and begins + LONGEST > start)


def joined(parts: list[tuple[np.ndarray, np.ndarray, float]], quantity: Quantity) -> xr.DataArray:
    """Parts (time, values, seconds to the centre) as one array, ascending, each instant once."""
    import xarray as xr

    time = np.concatenate([p[0] for p in parts])
    values = np.concatenate([p[1] for p in parts]) if len(parts) > 1 else parts[0][1]
    if not (np.diff(time) > np.timedelta64(0)).all():
        time, first = np.unique(time, return_index=True)
        values = values[first]
    dims = ("time", *(f"c{k}" for k in range(len(quantity.shape))))
    attrs = {"units": quantity.units, "long_name": quantity.long_name, "centre_s": parts[0][2]}
    return xr.DataArray(values, {"time": time}, dims, attrs=attrs)


def with_lead(record: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """Let the first probe's quantities be known by their bare names too: ``b`` for ``mms1_b``."""
    probes = sorted({k[3] for k in record if k.startswith("mms")})
    lead = f"mms{probes[0]}_" if probes else "mms"
    return record | {k[5:]: v for k, v in record.items() if k.startswith(lead)}


def mask_flagged(record: dict[str, xr.DataArray], probe: str) -> None:
    """Make moments NaN whose error flags call them unusable."""
    for s in "ie":
        flags = record.get(f"mms{probe}_flags_{s}")
        if flags is None:
            continue
        bad = (flags.values.astype(np.int64) & BAD_MOMENTS) != 0
        if not bad.any():
            continue
        for name in (f"n{s}", f"v{s}", f"p{s}", f"q{s}"):
            array = record.get(f"mms{probe}_{name}")
            if array is not None and len(array) == len(bad):
                array.values[bad] = np.nan


def _short(when: np.datetime64) -> str:
    return str(when.astype("datetime64[ms]"))
