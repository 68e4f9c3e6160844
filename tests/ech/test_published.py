"""The published layout and the published networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from terrella.sources.geomagnetic import by_minute, merge
from terrella.tasks.ech import importer
from terrella.tasks.ech.features import HISTORIES, flatten, history_features, place_features, split
from terrella.tasks.ech.model import Published
from terrella.tasks.ech.predict import predict
from terrella.tasks.ech.published import DeepECH
from terrella.types import Refused, Windows


def test_layout() -> None:
    minutes = np.arange(4000.0)
    found = history_features(minutes, -minutes, np.array([2880, 3000]))
    row = flatten(
        place_features(np.array([5.0, 6]), np.array([6.0, 0]), np.array([60.0, 0])), found
    )
    assert row.shape == (2, 224)
    np.testing.assert_allclose(row[0, :4], [5, 0, 1, 0.5**6], atol=1e-12)
    np.testing.assert_array_equal(row[1, 4:53], np.arange(120, 3001, 60))
    np.testing.assert_array_equal(row[1, 102:163], np.arange(2700, 3001, 5))
    np.testing.assert_array_equal(row[1, 163:], -np.arange(2700, 3001, 5))
    place, histories = split(row)
    np.testing.assert_array_equal(flatten(place, histories), row)
    with pytest.raises(ValueError, match="2880 min"):
        history_features(minutes, minutes, np.array([2879]))


def test_parameters_and_names() -> None:
    for histories, count in ((2, 2_850_417), (4, 3_015_921)):
        network = DeepECH(histories)
        assert sum(p.numel() for p in network.parameters()) == count
        assert {
            "lstm1.lstm.weight_ih_l0",
            "lstm2.attention.attention.weight",
            "fc8.bias",
            "pos_fc3.weight",
        } <= set(network.state_dict())


def _features(rows: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rng = np.random.default_rng(0)
    sme, symh = rng.lognormal(5, 0.6, 4000).round(), rng.normal(-20, 15, 4000).round()
    found = history_features(sme, symh, np.arange(2880, 2880 + rows))
    place = place_features(
        rng.uniform(2, 7, rows), rng.uniform(0, 24, rows), rng.uniform(-20, 20, rows)
    )
    return (
        {k: torch.from_numpy(v.astype(np.float32)) for k, v in found.items()},
        torch.from_numpy(place.astype(np.float32)),
    )


def test_sharing_work_over_a_map_changes_nothing() -> None:
    torch.manual_seed(0)
    network = Published().eval()
    histories, place = _features(3)
    grid = _features(50)[1]
    x = {**histories, "place": grid.unsqueeze(0).expand(3, -1, -1)}
    shared = predict(network, Windows(x, np.zeros(3, "M8[ns]"), np.ones(3, bool)))
    for row in range(3):
        each = {k: v[row : row + 1].expand(50, -1) for k, v in histories.items()}
        with torch.inference_mode():
            one = network(place=grid.unsqueeze(1), **each)
        np.testing.assert_allclose(shared["logit"][row], one["logit"][:, 0], atol=1e-5)
        np.testing.assert_allclose(shared["mean"][row], one["mean"][:, 0], atol=1e-5)
    assert np.isnan(shared["spread"]).all()
    assert place.shape == (3, 4)


def test_import_refuses_what_is_not_weights(tmp_path: Path) -> None:
    good = [tmp_path / "cls.pth", tmp_path / "reg.pth"]
    torch.save({"model_state_dict": DeepECH(4).state_dict()}, good[0])
    torch.save({f"module.{k}": v for k, v in DeepECH(2).state_dict().items()}, good[1])
    state, recipe, _ = importer.read(good)  # the other way round, wrapped: told by content
    Published().load_state_dict(state)
    assert recipe.network == "deepech"
    with pytest.raises(Refused, match="two"):
        importer.read(good[:1])
    with pytest.raises(Refused, match="amplitude network"):
        importer.read([good[1], good[1]])
    bad = tmp_path / "bad.pth"
    torch.save({"x": [1, 2]}, bad)
    with pytest.raises(Refused, match=r"bad\.pth"):
        importer.read([bad, good[0]])
    bad.write_bytes(b"cposix\nsystem\n(S'echo x'\ntR.")
    with pytest.raises(Refused, match="weights only"):
        importer.read([bad, good[0]])
    torch.save({"x": tmp_path}, bad)
    with pytest.raises(Refused, match=r"objects that are not tensors, which are never loaded\)"):
        importer.read([bad, good[0]])
    (tmp_path / "rnd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Refused, match="neither a torch checkpoint nor safetensors"):
        importer.read([tmp_path / "rnd.csv", good[0]])
    with pytest.raises(Refused, match="no such file"):
        importer.read([tmp_path / "none.pth", good[0]])


@pytest.mark.realdata
def test_random_references(realdata: Path) -> None:
    held = np.load(realdata / "ech/deepech_sample_features.npz", allow_pickle=False)["features"]
    paths = [realdata / f"ech/random_{n}.safetensors" for n in ("occurrence", "amplitude")]
    state, _, _ = importer.read(paths)
    network = Published().eval()
    network.load_state_dict(state)
    place, histories = split(held)
    x = {k: torch.from_numpy(v.astype(np.float32)) for k, v in histories.items()}
    x["place"] = torch.from_numpy(place.astype(np.float32)).unsqueeze(1)
    out = predict(network, Windows(x, np.zeros(len(held), "M8[ns]"), np.ones(len(held), bool)))
    for key, name in (("logit", "occurrence"), ("mean", "amplitude")):
        wanted = np.load(realdata / f"ech/random_{name}_reference.npz")["output"]
        assert np.abs(out[key][:, 0] - wanted).max() < 1e-4
        flipped = {k: v.flip(1) if k in HISTORIES else v for k, v in x.items()}
        other = predict(
            network, Windows(flipped, np.zeros(len(held), "M8[ns]"), np.ones(len(held), bool))
        )
        assert np.abs(other[key][:, 0] - wanted).max() > 0.05
    assert load_file(paths[0]).keys() <= network.occurrence.state_dict().keys()


@pytest.mark.realdata
def test_features_from_the_public_reader_equal_the_sample(realdata: Path) -> None:
    held = np.load(realdata / "ech/deepech_sample_features.npz", allow_pickle=False)["features"]
    record = merge([realdata / "ech/deepech_sample_indices_1min.csv"])
    first = record["SME"]["time"].values[0]
    sme, symh = (by_minute(record[n], first, 4320, 0)[0] for n in ("SME", "SYM_H"))
    found = history_features(sme, symh, np.arange(2880, 4320))
    np.testing.assert_array_equal(flatten(held[:, :4], found), held)
