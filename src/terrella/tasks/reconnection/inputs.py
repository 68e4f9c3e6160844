"""What paths turn into: jobs by event or by burst interval, and what had to be left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terrella.sources import mms, mms_cdf, mms_variables
from terrella.sources.cdaweb import CdaWeb
from terrella.sources.mms_table import Tables, read_table
from terrella.tasks.reconnection.events import EVENTS, Event, chosen
from terrella.tasks.reconnection.scale import check
from terrella.types import Job, Opening, Refusal, Refused, Source, Variable

if TYPE_CHECKING:
    import xarray as xr

LIVE = "cdaweb"
APART = np.timedelta64(5, "s")  # a longer break in the electron clock begins another interval
STEP = {"brst": np.timedelta64(30, "ms"), "fast": np.timedelta64(4500, "ms")}
Span = tuple[np.datetime64, np.datetime64]


@dataclass(frozen=True)
class Both:
    """CDF files and tables given together; a table's quantity goes before a file's."""

    files: mms.MmsFiles | None
    tables: Tables | None

    def fetch(
        self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
    ) -> dict[str, xr.DataArray]:
        """See ``terrella.types.Source``."""
        record = self.files.fetch(variables, start, stop) if self.files else {}
        if self.tables:
            extra = self.tables.fetch(variables, start, stop)
            own = self.files.probes if self.files else "1234"
            record |= {k: v for k, v in extra.items() if k[3] in own}
        return mms.with_lead({k: v for k, v in record.items() if k.startswith("mms")})

    def narrow(self, start: np.datetime64, stop: np.datetime64) -> Both:
        """The files and rows that [start, stop) touches."""
        return Both(
            self.files and self.files.narrow(start, stop),
            self.tables and self.tables.narrow(start, stop),
        )


def open_files(paths: Sequence[Path], options: Any) -> Opening:
    """Sort inputs into jobs.

    Args:
        paths: L2 CDF files in any mix, folders of them (LASP/SPDF layout or flat), CSV or NetCDF
            tables, or the word ``cdaweb`` for the live archive.
        options: ``probe``, ``event``, ``rate``, ``keep_flagged`` matter here.

    Raises:
        Refused: a B0 or n0 that cannot be, a probe that does not exist, an unknown event, or
            nothing that can be used.
    """
    check(options)
    wanted = tuple(dict.fromkeys(options.probe.replace(",", "").replace(" ", "")))
    if bad := [p for p in wanted if p not in "1234"]:
        raise Refused(f"--probe {options.probe}: MMS has probes 1, 2, 3 and 4, not {bad[0]}")
    events = chosen(options.event) if options.event else {}
    if [str(p) for p in paths] == [LIVE]:
        return _live(wanted or ("1",), events, options)
    cdf, tables = _sorted(paths)
    found, damaged = mms.index(cdf)
    refused = [Refusal(str(p), why) for p, why in damaged]
    record: dict[str, xr.DataArray] = {}
    for path in tables:
        try:
            record |= read_table(path, wanted[0] if wanted else "1")
        except Refused as refusal:
            refused.append(Refusal(str(path), str(refusal)))
    probes, more = _complete(found, record, wanted, options.rate)
    refused += more
    if not probes:
        said = f"{', '.join(map(str, paths))}: no MMS level-2 data (mms*_fgm, edp, fpi .cdf) there"
        return Opening((), tuple(refused or [Refusal(str(paths[0]), said)]))
    source = _source(found, record, probes, options)
    spans = _spans(found, record, probes, options.rate)
    jobs, missed = _jobs(source, spans, events, probes, options.rate)
    files = tuple(f.path for f in found if f.probes & set(probes)) + tuple(tables)
    jobs = tuple(_with_files(job, files) for job in jobs)
    return Opening(jobs, tuple(refused + missed))


def reach(recipe: Any, options: Any) -> tuple[np.timedelta64, np.timedelta64]:
    """How far beyond its span a job reads: the context, and one ion sample on either side."""
    from terrella.tasks.reconnection.prepare import context

    before, after = context(recipe, options)
    step, ions = STEP[options.rate], np.timedelta64(400, "ms")
    if options.mode == "published":
        before = after = 0  # the authors' chunks count from the first sample of the interval
        ions = np.timedelta64(0, "ms")
    return before * step + ions, after * step + ions


def _sorted(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    cdf, tables = [], []
    for path in paths:
        if not path.exists():
            raise Refused(f"{path}: no such file or folder (or the word `{LIVE}` for the archive)")
        if path.is_dir():
            cdf.append(path)
            tables += sorted(path.glob("mms*_truth.nc"))
        elif path.suffix.lower() == ".cdf" or _magic(path) in (b"\xcd\xf3", b"\xcd\xf2"):
            cdf.append(path)
        else:
            tables.append(path)
    return cdf, tables


def _magic(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(2)


def _complete(
    found: tuple[mms.Holding, ...],
    record: dict[str, xr.DataArray],
    wanted: tuple[str, ...],
    rate: str,
) -> tuple[tuple[str, ...], list[Refusal]]:
    """Probes for which every instrument is there, and a refusal for each that is not."""
    held = {p for f in found for p in f.probes}
    # A file of truths alone does not make a probe.
    held |= {k[3] for k in record if not k.endswith("_truth")}
    names = mms.every_name(found)
    whole, refused = [], []
    for probe in wanted or sorted(held):
        if f"mms{probe}_features" in record:
            whole.append(probe)
            continue
        lacking = _lacking(probe, names, record, rate)
        if not lacking:
            whole.append(probe)
        elif probe not in held:
            others = f"they hold MMS{', MMS'.join(sorted(held))}" if held else "they hold none"
            refused.append(
                Refusal(f"MMS{probe}", f"MMS{probe}: no data among the inputs; {others}")
            )
        else:
            error = mms.missing(found, probe, lacking[0], rate)
            also = f"; also missing: {', '.join(lacking[1:])}" if lacking[1:] else ""
            refused.append(Refusal(f"MMS{probe}", f"{error}{also}"))
    return tuple(whole), refused


def _lacking(
    probe: str, names: frozenset[str], record: dict[str, xr.DataArray], rate: str
) -> list[str]:
    lacking = []
    for name, quantity in mms_variables.QUANTITIES.items():
        if not quantity.required:
            continue
        words = mms_variables.RATES[rate][quantity.instrument]
        there = any(quantity.pattern.format(p=probe, r=r) in names for r in words)
        if not there and f"mms{probe}_{name}" not in record:
            lacking.append(quantity.instrument)
    return list(dict.fromkeys(lacking))


def _source(
    found: tuple[mms.Holding, ...], record: dict[str, xr.DataArray], probes: tuple[str, ...],
    options: Any,
) -> Source:  # fmt: skip
    names = mms.every_name(found)
    of_cdf = tuple(p for p in probes if any(n.startswith(f"mms{p}_") for n in names))
    files = mms.MmsFiles(found, of_cdf, options.rate, options.keep_flagged) if of_cdf else None
    return Both(files, Tables(record) if record else None)


def _spans(
    found: tuple[mms.Holding, ...],
    record: dict[str, xr.DataArray],
    probes: tuple[str, ...],
    rate: str,
) -> list[Span]:
    """Unbroken intervals of the electron clock over all probes."""
    spans: list[Span] = []
    quantity = mms_variables.QUANTITIES["ne"]
    for probe in probes:
        for array in (record.get(f"mms{probe}_{n}") for n in ("ne", "features")):
            if array is not None and array.sizes["time"]:
                spans.append((array["time"].values[0], array["time"].values[-1]))
        for word in mms_variables.RATES[rate]["DES"]:
            name = quantity.pattern.format(p=probe, r=word)
            held = (mms_cdf.epoch_span(f.path, name) for f in found if name in f.names)
            spans += [s for s in held if s is not None]
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start - merged[-1][1] <= APART:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def _jobs(
    source: Source, spans: list[Span], events: dict[str, Event], probes: tuple[str, ...], rate: str
) -> tuple[tuple[Job, ...], list[Refusal]]:
    who = f"mms{''.join(probes)}"
    if not events:
        return tuple(
            Job(f"{who}_{_stamp(start)}", source, start, stop + 2 * STEP[rate])
            for start, stop in spans
        ), []
    jobs, refused = [], []
    for letter, event in events.items():
        start, stop = event.span
        if any(a < stop and b > start for a, b in spans):
            jobs.append(Job(f"{who}_event{letter}", source, start, stop))
        else:
            has = ", ".join(
                f"{a.astype('datetime64[s]')} to {b.astype('datetime64[s]')}" for a, b in spans[:3]
            )
            when = f"{event.start} to {event.stop}"
            why = f"no {rate} data of event {letter} ({when}); the inputs have {has}"
            refused.append(Refusal(f"event {letter}", why))
    return tuple(jobs), refused


def _live(probes: tuple[str, ...], events: dict[str, Event], options: Any) -> Opening:
    if options.rate != "brst":
        raise Refused(f"--rate {options.rate}: only burst data are read from {LIVE}")
    source = CdaWeb(probes, options.keep_flagged)
    who = f"mms{''.join(probes)}"
    if events:
        return Opening(tuple(Job(f"{who}_event{k}", source, *e.span) for k, e in events.items()))
    return Opening((Job(f"{who}_{LIVE}", source, *mms_variables.MISSION),))


def _with_files(job: Job, files: tuple[Path, ...]) -> Job:
    import dataclasses

    near = tuple(
        p for p in files
        if mms.NAME.match(p.name) is None or mms.may_hold(p, job.start, job.stop)
    )  # fmt: skip
    return dataclasses.replace(job, files=near)


def _stamp(time: np.datetime64) -> str:
    text = str(time.astype("datetime64[s]"))
    return text.replace("-", "").replace(":", "").replace("T", "_")


def list_events() -> None:
    """Print the table of magnetotail events that --event knows (Rogers et al. 2023)."""
    from rich.console import Console
    from rich.table import Table

    table = Table("event", "start (UTC)", "stop", "B0 (nT)", "n0 (cm-3)", box=None)
    for letter, e in EVENTS.items():
        table.add_row(letter, e.start, e.stop, f"{e.b0:.2f}", f"{e.n0:.3f}")
    Console(width=100).print(table)
