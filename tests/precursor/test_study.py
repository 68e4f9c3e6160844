"""A study on files as a user types it: world, validate, train, certify, run, dataset, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from terrella.cli import main

CONFIG = """
name = "small"
[recipe]
backbone = "micro"
hidden = 16
drop = 0.0
window = 3600.0
size = 64
augment = "none"
[options]
lead = 0.4
quiet = 0.05
[data]
judge_inputs = true
[train]
epochs = 1
batch = 32
lr = 3e-3
"""
MODELS = {"terrella", "majority", "station-only", "kp-only", "hour-only", "station-month"}


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(w) for w in words])
    return int(done.value.code or 0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world on disk and a recipe file beside it."""
    path = tmp_path_factory.mktemp("study")
    assert call("precursor", "world", "--out", path / "world", "--days", 16, "--quakes", 24,
                "--stations", 2, "--strength", 6, "--seed", 5, "--lead", 0.4,
                "--quiet", 0.05) == 0  # fmt: skip
    (path / "small.toml").write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def validated(study: Path) -> Path:
    """What validate writes for that world, with both nulls and the continuous test."""
    world, out = study / "world", study / "validate"
    assert call("precursor", "validate", world, world / "earthquakes.csv", world / "stations.csv",
                "--config", study / "small.toml", "--split", "loeo,all,random", "--folds", 2,
                "--embargo", 0.5, "--out", out) == 0  # fmt: skip
    return out


@pytest.fixture(scope="module")
def trained(study: Path) -> Path:
    """Weights trained on that world's files, judged on them too."""
    out = study / "weights"
    assert call("train", "precursor", study / "world", "--config", study / "small.toml",
                "--out", out) == 0  # fmt: skip
    return out / "small.safetensors"


def test_validate_writes_scores_nulls_and_figures(validated: Path) -> None:
    scores = pd.read_csv(validated / "scores.csv")
    nulls = {"terrella (label shuffle 1)", "terrella (catalogue shift 1)"}
    for _, part in scores.groupby("split"):
        assert set(part["model"]) == MODELS | nulls
        same = part[part["model"].isin(MODELS)]
        assert same["n"].nunique() == 1  # all on the same rows
    assert (scores["lo"] <= scores["hi"]).all()
    for name in ("confusion.loeo", "confusion.all", "molchan"):
        assert (validated / f"{name}.png").stat().st_size > 10_000
    alarms = pd.read_csv(validated / "false_alarms.csv").set_index("station")
    # The last two fifths of 16 days at two stations.
    assert alarms.loc["all", "years"] * 365.25 == pytest.approx(2 * 0.4 * 16, rel=0.02)
    assert (alarms["false"] <= alarms["alarms"]).all()


def test_the_certificate_is_of_a_split_that_does_not_leak(validated: Path) -> None:
    body = json.loads((validated / "certificate.json").read_text())
    assert body["evaluation"]["split"] == "all"
    assert body["recipe"]["size"] == 64
    assert body["line"].startswith("skill:" if body["skill"] else "no skill beyond")
    tested, total = body["data"].split(" windows")[0].split(" of ")
    assert 0 < int(tested) <= int(total)


def test_a_certificate_goes_into_the_card_and_every_product(
    study: Path, validated: Path, trained: Path, tmp_path: Path
) -> None:
    certificate = validated / "certificate.json"
    assert call("precursor", "certify", trained, certificate) == 0
    body = json.loads(certificate.read_text())
    day = sorted((study / "world").glob("S*.gz"))[0]
    assert call("run", "precursor", day, "--weights", trained, "--out", tmp_path,
                "--explain", "none") == 0  # fmt: skip
    with xr.open_dataset(next(tmp_path.glob("*.nc")), engine="h5netcdf") as data:
        assert data.attrs["skill"] == body["line"]
        word = "prediction" if body["skill"] else "anomaly classification"
        assert data.attrs["title"] == word


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"line": "skill: all of it"}, "not what its numbers say"),
        ({"skill": True}, "not what its numbers say"),
        ({"recipe": {"size": 224}}, "validate with the weights' own recipe"),
        ({"evaluation": {"split": "random"}}, "leaks"),
        ({"gain": 3}, "not a certificate"),
        ({"evaluation": None}, "not a certificate"),
    ],
)
def test_what_certifies_nothing(
    validated: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    change: dict[str, object], word: str,
) -> None:  # fmt: skip
    body = json.loads((validated / "certificate.json").read_text())
    if "skill" in change:
        change = {"skill": not body["skill"]}
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps({**body, **change}))
    before = trained.with_suffix(".toml").read_bytes()
    assert call("precursor", "certify", trained, path) == 1
    said = capsys.readouterr().err
    assert word in said and said.count("\n") == 1
    assert trained.with_suffix(".toml").read_bytes() == before


def test_packaged_weights_are_not_certified(
    validated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("precursor", "certify", "default", validated / "certificate.json") == 1
    assert "terrella weights export" in capsys.readouterr().err


def test_trained_weights_carry_scores_beside_baselines(trained: Path) -> None:
    scores = pd.read_csv(trained.parent / "scores.csv")
    assert set(scores["model"]) == MODELS
    assert "precursor_mcc" in set(scores["metric"])


def test_a_labelled_set_is_evaluated(study: Path, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.nc"
    assert call("precursor", "dataset", study / "world", "--config", study / "small.toml",
                "--out", path) == 0  # fmt: skip
    assert call("evaluate", "precursor", path, "--weights", trained, "--split", "loeo",
                "--folds", 2, "--no-refit", "--out", tmp_path) == 0  # fmt: skip
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores["model"]) == MODELS
    assert call("precursor", "validate", path, "--config", study / "small.toml", "--split",
                "loso", "--epochs", 1, "--nulls", 0, "--out", tmp_path / "v") == 0  # fmt: skip
    assert (tmp_path / "v" / "certificate.json").is_file()


def test_two_catalogues_are_refused(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.csv"
    other.write_bytes((study / "world" / "earthquakes.csv").read_bytes())
    code = call("precursor", "dataset", study / "world", other, "--out", tmp_path / "d.nc")
    assert code == 1 and "a second earthquake catalogue" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("earthquakes.csv", "time,latitude,longitude,magnitude\nsoon,1,2,5\n", "'soon'"),
        ("earthquakes.csv", "time,latitude,longitude,magnitude\n2020-01-01,1,2,big\n", "'big'"),
        ("stations.csv", "station,latitude,longitude\nSMA,north,2\n", "'north'"),
        ("stations.csv", "station,latitude,longitude\nSMA,95,2\n", "not on the globe"),
        ("kp.csv", "time,kp\nsoon,3\n", "'soon'"),
        ("kp.csv", "time,kp\n2020-01-01,calm\n", "'calm'"),
    ],
)
def test_side_tables_that_are_none(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, word: str
) -> None:
    for table in ("earthquakes.csv", "stations.csv", "kp.csv"):
        (tmp_path / table).write_bytes((study / "world" / table).read_bytes())
    (tmp_path / name).write_text(text)
    day = sorted((study / "world").glob("S*.gz"))[0]
    assert call("precursor", "dataset", day, tmp_path, "--out", tmp_path / "d.nc") == 1
    said = capsys.readouterr().err
    assert name in said and word in said and said.count("\n") == 1
