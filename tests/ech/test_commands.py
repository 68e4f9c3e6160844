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
        assert not set(rows.block[train]) & set(rows.block[test]) and not (train & test).any()
        apart = np.abs(rows.time[train][:, None] - rows.time[test]).min(1)
        assert apart.min() > np.timedelta64(6, "h")
        out = rows.time[~train & ~test]
        assert all(np.abs(rows.time[test] - t).min() <= np.timedelta64(6, "h") for t in out)
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


def test_an_embargo_counts_both_ways() -> None:
    time = np.datetime64("2013-08-01", "ns") + np.arange(0, 48, 2) * np.timedelta64(1, "h")
    kept = cj.apart(time, time[[10, 9]])  # 18 h and 20 h; the order does not matter
    np.testing.assert_array_equal(np.flatnonzero(~kept) * 2, np.arange(12, 28, 2))


def test_bad_cells_of_conjunctions_cost_their_row_only(tmp_path: Path) -> None:
    table, path = _made(), tmp_path / "c.csv"
    table.loc[3, "AE_lag05"] = np.nan
    table.loc[4, "AE_lag06"] = 0.0
    table.loc[5, "flux_0"] = 0.0
    table.loc[6, "flux_0"] = -1.0
    table.to_csv(path, index=False)
    with pytest.warns(UserWarning, match=r"1 rows .* the first is AE_lag05 in row 4"):
        rows = cj.read(path)
    assert len(rows) == len(table) - 1 and rows.ae.min() == 1.0
    np.testing.assert_array_equal(rows.flux[[4, 5]], 0)
    smallest = table["flux_0"][table["flux_0"] > 0].min()
    np.testing.assert_allclose(cj.logged(rows.flux)[[4, 5]], np.log10(smallest))
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
