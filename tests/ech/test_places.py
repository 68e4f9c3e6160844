"""Grids and orbit files."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from terrella.sources.geomagnetic import PROVISIONAL, read_indices
from terrella.tasks.ech.places import magnetic, parse_grid, read_orbit
from terrella.types import Refused


def test_grid_counts() -> None:
    grid = parse_grid("L=1:7:0.1,MLT=0:24:0.5,MLAT=-20:20:2")
    assert grid.shape == (61, 48, 21)
    assert grid.L[-1] == 7 and grid.MLT[-1] == 23.5 and grid.MLAT[0] == -20
    level, hour, lat = grid.points()
    assert (level[0], hour[0], lat[1]) == (1, 0, -18)
    assert parse_grid("mlt=3, l=5").shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("L=0.5:7:0.5,MLT=0", "L = 0.5"),
        ("L=2:7:0.5,MLT=25", "MLT = 25"),
        ("L=2:7:0.5,MLT=0:24:1,MLAT=-0.35:0.35:0.05", "radians"),
        ("L=2:7:0.5,MLT=0,MLAT=95", "beyond 90"),
        ("L=7:2:0.5,MLT=0", "first <= last"),
        ("L=2:7:0.5:3,MLT=0", "first:last:step"),
        ("L=a,MLT=0", "first:last:step"),
        ("L=2:7:0,MLT=0", "step > 0"),
        ("L=2:7:1e-9,MLT=0", "larger step"),
        ("L=2", "MLT is missing"),
        ("R=2,MLT=0", "names no axis"),
    ],
)
def test_bad_grids(text: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        parse_grid(text)


def _orbit(path: Path, head: str, rows: list[str]) -> Path:
    path.write_text(head + "\n" + "\n".join(rows) + "\n")
    return path


def _times(n: int) -> list[str]:
    return [f"2013-03-17T{k // 60:02d}:{k % 60:02d}:00Z" for k in range(n)]


def test_orbit_csv(tmp_path: Path) -> None:
    rows = [
        f"{t},{3 + k / 10},{k % 24},{5 - k},{12.5 if k % 2 else ''}"
        for k, t in enumerate(_times(12))
    ]
    found = read_orbit(_orbit(tmp_path / "o.csv", "Epoch,L_star,MLT,MLAT,amplitude_dB", rows))
    assert found["L"].values[1] == 3.1 and found["amplitude"].values[1] == 12.5
    assert np.isnan(found["amplitude"].values[0])
    assert found["MLAT"].attrs["units"] == "degrees"


@pytest.mark.parametrize(
    ("head", "row", "why"),
    [
        ("time,L,MLT,MLAT", "0.9,3,5", "L = 0.9"),
        ("time,L,MLT,MLAT", "3,25,5", "MLT = 25"),
        ("time,L,MLT,MLAT", "3,2,0.2", "radians"),
        ("time,L,MLT,MLAT_rad", "3,2,0.2", "is in radians"),
        ("time,L,MLT", "3,2", "needs columns"),
        ("time,x,y,z", "3,2,1", "--frame"),
        ("when,L,MLT,MLAT", "3,2,1", "no time column"),
    ],
)
def test_bad_orbits(tmp_path: Path, head: str, row: str, why: str) -> None:
    path = _orbit(tmp_path / "o.csv", head, [f"{t},{row}" for t in _times(20)])
    with pytest.raises(Refused, match=why) as refusal:
        read_orbit(path)
    assert "o.csv" in str(refusal.value) and "\n" not in str(refusal.value)


def test_degrees_may_be_small_when_said(tmp_path: Path) -> None:
    rows = [f"{t},3,2,0.2" for t in _times(20)]
    assert (
        read_orbit(_orbit(tmp_path / "o.csv", "time,L,MLT,MLAT_deg", rows))["MLAT"].values[0] == 0.2
    )


def test_cartesian_in_solar_magnetic_is_plain_geometry(tmp_path: Path) -> None:
    rows = [f"{t},-4,0,0" for t in _times(3)]
    found = read_orbit(_orbit(tmp_path / "o.csv", "time,X_SM,Y_SM,Z_SM", rows))
    np.testing.assert_allclose(found["L"].values, 4)
    np.testing.assert_allclose(found["MLT"].values, 0, atol=1e-9)
    km = [f"{t},0,{4 * 6371.2},0" for t in _times(3)]
    found = read_orbit(_orbit(tmp_path / "k.csv", "time,x,y,z", km), "SM")
    np.testing.assert_allclose(found["MLT"].values, 18)
    np.testing.assert_allclose(found["L"].values, 4)


def test_frames_agree_on_physics() -> None:
    time = np.array(["2013-03-20T10:00", "2013-06-21T16:00"], "datetime64[ns]")
    sunward = np.array([[5.0, 0, 0], [5.0, 0, 0]])
    for frame in ("GSE", "GSM"):
        found = magnetic(time, sunward, frame)
        np.testing.assert_allclose(found["MLT"], 12, atol=0.2)
        assert (found["L"] >= 5).all()
    # At the June solstice near 16 UT the northern dipole axis leans 33 deg to the Sun.
    assert magnetic(time, sunward, "GSM")["MLAT"][1] > 30
    pole = magnetic(time, np.array([[0, 0, 3.0]] * 2), "GEO")
    assert (pole["MLAT"] > 78).all() and (pole["MLAT"] < 82).all()
    axis = magnetic(time, np.array([[3.0, 0, 0]] * 2), "MAG")
    np.testing.assert_allclose(axis["MLAT"], 0, atol=1e-6)


def _cdf(path: Path, time: np.ndarray, **columns: np.ndarray) -> Path:
    """A small CDF with an Epoch, written by the library that reads it."""
    import cdflib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = cdflib.cdfwrite.CDF(path, delete=True)
        stamps = [
            [int(x) for x in str(t)[:19].replace("T", "-").replace(":", "-").split("-")]
            for t in time
        ]
        epoch = cdflib.cdfepoch.compute_epoch([[*s, 0] for s in stamps])
        spec = {"Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": []}
        file.write_var({**spec, "Variable": "Epoch", "Data_Type": 31}, var_data=np.array(epoch))
        for name, value in columns.items():
            shape = list(value.shape[1:])
            one = {**spec, "Variable": name, "Data_Type": 45, "Dim_Sizes": shape}
            file.write_var(
                one, {"CATDESC": f"{name} - Provisional 2013/001-2013/076"}, var_data=value
            )
        file.close()
    return path


def test_cdf_of_an_orbit_and_of_indices(tmp_path: Path) -> None:
    time = np.datetime64("2013-03-17T00:00") + np.arange(12) * np.timedelta64(5, "m")
    xyz = np.array([[-4.0 - k / 10, 0, 0] for k in range(12)])
    found = read_orbit(_cdf(tmp_path / "o.cdf", time, POS_SM=xyz))
    np.testing.assert_allclose(found["L"].values, 4 + np.arange(12) / 10)
    np.testing.assert_allclose(found["MLT"].values, 0, atol=1e-9)
    plain = {"L": np.full(12, 5.0), "MLT": np.full(12, 3.0), "MLAT": np.full(12, -7.0)}
    assert read_orbit(_cdf(tmp_path / "p.cdf", time, **plain))["MLAT"].values[3] == -7
    held = {"SYM_H": np.arange(12.0), "AE_INDEX": np.r_[99999.0, np.full(11, 80.0)]}
    path = _cdf(tmp_path / "i.cdf", time, **held)
    series = read_indices(path)
    assert series["AE"].attrs["cadence"] == 300.0 and np.isnan(series["AE"].values[0])
    assert (series["AE"]["flag"].values == PROVISIONAL).all()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused, match=r"i\.cdf"):
        read_indices(path)
    with pytest.raises(Refused, match=r"i\.cdf"):
        read_orbit(path)
