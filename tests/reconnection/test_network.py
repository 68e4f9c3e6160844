from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from terrella import weights
from terrella.tasks.reconnection.baselines import hand
from terrella.tasks.reconnection.network import (
    OFFSETS,
    TOLD,
    Context,
    Published,
    around,
    loss,
    predict,
)
from terrella.tasks.reconnection.prepare import chunks, prepare
from terrella.tasks.reconnection.task import Options, Recipe
from terrella.types import Refused, Windows


def rows(features: torch.Tensor, mode: str, before: int, after: int = 0, **extra: Any) -> Windows:
    n = len(features)
    base = torch.cat([torch.zeros(before, 14), features, torch.zeros(after, 14)])
    view = base.unfold(0, before + 1 + after, 1).transpose(1, 2)
    more = {"mode": mode, "place": before, "segment": np.zeros(n, int), "probe_rows": [0, n],
            "factors": [np.ones((1, 14), np.float32)], **extra}  # fmt: skip
    return Windows({"features": view}, np.zeros(n, "M8[ns]"), np.ones(n, bool), extra=more)


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(203, 14, generator=torch.Generator().manual_seed(1))


def brute(network: Published, features: torch.Tensor, start: list[int]) -> np.ndarray:
    """Each sample as the end of its own un-batched sequence from ``start``."""
    with torch.inference_mode():
        logits = [network.fc(network.rnn(features[s : i + 1])[0])[-1] for i, s in enumerate(start)]
    return torch.softmax(torch.stack(logits), 1).numpy()


def test_published_mode_resets_the_state_every_32_rows(features: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = Published()
    got = predict(network, rows(features, "published", 31))["probability"]
    starts = [32 * (i // 32) for i in range(len(features))]
    np.testing.assert_allclose(got, brute(network, features, starts), atol=1e-6)


@pytest.mark.parametrize("window", [1, 7, 32])
def test_overlap_gives_every_sample_its_own_context(features: torch.Tensor, window: int) -> None:
    torch.manual_seed(0)
    network = Published(hidden=9, layers=3)
    got = predict(network, rows(features, "overlap", window - 1))["probability"]
    starts = [max(i - window + 1, 0) for i in range(len(features))]
    wanted = brute(network, features, starts)
    np.testing.assert_allclose(got[window - 1 :], wanted[window - 1 :], atol=1e-6)


def test_modes_differ(features: torch.Tensor) -> None:
    network = Published()
    a = predict(network, rows(features, "published", 31))["probability"]
    b = predict(network, rows(features, "overlap", 31))["probability"]
    assert np.abs(a - b).max() > 1e-4
    np.testing.assert_allclose(a[31::32], b[31::32], atol=1e-6)  # the last row of each chunk


def test_chunks_begin_anew_at_a_break() -> None:
    number, place = chunks(np.array([0] * 5 + [1] * 3), 4)
    assert number.tolist() == [0, 0, 0, 0, 1, 2, 2, 2]
    assert place.tolist() == [0, 1, 2, 3, 0, 0, 1, 2]


def test_what_is_told_of_a_sample(features: torch.Tensor) -> None:
    """Around each sample of a series, as a plain loop has it."""
    told = around(features, 31, 31).numpy().reshape(-1, TOLD, 14)
    assert len(told) == len(features) - 62
    x = features.double().numpy()
    for row in (0, 70, len(told) - 1):
        i = row + 31
        want = [x[i], x[i - 31 : i + 32].std(0)]
        spans = ((i - 3, i + 3), (i - 10, i + 10), (i - 31, i), (i, i + 31))
        want += [x[lo : hi + 1].mean(0) - x[i] for lo, hi in spans]
        want += [x[i + k] - x[i] for k in OFFSETS]
        np.testing.assert_allclose(told[row], want, atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(2, 9), (0, 0), (31, 0)])
def test_a_short_context_is_told_as_far_as_it_goes(
    features: torch.Tensor, before: int, after: int
) -> None:
    windows = rows(features, "overlap", before, after)
    told = around(windows.x["features"], before, after)[:, 0]
    assert told.shape == (len(features), 14 * TOLD) and torch.isfinite(told).all()
    np.testing.assert_allclose(hand(windows), told.numpy(), atol=1e-5)


def test_sums_that_are_shared_change_nothing(features: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = Context(hidden=8, before=5, after=9).eval()
    network.fit_scale({"features": rows(features, "overlap", 5, 9).x["features"]})
    windows = rows(features, "overlap", 5, 9)
    with torch.inference_mode():
        wanted = torch.softmax(network(windows.x["features"])["logits"], 1).numpy()
    np.testing.assert_allclose(predict(network, windows)["probability"], wanted, atol=1e-6)


def test_draws_are_averaged_and_their_spread_is_told(features: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = Context(hidden=8, before=3, after=3)
    factors = np.stack([np.full(14, f, np.float32) for f in (0.5, 1.0, 2.0)])
    each = [
        predict(network, rows(features * f, "overlap", 3, 3))["probability"]
        for f in (0.5, 1.0, 2.0)
    ]
    got = predict(network, rows(features, "overlap", 3, 3, factors=[factors]))
    np.testing.assert_allclose(got["probability"], np.mean(each, 0), atol=1e-6)
    best = got["probability"].argmax(1)
    spread = np.std(each, 0)[np.arange(len(best)), best]
    np.testing.assert_allclose(got["spread"], spread, atol=1e-3)


def test_doubt_softens_the_target() -> None:
    logits = torch.tensor([[8.0, 0, 0, 0, 0, 0]], requires_grad=True)
    y = {"region": torch.tensor([0]), "doubt": torch.tensor([0.05])}
    sure = loss({"logits": logits}, y, torch.ones(1))
    doubtful = loss({"logits": logits}, {**y, "doubt": torch.tensor([0.3])}, torch.ones(1))
    assert float(sure.detach()) < 0.01 < float(doubtful.detach())


def test_calibration_finds_the_temperature(features: torch.Tensor) -> None:
    torch.manual_seed(0)
    network: Any = Context(hidden=8, before=2, after=2)
    part = rows(torch.randn(4000, 14), "overlap", 2, 2)
    with torch.no_grad():
        network.head.weight.mul_(6.0)
    p = predict(network, part)["probability"]
    rng = np.random.default_rng(0)
    truth = np.array([rng.choice(6, p=row / row.sum()) for row in p.astype(float)])
    with torch.no_grad():  # make it three times too sure of itself
        network.head.weight.mul_(3.0)
        network.head.bias.mul_(3.0)
    part = Windows(part.x, part.time, part.valid, y={"region": torch.from_numpy(truth),
                   "doubt": torch.zeros(4000)}, extra=part.extra)  # fmt: skip
    network.settle([part])
    assert 2.4 < float(network.temperature) < 3.7


def test_import_of_a_state_dict(tmp_path: Path) -> None:
    network = Published()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "model.pt")
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    for name in ("model.pt", "model.safetensors"):
        weights.import_published("reconnection", [tmp_path / name], "mine")
        again = weights.load("reconnection", "mine")
        assert again.recipe.kind == "waters2025"
        for key, value in network.state_dict().items():
            assert torch.equal(again.network.state_dict()[key], value)


def test_import_executes_nothing(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Trap()))
    torch.save(Published(), tmp_path / "whole.pt")
    for name in ("bad.pt", "whole.pt"):
        with pytest.raises(Refused, match="not a plain PyTorch state dict"):
            weights.import_published("reconnection", [tmp_path / name], "mine")
    assert not (tmp_path / "sprung").exists()


def test_import_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(6, 42)}, tmp_path / "a.safetensors")
    with pytest.raises(Refused, match=r"has no rnn\.weight_ih_l0"):
        weights.import_published("reconnection", [tmp_path / "a.safetensors"], "mine")
    state = Published().state_dict()
    state["fc.bias"] = torch.zeros(5)
    save_file(state, tmp_path / "b.safetensors")
    with pytest.raises(Refused, match=r"fc\.bias has shape \(5,\), \(6,\) is needed"):
        weights.import_published("reconnection", [tmp_path / "b.safetensors"], "mine")
    (tmp_path / "c.safetensors").write_bytes(b"junk")
    with pytest.raises(Refused, match="not a safetensors file"):
        weights.import_published("reconnection", [tmp_path / "c.safetensors"], "mine")


