from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terrella.sources import poes
from terrella.sources.sem2 import FLUX as VARIABLES
from terrella.sources.sem2 import NAMES
from terrella.tasks.precipitation.simulate import simulate
from terrella.tasks.precipitation.task import FLUX, INPUTS
from terrella.types import NoData, Record, Refused


def everything(path: Path) -> Record:
    file = poes.inspect(path)
    return poes.PoesSource((file,)).fetch(INPUTS, file.start, file.stop)


def test_what_is_written_is_read(record: Record, sem2: Callable[..., Path]) -> None:
    back = everything(sem2())
    assert back.keys() == record.keys()
    for name, values in record.items():
        if name == "ifc":
            continue  # given in one record of 16
        np.testing.assert_array_equal(back[name].to_numpy(), values.to_numpy())
        assert back[name].attrs["units"] == values.attrs["units"]
    np.testing.assert_array_equal(back["L"]["time"].to_numpy(), record["L"]["time"].to_numpy())
    assert back["L"].attrs["satellite"] == "n18"


def test_calibration_is_carried_forward(sem2: Callable[..., Path], replace: Callable) -> None:
    def on_from_record_100(values: np.ndarray) -> np.ndarray:
        given_ = np.where(np.arange(len(values)) % 16 == 6, 0, -1).astype("i1")
        given_[102] = 1
        return given_

    ifc = everything(sem2(replace("mep_IFC_on", on_from_record_100)))["ifc"].to_numpy()
    assert ifc[102:118].all() and not ifc[:102].any() and not ifc[118:].any()


def test_mlt_stays_hours_though_its_units_read_as_time(sem2: Callable[..., Path]) -> None:
    path = sem2()
    with h5py.File(path) as file:
        assert file["MLT"].attrs["units"] == b"hours"
    MLT = everything(path)["MLT"]
    assert MLT.dtype == np.float32
    assert float(MLT.min()) >= 0 and 20 < float(MLT.max()) <= 24


def test_only_what_is_asked_for_is_read(sem2: Callable[..., Path]) -> None:
    def spoil(file: h5py.File) -> None:
        del file["lat"]

    path = sem2(spoil)
    file = poes.inspect(path)
    fetched = poes.PoesSource((file,)).fetch(FLUX, file.start, file.stop)
    assert set(fetched) == {v.name for v in FLUX}
    with pytest.raises(Refused, match="lat"):
        poes.PoesSource((file,)).fetch(INPUTS, file.start, file.stop)


def damage_attributes(path: Path) -> None:
    """Overwrite the type of the file's title, as some archive files are damaged."""
    with h5py.File(path, "r+") as file:
        file.attrs["title"] = np.bytes_("POES/MetOp marker")
    raw = path.read_bytes()
    at = raw.index(b"POES/MetOp marker")
    name = raw.rindex(b"title\0", 0, at)
    path.write_bytes(raw[: name + 8] + b"\xff" * 8 + raw[name + 16 :])


def test_damaged_global_attributes_do_not_matter(record: Record, sem2: Callable[..., Path]) -> None:
    path = sem2()
    damage_attributes(path)
    with pytest.raises(Exception):  # noqa: B017 - whatever a common library makes of it
        xr.open_dataset(path, engine="h5netcdf", decode_timedelta=False).load()
    with pytest.warns(UserWarning, match="attributes are damaged"):
        back = everything(path)
    np.testing.assert_array_equal(back["e4_0"].to_numpy(), record["e4_0"].to_numpy())


def test_the_name_of_the_file_says_whose_it_is(sem2: Callable[..., Path]) -> None:
    with pytest.warns(UserWarning, match="its name says m01"):
        assert poes.inspect(sem2(name="poes_m01_20191024_proc.nc")).satellite == "m01"
    assert poes.inspect(str(sem2(name="half_a_day.nc"))).satellite == "n18"


def test_classic_netcdf_is_read_too(record: Record, tmp_path: Path) -> None:
    from scipy.io import netcdf_file

    path = tmp_path / "poes_n15_20020101_proc.nc"
    n = 100
    with netcdf_file(path, "w") as file:
        file.createDimension("record", n)
        time = record["L"]["time"].to_numpy()[:n].astype("M8[ms]").astype("i8").astype("f8")
        file.createVariable("time", "d", ("record",))[:] = time
        for name, there in NAMES.items():
            kind = "b" if name == "ifc" else "f"
            file.createVariable(there, kind, ("record",))[:] = record[name].to_numpy()[:n]
    back = everything(path)
    np.testing.assert_array_equal(back["e1_90"].to_numpy(), record["e1_90"].to_numpy()[:n])
    assert back["L"].attrs["satellite"] == "n15"


@pytest.mark.parametrize("value", [np.uint8(8), np.bytes_("N18"), np.zeros((0,), "u1")])
def test_an_odd_satellite_code_is_no_reason_to_refuse(
    sem2: Callable[..., Path], value: object
) -> None:
    def edit(file: h5py.File) -> None:
        del file["satID"]
        file["satID"] = value

    path = sem2(edit, name="half_a_day.nc")
    assert poes.inspect(path).satellite in ("n19", "unknown")


def test_units_of_time_are_read_or_refused(
    record: Record, sem2: Callable[..., Path], replace: Callable
) -> None:
    def seconds(file: h5py.File) -> None:
        replace("time", lambda t: t.astype(float) / 1000)(file)
        file["time"].attrs["units"] = "seconds since 1970-01-01 00:00:00"

    time = record["L"]["time"].to_numpy()
    assert poes.inspect(sem2(seconds)).start == time[0]
    unsaid = sem2(replace("time", lambda t: t.astype(float) / 1000))
    with pytest.raises(Refused, match="check units of time"):
        poes.inspect(unsaid)


