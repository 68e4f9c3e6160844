"""A store's events as one table that is read only as far as it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs

from terrella import registry
from terrella.archive.commit import arrow_type
from terrella.archive.store import Store
from terrella.sources.base import instant
from terrella.types import Column, Refused

if TYPE_CHECKING:
    import pandas as pd

BATCH = 65_536  # rows in memory at once
EDGE = np.timedelta64(10_000, "ms")


@dataclass(frozen=True)
class Catalogue:
    """Events of a store, chosen but not yet read.

    Attributes:
        task: whose they are.
        columns: of the table, in order.
        dataset: the files.
        chosen: which rows; None for all.
        units: units that were looked into, with or without events.
    """

    task: str
    columns: tuple[Column, ...]
    dataset: ds.Dataset
    chosen: ds.Expression | None
    units: int

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of at most 65,536 rows, units in order of time within each group."""
        names = [c.name for c in self.columns]
        with _damage_is_named():
            for batch in self.dataset.to_batches(
                columns=names, filter=self.chosen, batch_size=BATCH, fragment_readahead=4
            ):
                if batch.num_rows:
                    yield batch

    def count(self) -> int:
        """Number of events."""
        with _damage_is_named():
            return int(self.dataset.count_rows(filter=self.chosen))

    def to_table(self) -> pa.Table:
        """All of it as an Arrow table."""
        names = [c.name for c in self.columns]
        with _damage_is_named():
            return self.dataset.to_table(columns=names, filter=self.chosen)

    def to_pandas(self) -> pd.DataFrame:
        """All of it as a frame."""
        frame: pd.DataFrame = self.to_table().to_pandas()
        return frame

    def write(self, path: str | Path) -> Path:
        """Export by the suffix: .csv, .json, .hapi (CSV with a HAPI header) or .vot (VOTable).

        Raises:
            Refused: another suffix, astropy is missing for .vot, or the file cannot be written.
        """
        from terrella.archive import exports

        return exports.write(self, Path(path))


@contextmanager
def _damage_is_named() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        why = " ".join(str(error).split())
        raise Refused(
            f"a file of the store is damaged ({why}); remove it and run the same command again"
        ) from None


def open_catalogue(store: str | os.PathLike[str], **where: Any) -> Catalogue:
    """See ``terrella.open_catalogue``."""
    place = Store(Path(store))
    head = place.made_with()
    if not head:
        raise Refused(f"{place.path}: is no store; make one with `terrella run TASK ... --workers`")
    records = [r for r in place.records().values() if r["identity"] == head["identity"]]
    records.sort(key=lambda r: (sorted(r["group"].items()), r["start"], r["unit"]))
    columns = _columns(head["task"], records)
    schema = pa.schema([(c.name, arrow_type(c.kind)) for c in columns])
    wanted = _chosen(where, columns, place.path)
    paths, known = [], []
    for record in records:
        for name in record["files"]:
            if name.startswith("events/"):
                paths.append(str(place.path / name))
                known.append(_known(record, columns))
    dataset = ds.FileSystemDataset.from_paths(
        paths, schema, ds.ParquetFileFormat(), pyarrow.fs.LocalFileSystem(), known
    )
    return Catalogue(head["task"], columns, dataset, wanted, len(records))


def _columns(task: str, records: list[dict[str, Any]]) -> tuple[Column, ...]:
    """Columns as the task tells them, then others that its events had."""
    said = {c.name: c for c in registry.get(task).events}
    kinds: dict[str, str] = {}
    for record in records:
        kinds |= record["columns"]
    named = [said.get(n) or Column(n, kinds[n]) for n in kinds]  # type: ignore[arg-type]
    return tuple(named) if kinds else tuple(said.values())


def _known(record: Mapping[str, Any], columns: tuple[Column, ...]) -> ds.Expression:
    """What holds for all events of a unit: files that cannot match are never opened."""
    parts = [ds.field(n) == v for n, v in record["group"].items()]
    clock = _clock(columns)
    if clock:
        # An event belongs to the unit it starts in; a task may say it begins half a sample before.
        lo, hi = (np.datetime64(record[k], "ms") for k in ("start", "stop"))
        parts.append(ds.field(clock) >= _time(lo - EDGE))
        parts.append(ds.field(clock) < _time(hi + EDGE))
    return reduce(lambda a, b: a & b, parts, ds.scalar(True))


def _clock(columns: tuple[Column, ...]) -> str:
    return next((c.name for c in columns if c.kind == "time"), "")


def _time(value: Any) -> pa.Scalar:
    return pa.scalar(value.astype("datetime64[ms]").item(), arrow_type("time"))


def _chosen(
    where: Mapping[str, Any], columns: tuple[Column, ...], store: Path
) -> ds.Expression | None:
    """A tuple is a range [lo, hi), None an open end; a list any of its values; else equality.

    Raises:
        Refused: no such column, or a value that is not of its kind.
    """
    known = {c.name: c for c in columns}
    if "time" in where and "time" not in known and _clock(columns):
        where = {**where, _clock(columns): where["time"]}
        where.pop("time")
    parts: list[ds.Expression] = []
    for name, value in where.items():
        if name not in known:
            hint = registry.nearest(name, list(known))
            raise Refused(f"{store}: its events have no column {name!r}; {hint}")
        column, field = known[name], ds.field(name)
        if isinstance(value, tuple):
            if len(value) != 2 or column.kind == "text":
                raise Refused(f"{name}={value!r}: a range is (lo, hi) of numbers or times")
            lo, hi = (None if v is None else _scalar(column, v) for v in value)
            parts += [field >= lo] if lo is not None else []
            parts += [field < hi] if hi is not None else []
        elif isinstance(value, list | set | frozenset):
            # A comparison each: they are pushed down to the files' statistics as equality is.
            each = [field == _scalar(column, v) for v in sorted(value, key=str)]
            parts.append(reduce(lambda a, b: a | b, each, ds.scalar(False)))
        else:
            parts.append(field == _scalar(column, value))
    return reduce(lambda a, b: a & b, parts) if parts else None


def _scalar(column: Column, value: Any) -> Any:
    if column.kind == "time":
        when = instant(value, column.name) if isinstance(value, str) else np.datetime64(value, "ns")
        return _time(when)
    if column.kind == "text":
        return str(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Refused(f"{column.name}={value!r}: is not a number") from None


def parse(conditions: list[str]) -> dict[str, Any]:
    """Conditions as a command gives them: ``label=REP,CSS``, ``L=4:6``, ``time=2013-01-01/``.

    Raises:
        Refused: not ``name=value``.
    """
    out: dict[str, Any] = {}
    for text in conditions:
        name, equals, value = (p.strip() for p in text.partition("="))
        if not (name and equals and value):
            raise Refused(f"--where {text!r}: write it as label=REP, L=4:6 or time=2013-01-01/")
        lo, slash, hi = value.partition("/")
        if not slash and value.count(":") == 1 and not value.count("-") > 1:
            lo, slash, hi = value.partition(":")
        if slash:
            out[name] = (lo.strip() or None, hi.strip() or None)
        else:
            several = [v.strip() for v in value.split(",")]
            out[name] = several if len(several) > 1 else value
    return out
