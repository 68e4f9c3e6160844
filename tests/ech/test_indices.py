"""Readers of index files: every format, flags, gaps, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terrella.sources.geomagnetic import (
    BRIDGED,
    HOURLY,
    PROVISIONAL,
    SUBSTITUTE,
    by_minute,
    merge,
    read_indices,
)
from terrella.types import Refused

START = np.datetime64("2013-03-17T00:00", "ns")
HOUR = [10, -3, 99999, *range(57)]


def _wdc(kind: str, values: list[int], edition: str, name: str = "") -> str:
    head = {"AE": "AEALAOAU    ", "SYM": "ASYSYM N6E01"}[kind[:3].strip()]
    part = "E" if kind == "AE" else "H"
    body = "".join(f"{v:6d}" for v in [*values, 0])
    return f"{head}130317{part}05{(name or kind):3s}{edition:10s}{body}"


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_wdc_minutes_and_provisional(tmp_path: Path) -> None:
    ae = [abs(v) for v in HOUR]
    lines = [_wdc("AE", ae, "PRVAE/E02"), _wdc("SYM", HOUR, "WDCC2KYOTO"),
             _wdc("SYM", HOUR, "WDCC2KYOTO", "ASY")]  # fmt: skip
    both = read_indices(_write(tmp_path / "wdc.txt", "\n".join(lines) + "\n"))
    assert set(both) == {"AE", "SYM_H"}
    assert both["SYM_H"]["time"].values[0] == np.datetime64("2013-03-17T05:00")
    assert np.isnan(both["SYM_H"].values[2]) and both["SYM_H"].values[1] == -3
    assert (both["AE"]["flag"].values == PROVISIONAL).all()
    assert (both["SYM_H"]["flag"].values == 0).all()
    assert both["AE"].attrs["cadence"] == 60.0 and both["AE"].attrs["units"] == "nT"


def test_wdc_hours(tmp_path: Path) -> None:
    hours = "".join(f"{v:4d}" for v in [-5] * 23 + [9999])
    text = f"DST1303*17RRX020   0{hours}{-5:4d}\n" * 2
    found = read_indices(_write(tmp_path / "dst.txt", text.replace("*17", "*18", 1)))["DST"]
    assert found.attrs["cadence"] == 3600.0
    assert found.values[0] == -5 and np.isnan(found.values[23])
    assert (found["flag"].values == PROVISIONAL).all()


def test_iaga(tmp_path: Path) -> None:
    rows = [
        f"2013-03-17 00:{m:02d}:00.000 076    {100 + m:7.2f} 88888.00 -50.00 20.00"
        for m in range(5)
    ]
    rows[3] = rows[3].replace("103.00", "99999.00")
    text = "\n".join([" Format                 IAGA-2002                |",
                      " Data Type              Provisional              |",
                      "DATE       TIME         DOY     AE  AU  AL  AO   |", *rows])  # fmt: skip
    found = read_indices(_write(tmp_path / "ae.iaga", text))["AE"]
    assert found.values[0] == 100 and np.isnan(found.values[3])
    assert (found["flag"].values == PROVISIONAL).all()


def test_supermag(tmp_path: Path) -> None:
    rows = [f"2013-03-17T00:{m:02d}:00,{40 + m},{-60 - m}" for m in range(6)]
    found = read_indices(_write(tmp_path / "s.csv", "Date_UTC,SMU,SML\n" + "\n".join(rows)))["SME"]
    np.testing.assert_array_equal(found.values, 100 + 2 * np.arange(6))
    text = "words\n<year> <month> <day> <hour> <min> <sec> <SME (nT)>\n" + "\n".join(
        f"2013 3 17 0 {m} 0 {999999 if m == 2 else 150}" for m in range(6)
    )
    found = read_indices(_write(tmp_path / "s.txt", text))["SME"]
    assert np.isnan(found.values[2]) and found.values[1] == 150


def test_omni_ascii(tmp_path: Path) -> None:
    def row(minute: int, width: int) -> str:
        cells = ["2013", "76", "0", str(minute), *["9999"] * (width - 4)]
        cells[37], cells[41] = str(200 + minute), str(-minute)
        return " ".join(cells)

    found = read_indices(
        _write(tmp_path / "omni_min2013.asc", "\n".join(row(m, 46) for m in range(9)))
    )
    assert found["AE"].values[3] == 203 and found["SYM_H"].values[8] == -8
    lines = "\n".join(f"2013  76  0 {m:2d} {-m:6d} {m:6d}" for m in range(9))
    plain = _write(tmp_path / "list.lst", lines)
    with pytest.raises(Refused, match="--columns"):
        read_indices(plain)
    assert read_indices(plain, ("SYM/H", "AE"))["AE"].values[4] == 4
    (tmp_path / "list.fmt").write_text(
        " FORMAT OF THE SUBSETTED FILE\n\n 1 YEAR  I4\n 2 DOY  I4\n 3 Hour  I3\n 4 Minute  I3\n"
        " 5 SYM/H, nT  I6\n 6 AE-index, nT  I6\n"
    )
    assert read_indices(plain)["SYM_H"].values[4] == -4


def test_minutes_from_an_origin(tmp_path: Path) -> None:
    text = "minute,SME_nT,SYM_H_nT\n" + "\n".join(f"{m},{m + 100},-5" for m in range(-3, 3))
    found = read_indices(_write(tmp_path / "m.csv", text), origin=START)
    assert found["SME"]["time"].values[0] == START - np.timedelta64(3, "m")


def test_the_better_value_wins_and_ae_stands_in(tmp_path: Path) -> None:
    def table(name: str, first: int, value: int) -> Path:
        rows = [f"2013-03-17T00:{m:02d},{value},-5" for m in range(first, first + 10)]
        return _write(tmp_path / f"{name}.csv", f"time,{name},SYM-H (nT)\n" + "\n".join(rows))

    found = merge([table("AE", 0, 90), table("SME", 5, 120)])["SME"]
    np.testing.assert_array_equal(found.values, [90] * 5 + [120] * 10)
    np.testing.assert_array_equal(found["flag"].values, [SUBSTITUTE] * 5 + [0] * 10)


def _series(values: list[float], cadence: float = 60.0) -> xr.DataArray:
    step = np.timedelta64(int(cadence), "s")
    keep = ~np.isnan(values)
    time = (START + np.arange(len(values)) * step)[keep]
    coords = {"time": time, "flag": ("time", np.zeros(len(time), np.uint8))}
    return xr.DataArray(
        np.array(values)[keep], coords, "time", "SME", {"cadence": cadence, "source": "x"}
    )


def test_gaps_are_bridged_up_to_a_length() -> None:
    nan = np.nan
    value, flag = by_minute(_series([1, nan, nan, 4, nan, nan, nan, 8]), START, 8, bridge=2)
    np.testing.assert_allclose(value[:4], [1, 2, 3, 4])
    assert np.isnan(value[4:7]).all() and value[7] == 8
    np.testing.assert_array_equal(flag, [0, BRIDGED, BRIDGED, 0, 0, 0, 0, 0])


def test_cadence() -> None:
    value, _ = by_minute(_series([1, 2], 300.0), START, 10, bridge=0)
    np.testing.assert_array_equal(value, [1] * 5 + [2] * 5)
    for cadence in (600.0, 3600.0):
        with pytest.raises(Refused, match=f"every {cadence / 60:g} min"):
            by_minute(_series([1, 2, 3], cadence), START, 10, bridge=0)
    value, flag = by_minute(_series([1, 2], 3600.0), START, 120, bridge=0, hourly=True)
    assert value[59] == 1 and value[60] == 2 and (flag == HOURLY).all()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("time,SME,SYM_H\n2013-03-17T00:00,5,1\n2013-03-17T00:01,-35,1\n", "SME is -35 nT"),
        ("time,SME,SYM_H\n2013-03-17T00:00,5,1\n", "needs more"),
        ("time,SYM_D\n2013-03-17T00:00,5\n", "no index file"),
        ("time,SME\nnever,5\nnever,6\n", "damaged or no index file"),
        ("2013 76 0 0 1\n2013 76 0\n", "damaged|cut short"),
        ("AEALAOAU    nonsense\n", "line 1"),
        ("\x00\x01binary", "neither CDF nor text"),
    ],
)
def test_refusals_are_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = _write(tmp_path / "ae.csv", text)
    with pytest.raises(Refused, match=why) as refusal:
        read_indices(path)
    assert "ae.csv" in str(refusal.value) and "\n" not in str(refusal.value)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    head=st.sampled_from(
        [b"", b"AEALAOAU    130317E05AE ", b"ASYSYM N6E01", b"DST1303*17RRX020   0",
         b"\xcd\xf3\x00\x01",
         b" Format IAGA-2002|\nDATE TIME DOY AE|\n", b"2013 76 0 0 ", b"time,SME\n", b"\x1f\x8b",
         b"<year> <month> <day> <hour> <min> <sec> <SME (nT)>\n", b"minute,SME\n"]
    ),
    body=st.one_of(
        st.binary(max_size=200), st.text("0123456789 -.,:T\n", max_size=200).map(str.encode)
    ),
)  # fmt: skip
def test_any_bytes_are_read_or_refused(tmp_path: Path, head: bytes, body: bytes) -> None:
    path = tmp_path / "fuzz.csv"
    path.write_bytes(head + body)
    try:
        for series in read_indices(path).values():
            assert series.attrs["units"] == "nT"
    except Refused as refusal:
        assert "\n" not in str(refusal)


@pytest.mark.realdata
def test_real_files(realdata: Path) -> None:
    five = read_indices(realdata / "indices/omni_hro2_5min_20130501_v01.cdf")
    assert five["SYM_H"].attrs["cadence"] == 300.0 and five["SYM_H"].sizes["time"] == 8928
    assert (five["AE"]["flag"].values == PROVISIONAL).all()
    one = read_indices(realdata / "indices/omni_1min_symh_20130316_20130320.lst")["SYM_H"]
    assert one.attrs["cadence"] == 60.0 and float(one.min()) == -132.0
    hour = read_indices(realdata / "indices/omni2_2013.dat.gz")
    assert hour["DST"].attrs["cadence"] == 3600.0 and hour["AE"].sizes["time"] == 8760


def test_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"time,SME\n" * 100)[:-20])
    with pytest.raises(Refused, match="damaged gzip"):
        read_indices(path)
