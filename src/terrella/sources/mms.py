"""MMS level-2 CDF files: FGM, EDP and FPI moments of any probe, burst or survey.

Files are known by what they hold, not by their names or folders; names in the mission's own pattern
only save opening files that cannot matter. Variables are read over the span asked for and no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terrella.types import NoData, Refused, Variable

if TYPE_CHECKING:
    import xarray as xr

NAME = re.compile(
    r"mms(?P<probe>[1-4])_(?P<group>[a-z]+)_(?P<rate>brst|fast|slow|srvy)_l2"
    r"(?:_(?P<kind>[a-z0-9-]+))?_(?P<when>\d{8}(?:\d{6})?)_v(?P<version>\d+(?:\.\d+)*)",
)
WANTED = {("fgm", None), ("edp", "dce"), ("fpi", "dis-moms"), ("fpi", "des-moms")}
LONGEST = np.timedelta64(26, "h")  # a file of any rate reaches no further from the time in its name
MISSION = np.datetime64("2015-03-12", "ns"), np.datetime64("2100-01-01", "ns")
J2000 = np.datetime64("2000-01-01T12:00:00", "ns")
TT_TAI = 32_184_000_000  # ns
FILL = np.iinfo(np.int64).min
BAD_MOMENTS = 0b1000_1000_0001  # FPI error flags: 0 flagged by hand, 7 n <= 0, 11 damaged packet


@dataclass(frozen=True)
class Quantity:
    """One quantity of the record and the L2 variable it comes from.

    Attributes:
        instrument: FGM, EDP, DIS or DES.
        pattern: variable name with {p} for the probe and {r} for the rate.
        columns: leading components kept (FGM's fourth is |B|).
        required: whether a run can do without.
    """

    instrument: str
    pattern: str
    units: str
    shape: tuple[int, ...] = ()
    required: bool = True
    long_name: str = ""


def _moments(s: str, who: str, word: str) -> dict[str, Quantity]:
    n = f"mms{{p}}_{who}_"
    flux = "keV/(cm^2 s sr keV)"

    def q(name: str, units: str, shape: tuple[int, ...], need: bool, text: str) -> Quantity:
        return Quantity(who.upper(), f"{n}{name}_{{r}}", units, shape, need, f"{word} {text}")

    found = {
        f"n{s}": q("numberdensity", "cm-3", (), True, "number density"),
        f"v{s}": q("bulkv_gse", "km s-1", (3,), True, "bulk velocity, GSE"),
        f"p{s}": q("prestensor_gse", "nPa", (3, 3), True, "pressure tensor, GSE"),
        f"n{s}_bg": q("numberdensity_bg", "cm-3", (), s == "i", "background number density"),
        f"p{s}_bg": q("pres_bg", "nPa", (), s == "i", "background pressure"),
        f"q{s}": q("heatq_gse", "mW m-2", (3,), False, "heat flux, GSE"),
        f"flags_{s}": q("errorflags", "1", (), False, "error flags"),
        f"energy_{s}": q("energy", "eV", (32,), False, "energy of the spectra's channels"),
    }
    for part in ("omni",) if s == "i" else ("omni", "par", "perp", "anti"):
        found[f"spectrum_{s}_{part}"] = q(
            f"energyspectr_{part}", flux, (32,), False, f"{part} energy spectrum"
        )
    return found


QUANTITIES: dict[str, Quantity] = {
    "b": Quantity("FGM", "mms{p}_fgm_b_gse_{r}_l2", "nT", (3,), True, "magnetic field, GSE"),
    "e": Quantity("EDP", "mms{p}_edp_dce_gse_{r}_l2", "mV m-1", (3,), True, "electric field, GSE"),
    "e_fast": Quantity(
        "EDP", "mms{p}_edp_dce_gse_fast_l2", "mV m-1", (3,), False, "fast electric field, GSE"
    ),
    "quality_e": Quantity(
        "EDP", "mms{p}_edp_quality_{r}_l2", "1", (), False, "quality (0 worst, 3 best)"
    ),
    **_moments("i", "dis", "ion"),
    **_moments("e", "des", "electron"),
}
CADENCE: dict[str, dict[str, float]] = {
    "brst": {"FGM": 0.0078125, "EDP": 1 / 8192, "DIS": 0.15, "DES": 0.03},
    "fast": {"FGM": 0.0625, "EDP": 0.03125, "DIS": 4.5, "DES": 4.5},
}
# Survey products are called srvy by FGM, fast by the others.
RATES: dict[str, dict[str, tuple[str, ...]]] = {
    "brst": {"FGM": ("brst",), "EDP": ("brst",), "DIS": ("brst",), "DES": ("brst",)},
    "fast": {"FGM": ("srvy", "fast"), "EDP": ("fast",), "DIS": ("fast",), "DES": ("fast",)},
}
PRODUCT = {"FGM": "fgm_{r}_l2", "EDP": "edp_{r}_l2_dce", "DIS": "fpi_{r}_l2_dis-moms",
           "DES": "fpi_{r}_l2_des-moms"}  # fmt: skip
SAME = {"cm^-3": "cm-3", "1/cm^3": "cm-3", "#/cm^3": "cm-3", "km/s": "km s-1", "mV/m": "mV m-1",
        "mW/m^2": "mW m-2", "keV/(cm^2 s sr keV)": "keV/(cm^2 s sr keV)", "cc": "cm-3"}  # fmt: skip


def variables(rate: str = "brst") -> tuple[Variable, ...]:
    """The vocabulary of an MMS record; a record's keys are ``mms<probe>_<name>``."""
    return tuple(
        Variable(name, q.units, q.long_name, CADENCE[rate][q.instrument], q.shape, q.required)
        for name, q in QUANTITIES.items()
    )


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
                _mask_flagged(record, probe)
        return with_lead(record)

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
        return _joined(parts, quantity)

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


class guarded:  # noqa: N801 - used as a function
    """Open a CDF file; whatever goes wrong inside becomes one clear refusal."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        try:
            return _opened(*_stamped(self.path))
        except Exception as error:
            raise self._refusal(error) from None

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        # The parser meets damaged bytes with any kind of error, from struct to MemoryError.
        if isinstance(error, Exception) and not isinstance(error, Refused):
            raise self._refusal(error) from None

    def _refusal(self, error: Exception) -> Refused:
        reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        if self.path.is_file() and self.path.stat().st_size == 0:
            reason = "it is empty"
        return Refused(f"{self.path}: cannot be read as CDF, damaged or foreign ({reason})")


def _stamped(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _opened(path: str, changed: int, size: int) -> Any:
    # One parse of a file's directory serves all of its variables; a changed file is parsed anew.
    import cdflib

    return cdflib.CDF(path)


def read(
    path: Path, name: str, quantity: Quantity, start: np.datetime64, stop: np.datetime64
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """One variable of one file over [start, stop).

    Returns:
        time (samples,) datetime64[ns], values (samples, *shape) with fills as NaN, and the seconds
        from the time stamp to the centre of the sample; None if the file has nothing there.

    Raises:
        Refused: damaged, or with other units or another shape than expected.
    """
    with guarded(path) as cdf:
        attrs = cdf.varattsget(name)
        clock = str(attrs.get("DEPEND_0") or "Epoch")
        time = _epoch(*_stamped(path), clock)
        inside = np.flatnonzero((time >= start) & (time < stop))
        if not len(inside):
            return None
        info = cdf.varinq(name)
        lo, hi = int(inside[0]), int(inside[-1])
        if info.Rec_Vary:
            raw = np.asarray(cdf.varget(name, startrec=lo, endrec=hi))
            raw = raw.reshape(hi - lo + 1, *info.Dim_Sizes)
        else:
            raw = np.broadcast_to(cdf.varget(name), (hi - lo + 1, *info.Dim_Sizes))
        centre = _centre(cdf, clock)
    if quantity.shape and raw.shape[1:] != quantity.shape:
        if raw.ndim != 2 or raw.shape[1] < quantity.shape[0] or len(quantity.shape) > 1:
            raise Refused(f"{path}: {name} has shape {raw.shape[1:]}, expected {quantity.shape}")
        raw = raw[:, : quantity.shape[0]]
    _check_units(path, name, str(attrs.get("UNITS") or ""), quantity)
    values = _clean(raw, attrs)
    # A backward step or a fill in the clock must not survive as a sample.
    keep = inside - lo
    return time[inside], values[keep] if len(keep) < len(values) else values, centre


def _check_units(path: Path, name: str, units: str, quantity: Quantity) -> None:
    if quantity.units == "1" or not units.strip():
        return
    if SAME.get(units.strip(), units.strip()) != quantity.units:
        raise Refused(f"{path}: {name} is in {units!r}, expected {quantity.units!r}")


def _clean(raw: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    fill = attrs.get("FILLVAL")
    if raw.dtype.kind in "iu":
        return raw  # flags: a fill has every bit set and so counts as bad
    values = np.array(raw, np.float32)
    bad = ~(np.abs(values) < 1e30)  # every float fill of the mission, NaN and infinity
    if fill is not None:
        bad |= values == np.float32(fill)
    values[bad] = np.nan
    return values


@lru_cache(maxsize=64)
def _epoch(path: str, changed: int, size: int, clock: str) -> np.ndarray:
    return tt2000_to_utc(np.atleast_1d(_opened(path, changed, size).varget(clock)))


def epoch_span(path: Path, name: str) -> tuple[np.datetime64, np.datetime64] | None:
    """First and last instant of a variable, UTC; None for a file without records."""
    with guarded(path) as cdf:
        time = _epoch(*_stamped(path), str(cdf.varattsget(name).get("DEPEND_0") or "Epoch"))
    time = time[~np.isnat(time)]
    return (time.min(), time.max()) if len(time) else None


def _centre(cdf: Any, clock: str) -> float:
    attrs = cdf.varattsget(clock)
    plus, minus = attrs.get("DELTA_PLUS_VAR"), attrs.get("DELTA_MINUS_VAR")
    if not plus or not minus:
        return 0.0
    scale = {"ms": 1e-3, "us": 1e-6, "ns": 1e-9}.get(str(cdf.varattsget(plus).get("UNITS")), 1.0)
    widths = [float(np.mean(cdf.varget(str(v)))) for v in (plus, minus)]
    # The widths are stored in single precision.
    return round((widths[0] - widths[1]) / 2 * scale, 6)


def tt2000_to_utc(epoch: np.ndarray) -> np.ndarray:
    """CDF TT2000 to UTC, vectorised.

    Args:
        epoch: (samples,) int64, nanoseconds since J2000 of terrestrial time.

    Returns:
        (samples,) datetime64[ns]; NaT for fills. An instant within a leap second takes the time of
        the second that follows it, as datetime64 has none.
    """
    epoch = np.asarray(epoch)
    if epoch.dtype.kind not in "iu":
        raise ValueError("times are not TT2000")
    epoch = epoch.astype(np.int64)
    starts, leaps = _leap_table()
    which = np.searchsorted(starts, epoch, "right") - 1
    utc = epoch - leaps[np.maximum(which, 0)] - TT_TAI + J2000.astype(np.int64)
    valid = (epoch != FILL) & (epoch != FILL + 1)
    return np.where(valid, utc, FILL).view("datetime64[ns]")


@lru_cache(maxsize=1)
def _leap_table() -> tuple[np.ndarray, np.ndarray]:
    """TT2000 at which each TAI-UTC offset begins, and the offset in ns, from the CDF library."""
    import cdflib

    rows = [r for r in cdflib.cdfepoch.LTS if r[0] >= 1972]
    days = np.array([f"{int(y):04d}-{int(m):02d}-{int(d):02d}" for y, m, d, *_ in rows], "M8[ns]")
    leaps = np.array([int(r[3]) * 1_000_000_000 for r in rows], np.int64)
    starts = (days - J2000).astype(np.int64) + TT_TAI + leaps
    return starts, leaps


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


def _joined(parts: list[tuple[np.ndarray, np.ndarray, float]], quantity: Quantity) -> xr.DataArray:
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


def _mask_flagged(record: dict[str, xr.DataArray], probe: str) -> None:
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
