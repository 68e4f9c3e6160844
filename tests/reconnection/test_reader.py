from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cdflib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terrella.sources import mms, mms_cdf, mms_variables
from terrella.sources.mms_write import utc_to_tt2000, write
from terrella.tasks.reconnection.task import INPUTS
from terrella.types import NoData, Refused

LO, HI = np.datetime64("2017-07-11T22:00", "ns"), np.datetime64("2017-07-11T23:00", "ns")


def fetch(folder: Path, probes: str = "1", **more: Any) -> dict[str, Any]:
    found, refused = mms.index([folder])
    assert not refused
    return mms.MmsFiles(found, tuple(probes), **more).fetch(mms_variables.variables(), LO, HI)


def test_vocabulary_of_task_and_reader_agree() -> None:
    told = {v.name: v for v in INPUTS}
    for v in mms_variables.variables():
        assert (told[v.name].units, told[v.name].shape) == (v.units, v.shape)
        assert told[v.name].required == v.required


def test_tt2000_as_the_cdf_library_converts_it() -> None:
    utc = np.array(
        ["2015-06-30T23:59:59.999", "2015-07-01", "2016-12-31T23:59:59",
         "2017-01-01T00:00:00.000000001",
         "2020-08-29T09:55:00.123456789", "1999-06-01"], "M8[ns]")  # fmt: skip
    epoch = utc_to_tt2000(utc)
    np.testing.assert_array_equal(mms_cdf.tt2000_to_utc(epoch), utc)
    np.testing.assert_array_equal(cdflib.cdfepoch.to_datetime(epoch), utc)
    assert np.isnat(mms_cdf.tt2000_to_utc(np.array([-(2**63)]))).all()


def test_what_is_written_is_read(record: dict[str, Any], scene: Path) -> None:
    found = fetch(scene, "12")
    for name in (n for n in record if n.startswith("mms") and not n.endswith("truth")):
        np.testing.assert_array_equal(found[name].values, record[name].values, err_msg=name)
        np.testing.assert_array_equal(found[name]["time"].values, record[name]["time"].values)
        assert found[name].attrs["units"] == record[name].attrs["units"]
        assert found[name].attrs["centre_s"] == pytest.approx(record[name].attrs["centre_s"])
    assert found["mms1_ne"].attrs["centre_s"] == pytest.approx(0.015)
    assert found["mms1_ni"].attrs["centre_s"] == pytest.approx(0.075)
    assert found["b"] is found["mms1_b"]


def test_only_the_span_is_read(record: dict[str, Any], scene: Path) -> None:
    found, _ = mms.index([scene])
    lo, hi = np.datetime64("2017-07-11T22:33:05", "ns"), np.datetime64("2017-07-11T22:33:06", "ns")
    part = mms.MmsFiles(found, ("1",)).fetch(mms_variables.variables(), lo, hi)
    for array in part.values():
        assert lo <= array["time"].values[0] and array["time"].values[-1] < hi
    assert part["mms1_e"].sizes["time"] == 1024


def test_fills_and_flags(record: dict[str, Any], tmp_path: Path) -> None:
    spoiled = {k: v.copy(deep=True) for k, v in record.items() if k.startswith("mms1")}
    spoiled["mms1_b"].values[5] = np.nan  # written as the fill value
    spoiled["mms1_flags_e"].values[7] = 1 << 7
    spoiled["mms1_flags_e"].values[8] = 1 << 4  # a warning, not a fault
    write(spoiled, tmp_path)
    found = fetch(tmp_path)
    assert (
        np.isnan(found["mms1_b"].values[5]).all() and np.isfinite(found["mms1_b"].values[6]).all()
    )
    assert np.isnan(found["mms1_ne"].values[7]) and np.isfinite(found["mms1_ne"].values[8])
    assert np.isfinite(fetch(tmp_path, keep_flagged=True)["mms1_ne"].values[7])


