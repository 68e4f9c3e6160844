"""Named columns, and the live archive through a local stand-in."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from terrella.sources import mms_variables
from terrella.sources.cdaweb import CdaWeb
from terrella.sources.mms_table import NETWORK, Tables, read_table
from terrella.tasks.reconnection.prepare import prepare
from terrella.tasks.reconnection.task import Options, Recipe
from terrella.types import NoData, Refused

LO, HI = np.datetime64("2017-07-11T22:33:00", "ns"), np.datetime64("2017-07-11T22:34:00", "ns")


def as_table(record: dict[str, Any], name: str) -> pd.DataFrame:
    array = record[f"mms1_{name}"]
    columns = {"time": array["time"].values}
    for place in np.ndindex(*array.shape[1:]):
        axes = "".join("xyz"[k] for k in place)
        columns[f"{name}_{axes}" if axes else name] = array.values[(slice(None), *place)]
    return pd.DataFrame(columns)


@pytest.mark.parametrize("kind", ["csv", "nc", "nc-components"])
def test_named_columns_make_the_same_features(
    record: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    read: dict[str, Any] = {}
    centred = {k: v.copy() for k, v in record.items() if k.startswith("mms1")}
    for v in centred.values():  # columns are taken at their times
        v.attrs["centre_s"] = 0.0
    for name in ("b", "e", "ni", "vi", "pi", "ne", "ve", "pe"):
        path = tmp_path / f"{name}.{kind[:3].rstrip('-')}"
        if kind == "csv":
            as_table(record, name).to_csv(path, index=False, float_format="%.9g")
        elif kind == "nc":
            xr.Dataset({name: record[f"mms1_{name}"]}).to_netcdf(
                path,
                engine="h5netcdf",
                encoding={"time": {"units": "nanoseconds since 1970-01-01"}},
            )
        else:
            table = as_table(record, name).set_index("time").to_xarray()
            table.to_netcdf(
                path,
                engine="h5netcdf",
                encoding={"time": {"units": "nanoseconds since 1970-01-01"}},
            )
        read |= read_table(path)
    for name in ("ni_bg", "pi_bg"):  # a table may leave the background out; then there is none
        centred[f"mms1_{name}"].values[:] = 0
    options = Options(b0=15.0, n0=0.3)
    if kind == "nc":  # which keeps the offset to the centre
        for name in ("ne", "ni"):
            assert (
                read[f"mms1_{name}"].attrs["centre_s"] == record[f"mms1_{name}"].attrs["centre_s"]
            )
        return
    wanted = prepare({k: v for k, v in centred.items() if "e_fast" not in k}, Recipe(), options)
    with pytest.warns(UserWarning, match="background .* is absent"):
        got = prepare(read, Recipe(), options)
    np.testing.assert_allclose(got.x["features"], wanted.x["features"], rtol=1e-4, atol=1e-5)


def test_one_csv_may_mix_clocks_and_probes(tmp_path: Path) -> None:
    text = (
        "time, mms2_ne [cm^-3], ni\n2017-07-11T22:33:00.00Z, 1,\n2017-07-11T22:33:00.03Z, 2,\n"
        "2017-07-11T22:33:00.05Z,, 5\n"
    )
    (tmp_path / "a.csv").write_text(text)
    read = read_table(tmp_path / "a.csv", "3")
    assert read["mms2_ne"].values.tolist() == [1, 2] and read["mms3_ni"].values.tolist() == [5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "has no 'time' column"),
        ("time,foo\n2017-01-01,2\n", "no column is known"),
        ("time,ne [m-3]\n2017-01-01,2\n", "is in 'm-3', expected 'cm-3'"),
        ("time,b_x,b_y\n2017-01-01,2,3\n", "lacks its component mms1_b_z"),
        ("time,ne\nnot a time,2\n", "time cannot be read"),
        ("time,ne\n0,2\n1,2\n", "time cannot be read .plain numbers"),
        ("", "is empty"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(Refused, match=said) as caught:
        read_table(tmp_path / "t.csv")
    assert "t.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_normalised_inputs_are_read_as_the_original_writes_them(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(70, 14)).astype(np.float32)
    table = pd.DataFrame(features, columns=list(NETWORK))
    table.to_csv(tmp_path / "mms2_nndata.csv")
    np.savez(tmp_path / "f.npz", features=features)
    for name, key in (("mms2_nndata.csv", "mms2_features"), ("f.npz", "mms1_features")):
        read = read_table(tmp_path / name)
        np.testing.assert_allclose(read[key].values, features, rtol=1e-6)
        with pytest.warns(UserWarning, match="has no times; its rows are dated from 2000-01-01"):
            windows = prepare(read, Recipe(kind="waters2025"), Options())
        np.testing.assert_allclose(windows.x["features"][:, 31], features, rtol=1e-6)
    np.savez(tmp_path / "g.npz", features=features[:, :3])
    with pytest.raises(Refused, match="needs an array 'features'"):
        read_table(tmp_path / "g.npz")


def test_tables_hold_only_what_they_hold(record: dict[str, Any]) -> None:
    with pytest.raises(NoData, match="hold nothing between"):
        Tables({"mms1_ne": record["mms1_ne"]}).fetch((), HI, HI + np.timedelta64(1, "s"))


class StandIn:
    """Answers as speasy's ``get_data`` does: a variable with time, values, unit, or None."""

    def __init__(self, record: dict[str, Any], lacking: str = "") -> None:
        self.record, self.lacking, self.asked = record, lacking, [""]

    def __call__(self, product: str, start: datetime, stop: datetime) -> Any:
        self.asked.append(product)
        _, dataset, name = product.split("/")
        if self.lacking and self.lacking in dataset:
            return None
        for key, q in mms_variables.QUANTITIES.items():
            rate = "fast" if key == "e_fast" else "brst"
            if q.pattern.format(p="1", r=rate) == name:
                array = self.record[f"mms1_{key}"]
                values = array.values.reshape(array.shape[0], *(array.shape[1:] or (1,)))
                if key == "b":  # the archive has |B| in a fourth column
                    values = np.column_stack([values, np.linalg.norm(values, axis=1)])
                values = values.copy()
                if key == "ne":
                    values[3] = -1e31
                unit = {"cm-3": "cm^-3", "km s-1": "km/s", "mV m-1": "mV/m"}.get(q.units, q.units)
                return SimpleNamespace(time=array["time"].values, values=values, unit=unit,
                                       meta={"FILLVAL": np.float32(-1e31)})  # fmt: skip
        raise KeyError(product)


