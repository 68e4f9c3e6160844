"""A study on files as a user types it: world, evaluate, train, certify, run, dataset, watch."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from terrella.cli import main
from terrella.weights import read_card

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
MODELS = {"terrella", "majority", "station-only", "kp-only", "hour-only", "station-month",
          "lightgbm"}  # fmt: skip


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


def evaluate(study: Path, split: str, *more: object) -> Path:
    """What ``terrella evaluate`` writes for that world and one split."""
    world, out = study / "world", study / split
    assert call("evaluate", "precursor", world, world / "earthquakes.csv", world / "stations.csv",
                "--config", study / "small.toml", "--split", split, "--folds", 2, "--embargo", 0.5,
                "--draws", 50, "--rolls", 3, *more, "--out", out) == 0  # fmt: skip
    return out


@pytest.fixture(scope="module")
def evaluated(study: Path) -> Path:
    """All kept apart, with both nulls."""
    return evaluate(study, "all", "--nulls", 1, "--shifts", 1)


@pytest.fixture(scope="module")
def trained(study: Path) -> Path:
    """Weights trained on that world's files."""
    out = study / "weights"
    assert call("train", "precursor", study / "world", "--config", study / "small.toml",
                "--no-judge", "--out", out) == 0  # fmt: skip
    return out / "small.safetensors"


def test_one_command_gives_scores_nulls_and_figures(evaluated: Path) -> None:
    scores = pd.read_csv(evaluated / "scores.csv")
    assert set(scores["model"]) == MODELS
    assert scores[scores["group"] == "all"]["n"].nunique() == 1  # all on the same rows
    assert {"precursor_mcc", "magnitude_f1", "azimuth_f1", "circular_error"} <= set(
        scores["metric"]
    )
    for name in ("confusion", "skill", "reliability"):
        assert (evaluated / f"{name}.png").stat().st_size > 10_000
        assert f"![{name}]({name}.png)" in (evaluated / "certificate.md").read_text()
    body = json.loads((evaluated / "certificate.json").read_text())
    (gain,) = [g for g in body["gains"] if g["group"] == "all"]
    assert gain["metric"] == "precursor_mcc" and gain["null"] is not None
    assert all(f["keys"] == ["earthquake", "station", "block"] for f in body["folds"])
    assert all(f["embargo"] == "12 h" for f in body["folds"])
    assert body["data"].startswith("simulated, ") and "simulated data" in " ".join(body["limits"])
    tested, total = body["data"].split(", ")[1].split(" windows")[0].split(" of ")
    assert 0 < int(tested) <= int(total)
    assert body["recipe"]["size"] == 64


def test_both_nulls_are_trained(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a null is its best score; here the nulls themselves are looked at."""
    from terrella import registry
    from terrella.learn import config
    from terrella.learn.evaluate import evaluate as judge
    from terrella.learn.evaluate import refitter
    from terrella.task import Judging

    task = registry.get("precursor")
    chosen = config.load(task, study / "small.toml")
    options = task.options(**chosen.options, explain="none")
    how = task.evaluation(split="loeo", folds=2, shifts=2)
    folds = list(task.plan([study / "world"], how, chosen.recipe, options))
    assert [f.null for f in folds] == ["", "", *["catalogue shift 1"] * 2,
                                       *["catalogue shift 2"] * 2]  # fmt: skip
    found = judge(task, folds[:3], chosen.recipe, options, judging=Judging(rolls=1, nulls=1),
                  refit=refitter(task, chosen.recipe, chosen.train))  # fmt: skip
    assert set(found.nulls) == {"roll 1", "label shuffle 1", "catalogue shift 1"}
    truth = [set(t["block"]) for t in (found.network, found.nulls["catalogue shift 1"])]
    assert truth[0] != truth[1], "a moved catalogue gives other windows other earthquakes"


def test_a_certificate_goes_into_the_card_and_every_product(
    study: Path, evaluated: Path, trained: Path, tmp_path: Path
) -> None:
    certificate = evaluated / "certificate.json"
    assert call("weights", "certify", "precursor", trained, certificate) == 0
    body = json.loads(certificate.read_text())
    card = read_card(trained)
    assert {str(s["model"]) for s in card.scores} == MODELS
    day = sorted((study / "world").glob("S*.gz"))[0]
    assert call("run", "precursor", day, "--weights", trained, "--out", tmp_path,
                "--explain", "none") == 0  # fmt: skip
    with xr.open_dataset(next(tmp_path.glob("*.nc")), engine="h5netcdf") as data:
        assert data.attrs["verdict"] == body["verdict"]
        assert data.attrs["title"] == "anomaly classification"
        assert "novelty" in data, "weights that are trained know what they saw"
    table = pd.read_csv(next(tmp_path.glob("*.csv")))
    assert (table["verdict"] == body["verdict"]).all()
    assert not table["label"].str.contains("precursor").any()


def test_no_flag_sets_the_verdict(study: Path, tmp_path: Path) -> None:
    day = sorted((study / "world").glob("S*.gz"))[0]
    assert call("run", "precursor", day, "--certificate", "skill: all", "--out", tmp_path) == 2


def test_a_naive_split_certifies_nothing(
    study: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = evaluate(study, "random") / "certificate.json"
    assert json.loads(path.read_text())["verdict"].startswith("no verdict: the split leaks")
    capsys.readouterr()
    assert call("weights", "certify", "precursor", trained, path) == 1
    said = capsys.readouterr().err
    assert "leaks" in said and said.count("\n") == 1


def test_another_recipe_is_not_certified(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("weights", "export", "precursor", "default", "--out", tmp_path) == 0
    certificate = evaluated / "certificate.json"
    copy = tmp_path / "default.safetensors"
    assert call("weights", "certify", "precursor", copy, certificate) == 1
    assert "evaluate with the weights' own recipe" in capsys.readouterr().err


def test_continuous_data_are_watched(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("precursor", "watch", study / "world", "--config", study / "small.toml",
                "--embargo", 0.5, "--out", tmp_path) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert all(f"{m}: Molchan area skill" in said for m in MODELS)
    assert (tmp_path / "molchan.png").stat().st_size > 10_000
    alarms = pd.read_csv(tmp_path / "false_alarms.csv").set_index("station")
    # The last two fifths of 16 days at two stations.
    assert alarms.loc["all", "years"] * 365.25 == pytest.approx(2 * 0.4 * 16, rel=0.02)
    assert (alarms["false"] <= alarms["alarms"]).all()


def test_a_labelled_set_is_evaluated(
    study: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.nc"
    assert call("precursor", "dataset", study / "world", "--config", study / "small.toml",
                "--out", path) == 0  # fmt: skip
    # What is given weights, not trained: loso of two stations is not the packaged refit.
    how = ("--split", "loso", "--draws", 20, "--rolls", 3)
    assert call("evaluate", "precursor", path, "--weights", trained, "--no-refit", *how,
                "--out", tmp_path) == 0  # fmt: skip
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores["model"]) == MODELS
    assert {"SMA", "SMB"} <= set(scores["group"])
    assert json.loads((tmp_path / "certificate.json").read_text())["certifies"] == "weights"
    capsys.readouterr()
    assert call("evaluate", "precursor", path, "--weights", trained, "--shifts", 1, *how,
                "--out", tmp_path) == 1  # fmt: skip
    assert "give magnetometer files" in capsys.readouterr().err
    assert call("precursor", "watch", path, "--config", study / "small.toml") == 1
    assert "not continuous" in capsys.readouterr().err


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