def test_rows_without_whole_context_have_no_answer(record: dict[str, Any]) -> None:
    windows = prepare(record, Recipe(), Options(b0=15.0, n0=0.3))
    before, after = Recipe().before, Recipe().after
    edges = windows.extra["probe_rows"]
    for lo, hi in pairwise(edges):
        assert not windows.valid[lo : lo + before].any()
        assert not windows.valid[hi - after : hi].any()
        assert windows.valid[lo + before + 8 : hi - after - 8].all()
    # views, not copies
    view = windows.x["features"]
    assert view.untyped_storage().nbytes() < 2 * 4 * 14 * (len(windows) + before + after)


def test_survey_samples_get_no_label(record: dict[str, Any]) -> None:
    windows = prepare(record, Recipe(), Options(b0=15.0, n0=0.3, rate="fast"))
    assert not windows.valid.any() and "je_prime" in windows.extra["crossings"][0].values


def test_samples_at_other_instants_are_missing_not_shifted(record: dict[str, Any]) -> None:
    thin = {k: v for k, v in record.items() if k.startswith("mms1")}
    thin["mms1_ve"] = thin["mms1_ve"].isel(time=np.arange(len(thin["mms1_ve"])) != 100)
    windows = prepare(thin, Recipe(), Options(b0=15.0, n0=0.3))
    crossing = windows.extra["crossings"][0]
    assert np.isnan(crossing.features[100, 11:]).all()
    assert np.isfinite(crossing.features[[99, 101], 11:]).all()
    assert not windows.valid[100 - Recipe().after : 100 + Recipe().before + 1].any()


@pytest.mark.realdata
def test_the_authors_probabilities_are_reproduced(realdata: Path) -> None:
    folder = realdata / "reconnection"
    reference = np.load(folder / "waters2025_reference.npz", allow_pickle=False)
    network = Published()
    network.load_state_dict(load_file(folder / "waters2025.safetensors"))
    windows = rows(torch.from_numpy(reference["features"]), "published", 31)
    got = predict(network, windows)["probability"]
    assert np.abs(got - reference["probability"]).max() < 1e-6