def test_the_live_source_gives_the_same_record(record: dict[str, Any]) -> None:
    stand_in = StandIn(record)
    got = CdaWeb(("1",), get=stand_in).fetch(mms_variables.variables(), LO, HI)
    assert "cda/MMS1_FGM_BRST_L2/mms1_fgm_b_gse_brst_l2" in stand_in.asked
    assert "cda/MMS1_EDP_FAST_L2_DCE/mms1_edp_dce_gse_fast_l2" in stand_in.asked
    for key, array in got.items():
        if not key.startswith("mms1") or key == "mms1_ne":
            continue
        np.testing.assert_array_equal(array.values, record[key].values, err_msg=key)
        assert array.attrs["units"] == record[key].attrs["units"]
        assert array.attrs["centre_s"] == pytest.approx(record[key].attrs["centre_s"])
    assert np.isnan(got["ne"].values[3]) and np.isfinite(got["ne"].values[4])
    prepare(got, Recipe(), Options(b0=15.0, n0=0.3))


def test_the_live_source_refuses_in_one_line(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoData, match="MMS1 DES: CDAWeb has no burst data in 2017-07-11"):
        CdaWeb(("1",), get=StandIn(record, "DES-MOMS")).fetch(mms_variables.variables(), LO, HI)

    def broken(*_: Any) -> Any:
        raise ConnectionError("no route\nto host")

    with pytest.raises(Refused, match="could not be read") as caught:
        CdaWeb(("1",), get=broken).fetch(mms_variables.variables(), LO, HI)
    assert "\n" not in str(caught.value)
    with pytest.raises(Refused, match="no more than two hours"):
        CdaWeb(("1",), get=broken).fetch(mms_variables.variables(), LO, LO + np.timedelta64(3, "h"))
    monkeypatch.setitem(sys.modules, "speasy", None)
    with pytest.raises(Refused, match="pip install"):
        CdaWeb(("1",)).fetch(mms_variables.variables(), LO, HI)
