"""Magnetometer readers: both ways, all variants, and what must be refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terrella.sources import frg604rc, iaga2002
from terrella.sources.magnetogram import Magnetogram, to_hdz
from terrella.sources.magnetometer import Reading, read, sniff
from terrella.tasks.precursor.quality import FLAGS, even
from terrella.types import NoData, Refused

DAY = np.datetime64("2020-03-04T00:00:00", "ns")
LEVEL = {"H": 38_000.0, "D": 120.0, "Z": -25_000.0}


def smooth(n: int, names: str = "HDZ", seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        k: np.round(LEVEL.get(k, 1000.0) + np.cumsum(random.normal(0, 0.05, n)), 2) for k in names
    }


def clock(n: int) -> np.ndarray:
    return DAY + np.arange(n) * np.timedelta64(1, "s")


@pytest.mark.parametrize("crlf", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("names", ["HDZF", "XYZF", "EHZF", "DHZF"])
def test_iaga_round_trip(tmp_path: Path, names: str, crlf: bool, packed: bool) -> None:
    values = smooth(700, names)
    values["H" if "H" in names else "X"][3:9] = np.nan
    text = iaga2002.render("TST", clock(700), values, 1.5, 100.25, crlf=crlf)
    path = tmp_path / "tst20200304vsec.sec"
    path.write_bytes(gzip.compress(text) if packed else text)
    raw = read(path)
    assert raw.station == "TST" and raw.cadence == 1.0
    assert raw.latitude == 1.5 and raw.longitude == 100.25
    np.testing.assert_array_equal(raw.time, clock(700))
    for name in names:
        np.testing.assert_allclose(raw.values[name], values[name], atol=1e-9)
        assert raw.units[name] == ("arcmin" if name == "D" else "nT")


@pytest.mark.parametrize("fill", ["99999.00", "99999.99", "88888.00", "88888"])
def test_iaga_missing_values(fill: str) -> None:
    text = iaga2002.render("TST", clock(20), smooth(20)).decode()
    line = text.splitlines()[-1]
    text = text.replace(line, line[:-10] + f"{fill:>10}")
    raw = iaga2002.parse(text.encode())
    assert np.isnan(raw.values["Z"][-1]) and not np.isnan(raw.values["Z"][:-1]).any()


def test_iaga_free_columns_and_minutes() -> None:
    text = "DATE TIME DOY ABCX ABCY ABCZ |\n" + "".join(
        f"2020-03-04 00:{m:02d}:00.000 064 {39000 + m}.5 {600 - m} -2000.25\n" for m in range(50)
    )
    header = " Format IAGA-2002 |\n" * 3
    raw = iaga2002.parse((header + text).encode())
    assert raw.cadence == 60.0 and raw.station == "ABC"
    assert raw.values["X"][7] == 39007.5 and raw.values["Y"][7] == 593.0


def test_frg_round_trip_and_scaling(tmp_path: Path) -> None:
    values = smooth(86_400)
    values["D"][100:160] = np.nan
    data = frg604rc.render("GTO", DAY, values)
    assert len(data) == 144 * 10_230
    path = tmp_path / "S200304.GTO.gz"
    path.write_bytes(gzip.compress(data + b"trailing"))
    raw = read(path)
    assert raw.format == "FRG604RC" and raw.station == "GTO" and not raw.notes
    for name in "HDZ":
        np.testing.assert_allclose(raw.values[name], values[name], atol=1e-9)
    block = bytearray(data)
    block[30:33] = (-123456 & 0xFFFFFF).to_bytes(3, "little")
    assert frg604rc.parse(bytes(block)).values["H"][0] == pytest.approx(-1234.56)
    assert frg604rc.housekeeping(data)["Voltage"][0] == pytest.approx(12.4)


def test_mseed_round_trip(tmp_path: Path) -> None:
    pymseed = pytest.importorskip("pymseed")
    values = smooth(400)
    traces = pymseed.MS3TraceList()
    for name in "HDZ":
        traces.add_data(
            f"FDSN:XX_TST__L_F_{name}", values[name].tolist(), "d", 1.0,
            starttime_seconds=float(DAY.astype(np.int64)) / 1e9,
        )  # fmt: skip
    path = tmp_path / "tst.mseed"
    traces.to_file(str(path), encoding=pymseed.DataEncoding.FLOAT64)
    raw = read(path)
    assert raw.station == "TST" and raw.cadence == 1.0 and raw.time[0] == DAY
    for name in "HDZ":
        np.testing.assert_allclose(raw.values[name], values[name])


def test_mseed_counts_need_a_scale(tmp_path: Path) -> None:
    pymseed = pytest.importorskip("pymseed")
    traces = pymseed.MS3TraceList()
    for name in "HEZ":
        traces.add_data(f"FDSN:XX_TST__L_F_{name}", [38_000_000] * 300, "i", 1.0,
                        starttime_seconds=1.6e9)  # fmt: skip
    path = tmp_path / "tst.mseed"
    traces.to_file(str(path))
    with pytest.raises(Refused, match="nT per count"):
        read(path)
    raw = read(path, Reading(scale=0.001))
    assert raw.values["H"][0] == 38_000.0 and set(raw.values) == {"H", "E", "Z"}


def test_imagcdf_round_trip(tmp_path: Path) -> None:
    cdflib = pytest.importorskip("cdflib")
    n, values = 300, smooth(300, "HZ")
    values["D"] = np.full(n, 1.5)
    values["H"][4] = 99999.0
    path = tmp_path / "tst.cdf"
    file = cdflib.cdfwrite.CDF(str(path), cdf_spec={"Majority": "row_major", "Compressed": 0})
    file.write_globalattrs({"IagaCode": {0: "TST"}, "Latitude": {0: 1.5}, "Longitude": {0: 100.0},
                            "ElementsRecorded": {0: "HDZ"}})  # fmt: skip
    stamps = cdflib.cdfepoch.compute_tt2000(
        [[2020, 3, 4, 0, k // 60, k % 60, 0, 0, 0] for k in range(n)]
    )
    spec = {"Variable": "GeomagneticVectorTimes", "Data_Type": 33, "Num_Elements": 1,
            "Rec_Vary": True, "Dim_Sizes": []}  # fmt: skip
    file.write_var(spec, var_data=stamps)
    for name in "HDZ":
        spec = {"Variable": f"GeomagneticField{name}", "Data_Type": 45, "Num_Elements": 1,
                "Rec_Vary": True, "Dim_Sizes": []}  # fmt: skip
        attrs = {"UNITS": "Degrees of arc" if name == "D" else "nT", "FILLVAL": 99999.0,
                 "DEPEND_0": "GeomagneticVectorTimes"}  # fmt: skip
        file.write_var(spec, var_attrs=attrs, var_data=values[name])
    file.close()
    raw = read(path)
    assert raw.station == "TST" and raw.units["D"] == "arcmin"
    np.testing.assert_allclose(raw.values["D"], 90.0)
    assert np.isnan(raw.values["H"][4]) and raw.time[0] == DAY


def test_csv_by_mapping(tmp_path: Path) -> None:
    path = tmp_path / "any.csv"
    rows = "".join(f"2020-03-04T00:00:{s:02d}Z,39000.5,600,-2000\n" for s in range(60))
    path.write_text("when,north,east,down\n" + rows)
    how = Reading(columns={"time": "when", "X": "north", "Y": "east", "Z": "down"}, station="abc")
    raw = read(path, how)
    assert raw.station == "ABC" and raw.cadence == 1.0 and raw.values["X"][0] == 39000.5
    with pytest.raises(Refused, match="--columns"):
        read(path)


def raw_of(values: dict[str, float], units: dict[str, str] | None = None) -> Magnetogram:
    n = 10
    return Magnetogram("TST", clock(n), {k: np.full(n, v) for k, v in values.items()},
                       units or dict.fromkeys(values, "nT"), 1.0)  # fmt: skip


def test_conversions_agree_with_each_other() -> None:
    x, y, z = 38_000.0, 650.0, -20_000.0
    h, angle = np.hypot(x, y), np.arctan2(y, x)
    arcmin = {"H": "nT", "D": "arcmin", "Z": "nT"}
    found = [
        to_hdz(raw_of({"X": x, "Y": y, "Z": z})),
        to_hdz(raw_of({"H": h, "D": np.rad2deg(angle) * 60, "Z": z}, arcmin)),
        to_hdz(raw_of({"H": x, "E": y, "Z": z})),
    ]
    for values, words in found:
        assert values["H"][0] == pytest.approx(h)
        assert values["D"][0] == pytest.approx(h * angle)
        assert values["Z"][0] == z and "H" in words
    assert found[1][0]["D"][0] == pytest.approx(np.rad2deg(angle) * 60 * h / 3437.7468, rel=1e-6)


@pytest.mark.parametrize("names", ["UVW", "HZ", "F", "XZ"])
def test_what_cannot_be_converted_is_refused(names: str) -> None:
    with pytest.raises(Refused, match="cannot be turned into H, D, Z"):
        to_hdz(raw_of(dict.fromkeys(names, 100.0)))


def test_declination_reference_is_the_stations() -> None:
    raw = raw_of({"X": 0.0, "Y": 15_000.0, "Z": 50_000.0})
    values, words = to_hdz(raw)
    assert values["D"][0] == pytest.approx(0.0) and "90 deg" in words
    values, _ = to_hdz(raw, reference=85.0)
    assert values["D"][0] == pytest.approx(15_000 * np.deg2rad(5))


# What must be noticed


def test_wrong_decoder_is_refused(tmp_path: Path) -> None:
    good = frg604rc.render("GTO", DAY, smooth(86_400))
    blocks = np.frombuffer(good, np.uint8).reshape(144, -1).copy()
    records = blocks[:, 30:].reshape(144, 600, 17)
    records[..., :3] = records[..., 2::-1]  # H with its bytes the other way round
    blocks[:, 30:] = records.reshape(144, -1)
    path = tmp_path / "S200304.GTO"
    path.write_bytes(blocks.tobytes())
    with pytest.raises(Refused, match="wrong decoder"):
        even(read(path), path.name)
    path.write_bytes(iaga2002.render("TST", clock(2000), smooth(2000)))
    with pytest.raises(Refused, match=r"not this format|truncated"):
        read(path, Reading(format="frg604rc"))


def test_wrong_scale_is_refused() -> None:
    raw = raw_of({"H": 3_800_000.0, "D": 1.0, "Z": 1.0})
    with pytest.raises(Refused, match="beyond any field"):
        even(raw, "x.csv")


def test_all_missing_component_is_refused() -> None:
    raw = raw_of({"H": 38_000.0, "D": np.nan, "Z": 1.0})
    with pytest.raises(NoData, match="component D has no valid sample"):
        even(raw, "x.sec")


def test_a_day_of_86399_samples() -> None:
    values = smooth(86_400)
    keep = np.arange(86_400) != 40_000
    raw = Magnetogram("TST", clock(86_400)[keep], {k: v[keep] for k, v in values.items()},
                      dict.fromkeys("HDZ", "nT"), 1.0)  # fmt: skip
    made = even(raw)
    assert made.field.shape == (3, 86_400)
    assert np.isnan(made.field[:, 40_000]).all() and np.isnan(made.field).sum() == 3
    assert "1 of 86400 samples missing" in made.notes[0]


@pytest.mark.parametrize("lost", [0, 86_399])
def test_a_day_without_its_first_or_last_sample_is_that_day(lost: int) -> None:
    keep = np.arange(86_400) != lost
    raw = Magnetogram("TST", clock(86_400)[keep],
                      {k: v[keep] for k, v in smooth(86_400).items()},
                      dict.fromkeys("HDZ", "nT"), 1.0)  # fmt: skip
    made = even(raw)
    assert made.start == clock(1)[0] and made.field.shape == (3, 86_400)
    assert np.isnan(made.field[:, lost]).all() and np.isnan(made.field).sum() == 3
    assert "1 of 86400 samples missing" in made.notes[0]


def test_two_stations_in_one_file_are_refused(tmp_path: Path) -> None:
    parts = [iaga2002.render(code, clock(50), smooth(50)) for code in ("AAA", "BBB")]
    with pytest.raises(Refused, match=r"two stations \(AAA, BBB\)"):
        iaga2002.parse(b"".join(parts), "both.sec")
    day = frg604rc.render("GTO", DAY, smooth(86_400))
    mixed = day[:10_230] + frg604rc.render("SKB", DAY, smooth(86_400))[10_230:]
    with pytest.raises(Refused, match="two stations"):
        frg604rc.parse(mixed, "S200304.GTO")


def test_clock_jumps_are_flagged() -> None:
    time = clock(1000).copy()
    time[500:] -= np.timedelta64(100, "s")  # back by 100 s
    raw = Magnetogram("TST", time, smooth(1000), dict.fromkeys("HDZ", "nT"), 1.0)
    made = even(raw)
    assert made.field.shape[1] == 900
    assert (made.flags & FLAGS["clock"]).any()
    assert "clock went back" in " ".join(made.notes)


def test_steps_and_constants_are_flagged() -> None:
    values = smooth(1000)
    values["Z"][500:] += 5000.0
    values["D"][:] = 7.0
    made = even(Magnetogram("TST", clock(1000), values, dict.fromkeys("HDZ", "nT"), 1.0))
    assert made.flags[500] & FLAGS["step"] and not made.flags[499] & FLAGS["step"]
    assert (made.flags & FLAGS["constant"]).all()


@pytest.mark.parametrize("size", [0, 5, 4000, 10_229, 10_230 * 3 + 17, 10_230 * 100])
def test_truncated_binary_is_refused_or_flagged(tmp_path: Path, size: int) -> None:
    path = tmp_path / "S200304.GTO"
    path.write_bytes(frg604rc.render("GTO", DAY, smooth(86_400))[:size])
    if size < 10_230:
        with pytest.raises(Refused) as refusal:
            read(path)
        assert "\n" not in str(refusal.value) and "S200304.GTO" in str(refusal.value)
        return
    made = even(read(path))
    assert made.field.shape[1] == size // 10_230 * 600
    assert (made.flags & FLAGS["truncated"]).all() and "truncated" in made.notes[0]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_files_never_crash(data: st.DataObject) -> None:
    seedlings = [
        iaga2002.render("TST", clock(40), smooth(40)),
        frg604rc.render("GTO", DAY, smooth(86_400))[: 2 * 10_230],
        b"time,H,D,Z\n2020-01-01T00:00:00,1,2,3\n2020-01-01T00:00:01,1,2,3\n",
    ]
    body = bytearray(data.draw(st.sampled_from(seedlings)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(1, 3))] = data.draw(st.binary(max_size=4))
    body = body[: data.draw(st.integers(0, len(body)))]
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.bin"
        path.write_bytes(bytes(body))
        try:
            made = even(read(path), path.name)
        except Refused as refusal:
            assert "\n" not in str(refusal)
        else:
            assert made.field.shape[0] == 3


def test_sniff_by_content() -> None:
    assert sniff(iaga2002.render("TST", clock(5), smooth(5))) == "iaga2002"
    assert sniff(frg604rc.render("GTO", DAY, smooth(86_400))) == "frg604rc"
    assert sniff(b"hello world\n") == ""
    assert sniff(b"a,b\n1,2\n") == "csv"


@pytest.mark.realdata
def test_real_station_days(realdata: Path) -> None:
    files = sorted((realdata / "precursor").glob("*vsec.sec.gz"))
    assert len(files) == 20
    for path in files[:4]:
        raw = read(path)
        made = even(raw, path.name)
        assert raw.station.lower() == path.name[:3] and made.field.shape == (3, 86_400)
        h, _, z = np.nanmedian(made.field, 1)
        assert np.hypot(h, z) == pytest.approx(np.nanmedian(raw.values["F"]), rel=0.03)
