"""The whole way: files to products, images, dataset, commands, and the real station-days."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import terrella
from terrella.cli import main
from terrella.tasks.precursor import imagefiles
from terrella.tasks.precursor.commands import seconds
from terrella.tasks.precursor.simulate import export, simulate
from terrella.tasks.precursor.stations import open_files
from terrella.types import Refused


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(w) for w in words])
    return int(done.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene")
    export(simulate(seed=2, hours=48.0), path / "scene")
    return path


def test_spectrograms_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "images"
    code = call("precursor", "spectrograms", "--input", folder, "--output", out, "--window", "6h",
                "--overlap", "0", "--png")  # fmt: skip
    assert code == 0 and "8 windows" in capsys.readouterr().out
    path = next(out.glob("*.nc"))
    with xr.open_dataset(path, engine="h5netcdf") as data:
        assert data["image"].shape == (8, 3, 224, 224)
        assert data["frequency"].values[0] == 0.5 and data["frequency"].values[-1] == 0.0
        assert data.attrs["window_s"] == 21_600
        first = data["image"].values[0]
    pictures = sorted(out.glob("*.png"))
    assert len(pictures) == 8
    np.testing.assert_array_equal(imagefiles.read_png(pictures[0], 224), first)
    assert (out / "run.json").is_file()


def test_files_images_and_pictures_give_the_same_answer(folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    call("precursor", "spectrograms", "--input", folder, "--output", images, "--png")
    model = terrella.load("precursor")
    found = []
    files = sorted(folder.glob("S*.gz"))
    for paths in (files, list(images.glob("*.nc")), sorted(images.glob("*.png")), [images]):
        opened = open_files([p for p in paths if p.name != "run.json"], model.options())
        job = opened.jobs[0]
        made = terrella.run(model, job.source, job.start, job.stop)
        found.append(made.series["magnitude_probability"].to_numpy())
    for other in found[1:3]:
        np.testing.assert_allclose(other, found[0], atol=1e-6)


def test_run_says_anomaly_and_carries_the_verdict(folder: Path, tmp_path: Path) -> None:
    verdict = terrella.load("precursor").card.verdict
    assert call("run", "precursor", folder, "--out", tmp_path, "--explain", "azimuth") == 0
    with xr.open_dataset(next(tmp_path.glob("*.nc")), engine="h5netcdf") as data:
        assert data.attrs["title"] == "anomaly classification"
        assert data.attrs["verdict"] == verdict and "on simulated world" in verdict
        assert "azimuth" in data["gradcam"].attrs["long_name"]
    table = pd.read_csv(next(tmp_path.glob("*.csv")))
    assert not table["label"].str.contains("precursor").any()
    assert len(table) and (table["verdict"] == verdict).all()
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_overlap_gives_more_windows(folder: Path, tmp_path: Path) -> None:
    call("precursor", "spectrograms", "--input", folder, "--output", tmp_path, "--overlap", "0.5")
    with xr.open_dataset(next(tmp_path.glob("*.nc")), engine="h5netcdf") as data:
        assert data.sizes["time"] == 15


def test_a_bad_file_does_not_stop_a_batch(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for path in folder.glob("S*.gz"):
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "in" / "broken.sec").write_bytes(b"nonsense")
    code = call("precursor", "spectrograms", "--input", tmp_path / "in", "--output",
                tmp_path / "out")  # fmt: skip
    said = capsys.readouterr()
    assert code == 1 and "broken.sec" in said.err and "8 windows" in said.out


def test_world_dataset_and_its_labels(tmp_path: Path) -> None:
    world, path = tmp_path / "world", tmp_path / "data.nc"
    assert call("precursor", "world", "--out", world, "--days", 4, "--quakes", 2, "--stations", 1,
                "--seed", 5) == 0  # fmt: skip
    assert call("precursor", "dataset", world, "--out", path, "--lead", 0.6, "--window", "1h",
                "--quiet", 0.2) == 0  # fmt: skip
    with xr.open_dataset(path, engine="h5netcdf") as data:
        kinds = data["kind"].astype(str).to_numpy()
        assert {"magnitude", "azimuth", "cluster", "block", "pair"} <= set(data)
        assert (kinds == "precursor").sum() >= (kinds == "normal").sum() > 0


def test_audit_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "labels.csv"
    rows = "".join(
        f"{k},AAA,2023-01-{1 + k % 28:02d},{k % 24},{0.1 + k / 10},5.2\n" for k in range(60)
    )
    path.write_text("No,Stasiun,Tanggal,Jam,Azm,Mag\n" + rows)
    assert call("precursor", "audit-labels", path, "--out", tmp_path / "found.csv") == 0
    assert "radians" in capsys.readouterr().out
    assert (pd.read_csv(tmp_path / "found.csv")["check"] == "angle units").any()


@pytest.mark.parametrize(("text", "value"), [("6h", 21600), ("90min", 5400), ("1800", 1800)])
def test_lengths_of_time(text: str, value: float) -> None:
    assert seconds(text, "--window") == value


@pytest.mark.parametrize("text", ["", "h", "-6h", "6 weeks", "nanh"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(Refused):
        seconds(text, "--window")


def test_another_cadence_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"2020-01-{1 + m // 1440:02d}T{m // 60 % 24:02d}:{m % 60:02d},38000.5,1,-2\n"
                   for m in range(2880))  # fmt: skip
    path = tmp_path / "minute.csv"
    path.write_text("time,H,D,Z\n" + rows)
    model = terrella.load("precursor")
    job = open_files([path], model.options()).jobs[0]
    with pytest.raises(Refused, match="samples every 60 s"):
        terrella.run(model, job.source, job.start, job.stop)


# Real data


def invented(folder: Path, files: list[Path]) -> list[Path]:
    """A catalogue that never was: one earthquake a site, on either of two days."""
    from terrella.sources.magnetometer import read

    places = {}
    for path in files:
        raw = read(path)
        places[raw.station] = (raw.latitude, raw.longitude)
    stations = pd.DataFrame([(k, *v) for k, v in places.items()],
                            columns=["station", "latitude", "longitude"])  # fmt: skip
    sites = stations.drop_duplicates(["latitude", "longitude"]).reset_index(drop=True)
    quakes = pd.DataFrame(
        {"time": [f"2014-04-0{8 + k % 2}T00:30:00" for k in range(len(sites))],
         "latitude": sites["latitude"] + 0.2, "longitude": sites["longitude"] - 0.1,
         "magnitude": 5.5}
    )  # fmt: skip
    stations.to_csv(folder / "stations.csv", index=False)
    quakes.to_csv(folder / "earthquakes.csv", index=False)
    kp = pd.DataFrame({"time": pd.date_range("2014-04-06", periods=40, freq="3h"), "kp": 1.0})
    kp.to_csv(folder / "kp.csv", index=False)
    return [folder / n for n in ("earthquakes.csv", "stations.csv", "kp.csv")]


@pytest.mark.realdata
def test_real_station_days_and_an_invented_catalogue_show_no_skill(
    realdata: Path, tmp_path: Path
) -> None:
    files = sorted((realdata / "precursor").glob("*vsec.sec.gz"))
    side = invented(tmp_path, files)
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        '[recipe]\nhidden = 64\ndrop = 0.0\nwindow = 3600.0\nsize = 64\naugment = "none"\n'
        "[train]\nepochs = 4\nbatch = 32\nlr = 3e-3\nweight_decay = 0.05\n"
    )
    out = tmp_path / "out"
    assert call("evaluate", "precursor", *files, *side, "--config", recipe, "--split", "loeo",
                "--folds", 3, "--lead", 0.75, "--quiet", 0.1, "--draws", 100,
                "--out", out) == 0  # fmt: skip
    body = json.loads((out / "certificate.json").read_text())
    assert body["skill"] == "not shown" and body["verdict"].startswith("no skill beyond")
    scores = pd.read_csv(out / "scores.csv")
    assert {"terrella", "majority", "station-only", "kp-only", "lightgbm"} <= set(scores["model"])
    assert (out / "confusion.png").is_file()


@pytest.mark.realdata
def test_real_files_run_to_products(realdata: Path, tmp_path: Path) -> None:
    files = sorted((realdata / "precursor").glob("bou*vsec.sec.gz"))
    assert call("run", "precursor", *files, "--out", tmp_path) == 0
    with xr.open_dataset(next(tmp_path.glob("BOU*.nc")), engine="h5netcdf") as data:
        assert data.sizes["time"] == 8 and "3437" not in data.attrs["conversion"]
        assert "arc-minutes" in data.attrs["conversion"]
        assert data.attrs["title"] == "anomaly classification"
