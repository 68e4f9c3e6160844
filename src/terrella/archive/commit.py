"""One product into a store: Parquet, NetCDF, CSV, and last the record that makes them count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from terrella import files
from terrella.archive.store import Broken, Store, read_json, write_json
from terrella.types import Column, Product, Refused

if TYPE_CHECKING:
    import pyarrow as pa

    from terrella.archive.units import Unit


def commit(
    store: Store, unit: Unit, product: Product, columns: Sequence[Column], about: dict[str, Any]
) -> dict[str, Any]:
    """Write a unit's files, then its record; then remove what it replaces.

    Args:
        store: where to.
        unit: whose product it is.
        product: its series is left out if None.
        columns: what the task says of its events.
        about: digest, identity and inputs, for the record.

    Returns:
        The record.

    Raises:
        Broken: the disk is full, or the store cannot be written.
    """
    record = store.record_of(unit)
    old = read_json(record)
    try:
        group = _group(product, columns)
        written, kinds = _write(store.path, unit, product, columns, group, about["digest"][:8])
        body = {
            "unit": unit.key,
            "start": str(unit.job.start.astype("datetime64[ms]")),
            "stop": str(unit.job.stop.astype("datetime64[ms]")),
            **about,
            "events": 0 if product.events is None else len(product.events),
            "columns": kinds,
            "group": group,
            "record": str(record.relative_to(store.path)),
            "files": {
                str(p.relative_to(store.path)): {
                    "size": p.stat().st_size, "sha256": files.sha256(p),
                }
                for p in written
            },
        }  # fmt: skip
        write_json(record, body)
        for name in old.get("files", {}).keys() - body["files"].keys():
            (store.path / name).unlink(missing_ok=True)
    except (Refused, OSError) as error:
        raise Broken(" ".join(str(error).split())) from error
    return body


def _write(
    root: Path, unit: Unit, product: Product, columns: Sequence[Column],
    group: dict[str, str], tag: str,
) -> tuple[list[Path], dict[str, str]]:  # fmt: skip
    from terrella.product import save_table, series_bytes

    where = Path(*(f"{k}={v}" for k, v in group.items()), f"year={unit.year}")
    written: list[Path] = []
    kinds: dict[str, str] = {}

    def put(path: Path, writer: Callable[[Path], object]) -> None:
        with files.whole(path) as scratch:
            writer(scratch)
        written.append(path)

    if product.events is not None and len(product.events):
        import pyarrow.parquet as pq

        table, kinds = arrow(product.events, columns)
        plain = table.drop_columns(list(group))  # its folder says it
        put(
            root / "events" / where / f"{unit.key}-{tag}.parquet",
            lambda scratch: pq.write_table(plain, scratch, compression="zstd"),
        )
    if product.series.sizes:
        put(
            root / "series" / where / f"{unit.key}-{tag}.nc",
            lambda scratch: scratch.write_bytes(series_bytes(product.series)),
        )
    for name, extra in product.tables.items():
        path = root / "tables" / name / where / f"{unit.key}-{tag}.csv"
        save_table(extra, path)
        written.append(path)
    return written, kinds


def _group(product: Product, columns: Sequence[Column]) -> dict[str, str]:
    """The column that divides the catalogue and its value, where a unit has one value."""
    for name in (c.name for c in columns if c.group):
        value = str(product.series.attrs.get(name, ""))
        events = product.events
        one = events is None or not len(events) or bool((events[name] == value).all())
        if value and one and not set("/\\=.") & set(value):
            return {name: value}
    return {}


def arrow(events: pd.DataFrame, columns: Sequence[Column]) -> tuple[pa.Table, dict[str, str]]:
    """Events as a table whose types do not depend on what this unit happens to hold.

    A column the task says nothing of is a number if its values are, and text otherwise.

    Returns:
        The table and the kind of each column.
    """
    import pyarrow as pa

    said = {c.name: c.kind for c in columns}
    arrays: dict[str, pa.Array] = {}
    kinds: dict[str, str] = {}
    for name, values in events.items():
        numeric = pd.api.types.is_numeric_dtype(values)
        kind = kinds[str(name)] = said.get(str(name)) or ("number" if numeric else "text")
        if kind == "time":
            when = pd.to_datetime(values.replace("", None), utc=True, format="ISO8601")
            naive = when.dt.tz_localize(None).to_numpy("datetime64[ms]")
            arrays[str(name)] = pa.array(naive, arrow_type(kind), mask=np.isnat(naive))
        elif kind == "text":
            arrays[str(name)] = pa.array(values.fillna("").astype(str).tolist(), pa.string())
        else:
            number = pd.to_numeric(values.replace("", None), errors="coerce")
            arrays[str(name)] = pa.array(
                number.astype("float64").to_numpy(), pa.float64(), from_pandas=True
            ).cast(arrow_type(kind))
    return pa.table(arrays), kinds


def arrow_type(kind: str) -> pa.DataType:
    """How a kind of column is stored."""
    import pyarrow as pa

    return {
        "time": pa.timestamp("ms", tz="UTC"), "text": pa.string(),
        "number": pa.float64(), "count": pa.int64(),
    }[kind]  # fmt: skip
