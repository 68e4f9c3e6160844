"""Parity with Keras, and the ways in which windows are shared."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from terrella import weights
from terrella.predict import predict
from terrella.steps.window import as_tensor, slide
from terrella.tasks.precipitation.network import build
from terrella.tasks.precipitation.prepare import published_features
from terrella.tasks.precipitation.published import read
from terrella.tasks.precipitation.task import Recipe
from terrella.types import Refused, Windows

GOLDEN = Path(__file__).parents[1] / "golden"
KERAS = GOLDEN / "keras_bilstm.npz"
CONV = Recipe(network="conv", features="counts", window=29, hidden=16, dense=8, dropout=0.0)


def windows_of(features: np.ndarray, length: int) -> Windows:
    x = slide(as_tensor(features), length)
    rows = len(x)
    return Windows({"flux": x}, np.zeros(rows, "M8[ns]"), np.ones(rows, bool))


def test_parity_with_keras() -> None:
    state, recipe, _ = read([KERAS])
    network = build(recipe)
    network.load_state_dict(state)
    with np.load(KERAS, allow_pickle=False) as file:
        flux, wanted = file["flux"], file["probability"]
    logits = predict(network, windows_of(published_features(flux), 7))["logits"]
    got = torch.softmax(torch.from_numpy(logits), 1).numpy()
    assert wanted.std(0).min() > 0.02, "the fixture must tell windows apart"
    np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_the_published_shape_has_the_published_size() -> None:
    assert sum(p.numel() for p in build(Recipe()).parameters()) == 71_171


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(activation="tanh"), CONV])
def test_shared_and_copied_windows_agree(recipe: Recipe) -> None:
    torch.manual_seed(1)
    network = build(recipe).eval()
    channels = 8 if recipe.features == "published" else 10
    x = slide(torch.randn(200, channels), recipe.window)
    with torch.inference_mode():
        shared, copied = network(flux=x)["logits"], network(flux=x.clone())["logits"]
    torch.testing.assert_close(shared, copied, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_training_and_running_walk_alike(activation: str) -> None:
    torch.manual_seed(4)
    network = build(Recipe(activation=activation, dropout=0.0))
    x = slide(torch.randn(60, 8), 7)
    learning = network(flux=x)["logits"]
    with torch.no_grad():
        running = network(flux=x)["logits"]
    torch.testing.assert_close(learning, running, atol=1e-6, rtol=1e-5)
    learning.square().sum().backward()
    assert network.ahead.grad is not None and float(network.ahead.grad.abs().sum()) > 0


@pytest.mark.parametrize("recipe", [Recipe(), CONV])
def test_pieces_do_not_change_the_answer(recipe: Recipe) -> None:
    torch.manual_seed(2)
    network = build(recipe)
    channels = 8 if recipe.features == "published" else 10
    windows = windows_of(np.random.default_rng(0).normal(size=(333, channels)), recipe.window)
    whole, pieces = predict(network, windows, 10_000), predict(network, windows, 17)
    np.testing.assert_allclose(whole["logits"], pieces["logits"], atol=1e-5)


@pytest.mark.parametrize("recipe", [Recipe(), CONV])
def test_a_row_sees_its_window_and_nothing_else(recipe: Recipe) -> None:
    torch.manual_seed(3)
    network = build(recipe).eval()
    channels = 8 if recipe.features == "published" else 10
    series = torch.randn(90, channels)
    row = 20
    with torch.inference_mode():
        before = network(flux=slide(series, recipe.window))["logits"][row]
        outside = series.clone()
        outside[:row] += 9.0
        outside[row + recipe.window :] += 9.0
        inside = series.clone()
        inside[row] += 9.0
        same = network(flux=slide(outside, recipe.window))["logits"][row]
        other = network(flux=slide(inside, recipe.window))["logits"][row]
    torch.testing.assert_close(before, same, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, other, atol=1e-3)


def test_a_window_that_no_convolution_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="5, 13, 29, 61"):
        build(Recipe(network="conv", window=30))


@pytest.mark.parametrize("missing", ["kernel", "bias", "scaler_mean", "dense"])
def test_an_incomplete_file_is_refused(tmp_path: Path, missing: str) -> None:
    with np.load(KERAS, allow_pickle=False) as file:
        arrays = {k: file[k] for k in file.files}
    gone = next(k for k in arrays if k.endswith(missing) or missing in k)
    arrays.pop(gone)
    np.savez(tmp_path / "part.npz", **arrays)
    with pytest.raises(Refused, match=r"part\.npz"):
        read([tmp_path / "part.npz"])


def test_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(Refused, match="plain arrays"):
        read([tmp_path / "objects.npz"])


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    with np.load(KERAS, allow_pickle=False) as file:
        arrays = {k: file[k] for k in file.files}
    arrays["scaler_mean"] = arrays["scaler_mean"][:5]
    np.savez(tmp_path / "short.npz", **arrays)
    with pytest.raises(Refused, match="shape"):
        read([tmp_path / "short.npz"])


def test_a_saved_model_needs_tensorflow_or_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    shutil.copytree(GOLDEN / "keras_saved_model", folder)
    both = [folder, GOLDEN / "scaler.joblib"]
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        with pytest.raises(Refused, match="needs TensorFlow"):
            read(both)
        return
    state, recipe, _ = read(both)
    wanted, wanted_recipe, _ = read([KERAS])
    assert recipe == wanted_recipe
    for name, values in wanted.items():
        torch.testing.assert_close(state[name], values)


def test_import_names_what_it_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"one \.npz"):
        weights.import_published("precipitation", [KERAS, KERAS], "mine")
    with pytest.raises(Refused, match="--name"):
        weights.import_published("precipitation", [KERAS], "../mine")
    path = weights.import_published("precipitation", [KERAS], "mine")
    assert weights.load("precipitation", "mine").card.sha256
    assert path.with_suffix(".toml").is_file()