def test_packed_variables_and_their_fills_are_unpacked(
    record: Record, sem2: Callable[..., Path]
) -> None:
    def pack(file: h5py.File) -> None:
        L = file["L_IGRF"][()]
        del file["L_IGRF"]
        file["L_IGRF"] = np.where(np.arange(len(L)) == 9, -32768, np.round(L * 100)).astype("i2")
        file["L_IGRF"].attrs["scale_factor"] = 0.01
        file["L_IGRF"].attrs["_FillValue"] = np.int16(-32768)
        file["mep_ele_tel0_flux_e4"].attrs["_FillValue"] = np.float32(181.81818)

    back = everything(sem2(pack))
    np.testing.assert_allclose(back["L"][20:], record["L"][20:], atol=0.006)
    assert back["L"][9] == -1.0
    assert not (back["e4_0"] == np.float32(181.81818)).any() and (back["e4_0"] == -999).any()


def test_unknown_places_are_undefined_not_refused(
    sem2: Callable[..., Path], replace: Callable
) -> None:
    def some(value: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda v: np.where(np.arange(len(v)) == 30, np.float32(value), v)

    def edit(file: h5py.File) -> None:
        for name, value in (("MLT", -1.0), ("lat", -999.0), ("lon", np.nan), ("L_IGRF", np.nan)):
            replace(name, some(value))(file)

    back = everything(sem2(edit))
    assert all(np.isnan(back[k][30]) for k in ("MLT", "lat", "lon")) and back["L"][30] == -1.0
    assert not np.isnan(back["lat"][31])


BAD = {
    "no E4": (lambda f: f.pop("mep_ele_tel0_flux_e4"), "mep_ele_tel0_flux_e4"),
    "no time": (lambda f: f.pop("time"), "time"),
    "no flux that is a number": ("mep_ele_tel0_flux_e3", lambda v: v * np.nan, "not a number"),
    "one NaN": ("mep_ele_tel0_flux_e3", lambda v: np.where(np.arange(len(v)) == 7, np.nan, v), "7"),
    "time steps back": ("time", lambda t: np.concatenate([t[:50], t[40:-10]]), "sample 50"),
    "time stands still": ("time", lambda t: np.where(np.arange(len(t)) == 9, t[8], t), "sample 9"),
    "time wraps": ("time", lambda t: t - np.uint64(2**63), "between 1957 and 2100"),
    "wild latitude": ("lat", lambda v: v + 200, "lat is"),
    "MLT in degrees": ("MLT", lambda v: v * 15, "MLT is"),
    "short variable": ("MLT", lambda v: v[:-5], "shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(
    case: str, sem2: Callable[..., Path], replace: Callable, quiet: None
) -> None:
    entry = BAD[case]
    edit = entry[0] if callable(entry[0]) else replace(entry[0], entry[1])
    path = sem2(edit)
    with pytest.raises(Refused) as refusal:
        everything(path)
    assert entry[-1] in str(refusal.value) and "\n" not in str(refusal.value)


def test_all_fills_are_refused(sem2: Callable[..., Path]) -> None:
    def fill(file: h5py.File) -> None:
        for name in VARIABLES.values():
            file[name][...] = -999.0

    with pytest.raises(Refused, match="every flux is a fill"):
        everything(sem2(fill))


def test_a_span_without_data_says_what_there_is(sem2: Callable[..., Path]) -> None:
    file = poes.inspect(sem2())
    year = np.timedelta64(365, "D")
    with pytest.raises(NoData, match="nothing between 2020") as refusal:
        poes.PoesSource((file,)).fetch(INPUTS, file.start + year, file.stop + year)
    assert "2019-10-24" in str(refusal.value)


def test_files_are_sorted_by_satellite_and_time(tmp_path: Path) -> None:
    paths = []
    for satellite in ("n19", "n18"):
        for day in ("2019-10-25", "2019-10-24"):
            made = simulate(seed=1, hours=0.2, start=day, satellite=satellite)
            name = f"poes_{satellite}_{day.replace('-', '')}_proc.nc"
            paths.append(poes.write(made, tmp_path / name, satellite))
    opened = poes.open_archive([*paths, paths[0]], join_days=True)
    assert [j.stem[5:17] for j in opened.jobs] == [
        "n18_20191024", "n18_20191025", "n19_20191024", "n19_20191025",
    ]  # fmt: skip
    copy = tmp_path / "poes_n18_20191024_again.nc"
    copy.write_bytes(paths[3].read_bytes())
    refused = poes.open_archive([*paths, copy], join_days=True).refused
    assert len(refused) == 1 and "same time" in refused[0].why


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_damage_crashes_the_reader(
    data: st.DataObject, record: Record, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any bytes changed or cut off: read, or refused in a line; never another exception."""
    path = tmp_path_factory.mktemp("fuzz") / "poes_n18_20191024_proc.nc"
    short = {k: v.isel(time=slice(0, 64)) for k, v in record.items()}
    raw = bytearray(poes.write(short, path).read_bytes())
    for _ in range(data.draw(st.integers(1, 40))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(raw), len(raw) // 2, len(raw) - 1, 8, 9]))
    path.write_bytes(bytes(raw[:cut]))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = everything(path)
        except Refused as refusal:
            assert "\n" not in str(refusal)
        else:
            assert set(found) >= {v.name for v in FLUX}