def test_archive_layout_versions_and_foreign_files(scene: Path, tmp_path: Path) -> None:
    for path in scene.glob("mms1*.cdf"):
        group, rate = path.name.split("_")[1:3]
        folder = tmp_path / "mms1" / group / rate / "l2" / "2017" / "07"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
        if group == "fgm":  # an older version of the same file, damaged: never opened for data
            shutil.copy(path, folder / path.name.replace("v5.97.0", "v5.9.0"))
    other = tmp_path / "mms1" / "fpi" / "mms1_fpi_brst_l2_des-dist_20170711223300_v3.4.0.cdf"
    other.write_bytes(b"not opened")
    found, refused = mms.index([tmp_path])
    assert not refused
    assert [f.version for f in found if "fgm" in f.path.name] == [(5, 97, 0)]
    assert fetch(tmp_path)["mms1_b"].sizes["time"] > 3000


def test_two_files_that_overlap_are_joined(record: dict[str, Any], tmp_path: Path) -> None:
    mine = {k: v for k, v in record.items() if k.startswith("mms1")}
    write({k: v.isel(time=slice(None, 2 * len(v) // 3)) for k, v in mine.items()}, tmp_path)
    write({k: v.isel(time=slice(len(v) // 3, None)) for k, v in mine.items()}, tmp_path)
    found = fetch(tmp_path)
    for name in ("mms1_ne", "mms1_b", "mms1_pi"):
        np.testing.assert_array_equal(found[name].values, record[name].values)


@pytest.mark.parametrize(
    ("glob", "said"),
    [("*fgm*", "FGM"), ("*edp_brst*", "EDP"), ("*dis-moms*", "DIS"), ("*des-moms*", "DES")],
)
def test_a_missing_instrument_is_named(scene: Path, tmp_path: Path, glob: str, said: str) -> None:
    for path in scene.glob("mms1*.cdf"):
        shutil.copy(path, tmp_path)
    next(tmp_path.glob(glob)).unlink()
    with pytest.raises(NoData, match=f"MMS1 {said} is missing") as caught:
        fetch(tmp_path)
    assert "\n" not in str(caught.value) and ".cdf" in str(caught.value)


def test_no_data_in_the_span_says_what_there_is(scene: Path) -> None:
    found, _ = mms.index([scene])
    day = np.timedelta64(1, "h")
    with pytest.raises(NoData, match=r"no data in .*hold 2017-07-11T22:33:00.* to "):
        mms.MmsFiles(found, ("1",)).fetch(mms_variables.variables(), HI, HI + day)


def test_survey_names(record: dict[str, Any], tmp_path: Path) -> None:
    """The same data under fast and srvy names are read with rate='fast'."""
    out = cdflib.cdfwrite.CDF(tmp_path / "b.cdf")
    spec = {"Data_Type": 33, "Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": []}
    epoch = utc_to_tt2000(record["mms1_b"]["time"].values)
    out.write_var({"Variable": "Epoch", **spec}, {}, epoch)
    four = np.column_stack([record["mms1_b"].values, np.ones(len(epoch))]).astype(np.float32)
    out.write_var(
        {"Variable": "mms1_fgm_b_gse_srvy_l2", **spec, "Data_Type": 21, "Dim_Sizes": [4]},
        {"DEPEND_0": "Epoch", "UNITS": "nT"}, four,
    )  # fmt: skip
    out.close()
    found, _ = mms.index([tmp_path])
    only = [v for v in mms_variables.variables("fast") if v.name == "b"]
    got = mms.MmsFiles(found, ("1",), "fast").fetch(only, LO, HI)
    np.testing.assert_array_equal(got["b"].values, record["mms1_b"].values)


def test_a_wrong_unit_is_refused(record: dict[str, Any], tmp_path: Path) -> None:
    out = cdflib.cdfwrite.CDF(tmp_path / "b.cdf")
    spec = {"Data_Type": 33, "Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": []}
    out.write_var({"Variable": "Epoch", **spec}, {}, utc_to_tt2000(record["mms1_b"]["time"].values))
    out.write_var(
        {"Variable": "mms1_fgm_b_gse_brst_l2", **spec, "Data_Type": 21, "Dim_Sizes": [3]},
        {"DEPEND_0": "Epoch", "UNITS": "T"}, record["mms1_b"].values,
    )  # fmt: skip
    out.close()
    found, _ = mms.index([tmp_path])
    only = [v for v in mms_variables.variables() if v.name == "b"]
    with pytest.raises(Refused, match="is in 'T', expected 'nT'"):
        mms.MmsFiles(found, ("1",)).fetch(only, LO, HI)


def test_a_renamed_file_of_another_probe_is_refused(scene: Path, tmp_path: Path) -> None:
    path = next(scene.glob("mms2_fgm*"))
    shutil.copy(path, tmp_path / path.name.replace("mms2", "mms1"))
    _, refused = mms.index([tmp_path])
    assert len(refused) == 1 and "named as MMS1 but holds data of MMS2" in refused[0][1]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_files_are_refused_and_never_crash(
    scene: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    body = bytearray(next(scene.glob("mms1_fgm*")).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        # Early bytes hold the directory: that is where damage hurts.
        where = data.draw(st.one_of(st.integers(0, 4000), st.integers(0, len(body) - 1)))
        body[where] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(body))))
    path = tmp_path_factory.mktemp("damaged") / "some.cdf"
    path.write_bytes(bytes(body[:cut]))
    only = [v for v in mms_variables.variables() if v.name == "b"]
    try:
        found, refused = mms.index([path])
        if refused:
            assert all("\n" not in why for _, why in refused)
            return
        mms.MmsFiles(found, ("1",)).fetch(only, LO, HI)
    except Refused as refusal:
        assert "\n" not in str(refusal)


@pytest.mark.realdata
def test_the_real_fpi_file(realdata: Path) -> None:
    path = next((realdata / "reconnection").glob("mms1_fpi_fast_l2_dis-moms_*.cdf"))
    found, refused = mms.index([path])
    assert not refused
    only = [
        v
        for v in mms_variables.variables("fast")
        if mms_variables.QUANTITIES[v.name].instrument == "DIS"
    ]
    lo, hi = np.datetime64("2015-10-17T12:00", "ns"), np.datetime64("2015-10-17T14:00", "ns")
    got = mms.MmsFiles(found, ("1",), "fast").fetch(only, lo, hi)
    cdf = cdflib.CDF(path)
    np.testing.assert_array_equal(
        got["ni"]["time"].values, cdflib.cdfepoch.to_datetime(cdf["Epoch"])
    )
    assert got["ni"]["time"].values[0] == np.datetime64("2015-10-17T12:00:01.418054")
    assert got["ni"].attrs["centre_s"] == pytest.approx(2.25)
    assert got["pi"].shape == (1600, 3, 3) and got["pi"].attrs["units"] == "nPa"
    np.testing.assert_array_equal(got["pi"].values, cdf["mms1_dis_prestensor_gse_fast"])
    np.testing.assert_array_equal(got["pi"].values, got["pi"].values.transpose(0, 2, 1))
    assert float(got["ni"][0]) == pytest.approx(28.89603)
    # The file's own temperature is P/n: units and order of the tensor fit together.
    from terrella.tasks.reconnection import physics

    own = cdf["mms1_dis_temptensor_gse_fast"].astype(float)
    mine = got["pi"].values.astype(float) / got["ni"].values[:, None, None] * physics.EV
    np.testing.assert_allclose(mine, own, rtol=2e-3, atol=0.5)
    # One sample's correction, by hand from the file's numbers.
    n, bg = float(got["ni"][0]), float(got["ni_bg"][0])
    v, p = got["vi"].values[0].astype(float), got["pi"].values[0].astype(float)
    left = n - bg
    wanted = p + 1.67262192e-6 * (n * np.outer(v, v) - left * np.outer(v * n / left, v * n / left))
    wanted -= float(got["pi_bg"][0]) * np.eye(3)
    fixed = physics.without_background(
        *(got[k].values for k in ("ni", "vi", "pi", "ni_bg", "pi_bg"))
    )
    np.testing.assert_allclose(fixed.pressure[0], wanted, rtol=1e-6)
    np.testing.assert_allclose(fixed.velocity[0], v * n / left, rtol=1e-6)
