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
from terrella.tasks.ech import conjunctions as cj
from terrella.tasks.ech.commands import read_features
from terrella.tasks.ech.published import DeepECH
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
    np.testing.assert_array_equal(rows.ae[:, -1], _made()["AE_lag00"])  # oldest first
    for train, test in cj.folds(rows, "blocked", 5, 0):
        assert not set(rows.block[train]) & set(rows.block[test]) and (train ^ test).all()
    assert _run("ech", "conjunctions", str(path), "--out", str(tmp_path / "o"), "--members", "1",
                "--epochs", "2") == 0  # fmt: skip
    got = pd.read_csv(tmp_path / "o" / "scores.csv")
    assert set(got["model"]) == set(cj.MODELS) and got["split"].nunique() == 2
    assert (got["lo"] <= got["hi"]).all() and (
        tmp_path / "o" / "conjunctions.png"
    ).stat().st_size > 5000
    value = got.set_index(["split", "metric", "model"])["value"].unstack("split")
    blocked, leaky = value.columns
    assert value.loc[("r2", "lightgbm"), leaky] > value.loc[("r2", "lightgbm"), blocked]
    assert value.loc[("r2", "lightgbm"), blocked] > 0.2
    assert _run("ech", "conjunctions", str(path), "--test", str(path)) == 1
    assert "must be later" in capsys.readouterr().err
    (tmp_path / "d.csv").write_text("time,L\n1,2\n")
    with pytest.raises(Refused, match="lacks the column"):
        cj.read(tmp_path / "d.csv")


def test_weighted_scores_equal_repeated_rows() -> None:
    from sklearn.metrics import r2_score, roc_auc_score

    rng = np.random.default_rng(0)
    p, seen = rng.random(300).round(2), (rng.random(300) < 0.4).astype(float)
    weight = rng.integers(0, 3, 300)
    many = np.repeat(np.arange(300), weight)
    assert cj.auc(p, seen, weight.astype(float)) == pytest.approx(
        roc_auc_score(seen[many], p[many])
    )
    assert cj.explained(p, seen, weight.astype(float)) == pytest.approx(
        r2_score(seen[many], p[many])
    )
