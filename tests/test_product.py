"""Products on disk, in one piece and in many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from terrella import product as products
from terrella.types import Product

T0 = np.datetime64("2013-03-17", "ns")


def piece(first: int, size: int) -> Product:
    time = T0 + np.arange(first, first + size).astype("m8[m]")
    values = np.arange(first * 3, (first + size) * 3, dtype=np.float32).reshape(size, 3)
    values[0, 0] = np.nan
    series = xr.Dataset(
        {"p": (("time", "L"), values, {"units": "1"}), "n": ("time", np.arange(size, dtype="u1"))},
        coords={"time": time, "L": [4.0, 5.0, 6.0]},
    )
    events = pd.DataFrame({"start": [str(time[0])], "label": ["x"]})
    return Product(series, events, tables={"more": pd.DataFrame({"a": [first]})})


def test_pieces_make_the_whole(tmp_path: Path) -> None:
    parts = [piece(0, 4), piece(4, 3), piece(7, 5)]
    with products.Stream(tmp_path, "storm", "ech", grows=True) as stream:
        for part in parts:
            stream.add(part)
        assert not list(tmp_path.glob("storm*")), "nothing appears before it is whole"
        written = stream.close()
    assert [p.name for p in written] == ["storm.ech.nc", "storm.ech.csv", "more.csv"]
    back = products.read(written)
    whole = xr.concat([p.series for p in parts], "time", data_vars="minimal")
    for name in ("p", "n", "time"):
        np.testing.assert_array_equal(back.series[name], whole[name])
    assert back.events is not None and len(back.events) == 3
    assert pd.read_csv(written[2])["a"].tolist() == [0, 4, 7]
    back.series.close()


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        products.Stream(tmp_path, "storm", "ech", grows=True) as stream,
    ):
        stream.add(piece(0, 4))
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with products.Stream(tmp_path, "none", "ech") as stream:
        assert stream.close() == []


def test_tables_of_many_products_do_not_meet(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        with products.Stream(tmp_path, stem, "x", own_folder=True) as stream:
            stream.add(piece(0, 2))
            stream.close()
    assert (tmp_path / "a/more.csv").is_file() and (tmp_path / "b/more.csv").is_file()
