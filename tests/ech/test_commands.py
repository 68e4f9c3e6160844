"""Verbs of the task: one row of a feature file, and the conjunction test."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from terrella import cli, weights
from terrella.learn import certificate
from terrella.learn.split import blind, guard
from terrella.tasks.ech import conjunction_rows as cj
from terrella.tasks.ech import judge, scores
from terrella.tasks.ech.baselines import lightgbm
from terrella.tasks.ech.commands import read_features
from terrella.tasks.ech.committee import Committee, Member
from terrella.tasks.ech.conjunctions import Evaluation
from terrella.tasks.ech.published import DeepECH
from terrella.tasks.ech.task import Options, Recipe
from terrella.types import Refused


def _run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    return int(stop.value.code or 0)  # type: ignore[arg-type]


@pytest.fixture
def features(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    held = rng.normal(0, 50, (70, 224)).round()
    held[:, :4] = [5.0, 1.0, 0.0, 0.99]
    np.savez(tmp_path / "f.npz", features=held)
    return tmp_path / "f.npz"


def test_sample_with_imported_weights(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    for name, count in (("CLS", 2), ("REG", 4)):
        torch.save(DeepECH(count).state_dict(), tmp_path / f"{name}.pth")
    assert _run("weights", "import", "ech", str(tmp_path / "CLS.pth"), str(tmp_path / "REG.pth"),
                "--name", "deepech") == 0  # fmt: skip
    capsys.readouterr()
    assert _run("ech", "sample", str(features), "--index", "60", "--weights", "deepech") == 0
    out = capsys.readouterr().out
    network = weights.load("ech", "deepech").network
    held = np.load(features)["features"][60:61].astype("f4")
    place, parts = torch.from_numpy(held[:, :4]), torch.from_numpy(held[:, 4:])
    with torch.inference_mode():
        want = float(network.occurrence(parts[:, :98].split(49, 1), place))
    assert f"logit {want:.6f}" in out and "row 60" in out
    assert _run("ech", "sample", str(features), "--index", "99", "--weights", "deepech") == 1
    assert "rows 0 to 69" in capsys.readouterr().err


def test_feature_files(features: Path, tmp_path: Path) -> None:
    held = np.load(features)["features"]
    path = tmp_path / "f.pkl"
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps(held, protocol))
        np.testing.assert_array_equal(read_features(path), held)

    class Bad:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    wrong = [Bad(), [held], {"features": held}, np.array([None]), held[:, :5]]
    for value in wrong:
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(Refused, match=r"f\.pkl"):
            read_features(path)
    np.savez(tmp_path / "o.npz", features=np.array([None]))
    with pytest.raises(Refused, match=r"o\.npz"):
        read_features(tmp_path / "o.npz")
    assert not (tmp_path / "ran").exists()


def _made(rows: int = 900) -> pd.DataFrame:
    """Passes whose flux follows L and the last hour of AE, each pass with an offset of its own."""
    rng = np.random.default_rng(0)
    passes = np.repeat(np.arange(rows // 5), 5)
    ae = rng.lognormal(5, 0.7, (rows // 5, 36)).round() + 1
    level = rng.uniform(1.5, 7, rows // 5)[passes]
    drive = np.log(ae[passes, :12].mean(1) / 150)
    own = rng.normal(0, 0.5, rows // 5)[passes]
    table = pd.DataFrame({
        "time": pd.Timestamp("2013-08-01", tz="UTC") + pd.to_timedelta(passes * 18, "h")
        + pd.to_timedelta(np.arange(rows) % 5 * 4, "s"),
        "L": level, "MLT": rng.uniform(0, 24, rows // 5)[passes],
        "flux_0": 80 * 10 ** np.clip(drive + (level - 3) / 3 + own, 0, None),
    })  # fmt: skip
    return table.join(pd.DataFrame(ae[passes], columns=[f"AE_lag{k:02d}" for k in range(36)]))


def test_conjunctions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.csv"
    _made().to_csv(path, index=False)
    rows = cj.read(path)
    np.testing.assert_array_equal(rows.x["ae"][:, -1], _made()["AE_lag00"])  # oldest first
    for fold in cj.plan([path], Evaluation(leak=False), None, None):
        guard(fold)
        tested = fold.test[0].windows
        learned = np.concatenate([w.time for w in fold.train])
        out = rows.time[~np.isin(rows.time, [*learned, *tested.time])]
        assert all(np.abs(tested.time - t).min() <= np.timedelta64(6, "h") for t in out)
        share = np.concatenate([w.y["occurrence"].numpy() for w in fold.train if w.y]).mean()
        assert share == pytest.approx(0.8, abs=0.01)
    assert _run("ech", "conjunctions", str(path), "--no-leak", "--out", str(tmp_path),
                "--members", "2", "--epochs", "1") == 0  # fmt: skip
    table = pd.read_csv(tmp_path / "scores.csv")
    got = table[table["group"] == "all"].set_index(["metric", "model"])["value"]
    assert got["r2", "lightgbm"] > 0.2 > got["r2", "rate"]
    said = certificate.read(tmp_path / "certificate.json")
    assert said["folds"][0]["embargo"] == "6 h" and said["certifies"] == "recipe"
    assert _run("ech", "conjunctions", str(path), "--no-leak", "--test", str(path)) == 1
    assert "must be later" in capsys.readouterr().err
    (tmp_path / "d.csv").write_text("time,L\n1,2\n")
    with pytest.raises(Refused, match="lacks the column"):
        cj.read(tmp_path / "d.csv")


def test_a_random_split_flatters(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    _made().to_csv(path, index=False)
    folds = list(cj.plan([path], Evaluation(), None, None))
    assert len(list(cj.plan([path], Evaluation(leak=False), None, None))) == 5
    assert [f.aside for f in folds] == [bool(f.leaks) for f in folds] == [False] * 5 + [True]
    found = []
    for fold in (folds[0], folds[5]):
        scene = fold.test[0]
        said = lightgbm(fold.train, Recipe())(blind(scene.windows))
        table = judge.judge(said, scene, Recipe(), Options())
        assert set(table["group"]) <= {cj.RANDOM if fold.leaks else "2013"}
        found.append(scores.r2(table, np.ones(len(table))))
    assert found[1] > found[0] > 0


def test_a_committee_averages_probabilities() -> None:
    torch.manual_seed(0)
    members = [Member(Recipe(width=8, joint=16, share=False)).eval() for _ in range(3)]
    x = {"ae": 200 * torch.rand(5, 36), "place": torch.rand(5, 1, 3)}
    with torch.no_grad():
        out = Committee(members)(**x)
        chance = torch.stack([torch.sigmoid(m(**x)["logit"]) for m in members]).mean(0)
        mean = torch.stack([m(**x)["mean"] for m in members])
    torch.testing.assert_close(torch.sigmoid(out["logit"]), chance)
    torch.testing.assert_close(out["mean"], mean.mean(0))
    assert (out["spread"] > mean.std(0, unbiased=False)).all()


def test_bad_cells_of_conjunctions_cost_their_row_only(tmp_path: Path) -> None:
    table, path = _made(), tmp_path / "c.csv"
    table.loc[3, "AE_lag05"] = np.nan
    table.loc[4, "AE_lag06"] = 0.0
    table.loc[5, "flux_0"] = 0.0
    table.loc[6, "flux_0"] = -1.0
    table.to_csv(path, index=False)
    with pytest.warns(UserWarning, match=r"1 rows .* the first is AE_lag05 in row 4"):
        rows = cj.read(path)
    assert len(rows) == len(table) - 1 and rows.x["ae"].min() == 1.0 and rows.y is not None
    np.testing.assert_array_equal(rows.y["flux"][[4, 5], 0], 0)
    staged = cj.two_stages(rows, 0.0).y
    assert staged is not None and (staged["occurrence"][[4, 5]] == 0).all()
    assert torch.isnan(staged["amplitude"][[4, 5]]).all()
    np.testing.assert_allclose(staged["amplitude"][0, 0], np.log10(table["flux_0"][0]), rtol=1e-6)
    table.loc[10:800, "L"] = np.inf
    table.to_csv(path, index=False)
    with pytest.raises(Refused, match=r"108 whole rows; 200 .* AE_lag05 in row 4"):
        cj.read(path)
    table.loc[:, "flux_0"] = 0.0
    table.assign(L=4.0, AE_lag05=9.0).to_csv(path, index=False)
    with pytest.raises(Refused, match="no flux_0 is above zero"):
        cj.read(path)


def test_a_later_file_may_hold_earlier_rows(tmp_path: Path) -> None:
    table = _made()
    early, late = tmp_path / "early.csv", tmp_path / "late.csv"
    table[:600].to_csv(early, index=False)
    table.to_csv(late, index=False)
    rows = cj.read(early)
    with pytest.warns(UserWarning, match="600 rows earlier than 6 h after"):
        later = cj._later(late, rows, early)
    assert len(later) == 300 and later.time.min() > rows.time.max() + np.timedelta64(6, "h")
    table[:700].to_csv(late, index=False)
    with pytest.raises(Refused, match=r"100 rows are left .*must be later"):
        cj._later(late, rows, early)
