"""A catalogue in forms that other programs read: CSV, JSON, HAPI, VOTable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from terrella import files
from terrella.types import Column, Refused

if TYPE_CHECKING:
    from terrella.archive.catalogue import Catalogue

TIME_LENGTH = 24  # 2013-01-01T00:00:00.000Z
FILL = {"number": "NaN", "count": "-2147483648"}


def write(catalogue: Catalogue, path: Path) -> Path:
    """Export by the suffix of ``path``.

    Raises:
        Refused: a suffix that is not known, or the file cannot be written.
    """
    forms: dict[str, Callable[[Catalogue, Path], None]] = {
        ".csv": to_csv, ".json": to_json, ".hapi": to_hapi, ".vot": to_votable, ".xml": to_votable,
    }  # fmt: skip
    form = forms.get(path.suffix.lower())
    if form is None:
        raise Refused(f"{path}: exports end in {', '.join(forms)}")
    with files.whole(path) as scratch:
        form(catalogue, scratch)
    return path


def to_csv(catalogue: Catalogue, path: Path) -> None:
    """One line an event, times as ISO 8601, what is unknown left empty."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        pd.DataFrame(columns=[c.name for c in catalogue.columns]).to_csv(stream, index=False)
        for frame in _frames(catalogue):
            frame.to_csv(stream, index=False, header=False, lineterminator="\n")


def to_json(catalogue: Catalogue, path: Path) -> None:
    """A list of one object an event, one a line; what is unknown is null."""
    with path.open("w", encoding="utf-8") as stream:
        begun = False
        for frame in _frames(catalogue):
            for row in frame.astype(object).to_dict("records"):
                plain = {
                    k: None if v is None or v is pd.NA or v != v else v for k, v in row.items()
                }
                stream.write(",\n" if begun else "[\n")
                stream.write(json.dumps(plain, ensure_ascii=False))
                begun = True
        stream.write("\n]\n" if begun else "[]\n")


def to_hapi(catalogue: Catalogue, path: Path) -> None:
    """What a HAPI server answers with ``include=header&format=csv``: a header after #, then rows.

    Source: HAPI 3.1, doi:10.5281/zenodo.7779706. Records are in order of time, as HAPI asks.
    """
    clock = next((c.name for c in catalogue.columns if c.kind == "time"), None)
    if clock is None:
        raise Refused(f"{path}: these events have no time, which HAPI needs")
    table = catalogue.to_table()
    table = table.filter(pc.is_valid(table[clock])).sort_by([(clock, "ascending")])
    columns = sorted(catalogue.columns, key=lambda c: c.name != clock)  # time comes first
    frame = _plain(table.select([c.name for c in columns]))
    for column in columns:
        if column.kind == "count":
            frame[column.name] = frame[column.name].fillna(int(FILL["count"]))
    ends = (frame[clock].iloc[0], frame[clock].iloc[-1]) if len(frame) else (None, None)
    header = {
        "HAPI": "3.1",
        "status": {"code": 1200, "message": "OK"},
        "startDate": ends[0],
        "stopDate": ends[1],
        "description": f"events of terrella {catalogue.task}",
        "format": "csv",
        "parameters": [_parameter(c, frame[c.name]) for c in columns],
    }
    with path.open("w", encoding="utf-8", newline="") as stream:
        _header(header, stream)
        frame.to_csv(stream, index=False, header=False, lineterminator="\n", na_rep="NaN")


def _parameter(column: Column, values: pd.Series) -> dict[str, Any]:
    kinds = {"time": "isotime", "text": "string", "number": "double", "count": "integer"}
    out: dict[str, Any] = {"name": column.name, "type": kinds[column.kind]}
    if column.kind == "time":
        out["length"] = TIME_LENGTH
    if column.kind == "text":
        out["length"] = max((len(v.encode()) for v in values), default=0) or 1
    out["units"] = {"time": "UTC", "text": None}.get(column.kind, column.units or None)
    out["fill"] = FILL.get(column.kind)
    if column.long_name:
        out["description"] = column.long_name
    return out


def _header(header: dict[str, Any], stream: TextIO) -> None:
    for line in json.dumps(header, indent=1, ensure_ascii=False).splitlines():
        stream.write(f"#{line}\n")


def to_votable(catalogue: Catalogue, path: Path) -> None:
    """VOTable 1.4 through astropy; times as ISO 8601 text.

    Raises:
        Refused: astropy is not installed.
    """
    try:
        from astropy.io.votable import from_table, writeto
        from astropy.table import Column as AstroColumn
        from astropy.table import MaskedColumn, Table
    except ImportError:
        raise Refused(
            "a VOTable needs astropy, which is not installed: pip install 'terrella[votable]'"
        ) from None
    frame = _plain(catalogue.to_table())
    made = Table()
    for column in catalogue.columns:
        values, told = frame[column.name], {"description": column.long_name or None}
        if column.kind in ("time", "text"):
            text = values.fillna("").astype(str).to_numpy(str)
            made[column.name] = AstroColumn(text.astype(text.dtype if len(text) else "U1"), **told)
        elif column.kind == "count":
            there = values.isna().to_numpy()
            made[column.name] = MaskedColumn(
                values.fillna(0).to_numpy(np.int64), mask=there, **told
            )
        else:
            made[column.name] = AstroColumn(values.to_numpy(np.float64), **told)
    table = from_table(made)
    units = {c.name: c.units for c in catalogue.columns if c.kind in ("number", "count")}
    for field in table.get_first_table().fields:
        field._unit = None  # the units of this field are not all in astropy's list: kept as text
        if units.get(field.name):
            field.description = f"{field.description or field.name} [{units[field.name]}]"
    writeto(table, str(path))


def _frames(catalogue: Catalogue) -> Iterator[pd.DataFrame]:
    for batch in catalogue.batches():
        yield _plain(pa.table(batch))


def _plain(table: pa.Table) -> pd.DataFrame:
    """A frame of text and numbers: times as ISO 8601 to the millisecond, counts that may lack."""
    out = {}
    for name in table.column_names:
        values = table[name]
        if pa.types.is_timestamp(values.type):
            text = pc.strftime(values, format="%Y-%m-%dT%H:%M:%SZ")
            out[name] = text.to_pandas()
        elif pa.types.is_integer(values.type):
            out[name] = values.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        else:
            out[name] = values.to_pandas()
    return pd.DataFrame(out)
