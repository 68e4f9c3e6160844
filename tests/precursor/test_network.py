"""Networks: torchvision's names and shapes, parity, import, loss, augmentations, Grad-CAM."""

from __future__ import annotations

import ast
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from terrella.tasks.precursor import augment
from terrella.tasks.precursor.gradcam import band_share, gradcam
from terrella.tasks.precursor.network import BACKBONES, build, class_weights, loss, published_names
from terrella.tasks.precursor.published import read
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE, Recipe
from terrella.types import Refused


@pytest.mark.realdata
def test_tiny_has_the_published_names_and_shapes(realdata: Path) -> None:
    text = (realdata / "precursor" / "convnext_tiny_state_dict_keys.txt").read_text()
    expected = {
        name: ast.literal_eval(shape)
        for name, shape in (line.split(" ", 1) for line in text.splitlines())
    }
    network = build(Recipe(backbone="tiny", scaling="imagenet"))
    assert {k: tuple(v.shape) for k, v in published_names(network).items()} == expected


@pytest.mark.realdata
def test_parity_with_the_reference(realdata: Path) -> None:
    folder = realdata / "precursor"
    state, recipe, _ = read([folder / "random_convnext_small.safetensors"])
    assert recipe.backbone == "micro"
    network = build(recipe)
    network.load_state_dict(state)
    network.mean.zero_()
    network.deviation.fill_(1.0)  # the reference was made on raw images
    with np.load(folder / "random_convnext_small_reference.npz", allow_pickle=False) as known:
        with torch.inference_mode():
            found = network.eval()(torch.from_numpy(known["image"]))
        for name in ("magnitude", "azimuth"):
            assert np.abs(found[name].numpy() - known[name]).max() < 1e-4


@pytest.mark.parametrize(("name", "count"), [("tiny", 27_818_592), ("efficientnet_b0", 4_007_548)])
def test_backbones_have_torchvisions_size(name: str, count: int) -> None:
    network = build(Recipe(backbone=name, scaling="imagenet"))  # type: ignore[arg-type]
    assert sum(p.numel() for p in network.backbone.parameters()) == count


def b0_layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes of EfficientNet-B0's features as torchvision publishes them."""
    out: dict[str, tuple[int, ...]] = {}

    def conv(name: str, outside: int, inside: int, kernel: int) -> None:
        out[f"{name}.0.weight"] = (outside, inside, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            out[f"{name}.1.{part}"] = (outside,)
        out[f"{name}.1.num_batches_tracked"] = ()

    conv("features.0", 32, 3, 3)
    # Table 1 of Tan & Le 2019, arXiv:1905.11946: expansion, kernel, channels, layers.
    stages = [(1, 3, 16, 1), (6, 3, 24, 2), (6, 5, 40, 2), (6, 3, 80, 3), (6, 5, 112, 3),
              (6, 5, 192, 4), (6, 3, 320, 1)]  # fmt: skip
    inside = 32
    for stage, (expand, kernel, outside, layers) in enumerate(stages, 1):
        for layer in range(layers):
            block, wide, k = f"features.{stage}.{layer}.block", inside * expand, 0
            if expand > 1:
                conv(f"{block}.0", wide, inside, 1)
                k = 1
            conv(f"{block}.{k}", wide, 1, kernel)
            narrow = inside // 4
            out[f"{block}.{k + 1}.fc1.weight"] = (narrow, wide, 1, 1)
            out[f"{block}.{k + 1}.fc1.bias"] = (narrow,)
            out[f"{block}.{k + 1}.fc2.weight"] = (wide, narrow, 1, 1)
            out[f"{block}.{k + 1}.fc2.bias"] = (wide,)
            conv(f"{block}.{k + 2}", outside, wide, 1)
            inside = outside
    conv("features.8", 1280, 320, 1)
    return out


def test_efficientnet_has_torchvisions_names_and_shapes() -> None:
    network = build(Recipe(backbone="efficientnet_b0", scaling="imagenet"))
    found = {k: tuple(v.shape) for k, v in network.backbone.state_dict().items()}
    assert found == b0_layout()
    assert len(found) == 358  # 360 with the classifier, which the two heads replace


def test_an_efficientnet_checkpoint_is_imported(tmp_path: Path) -> None:
    network = build(Recipe(backbone="efficientnet_b0", scaling="imagenet"))
    # torchvision's own classifier may have been left in.
    state = {**published_names(network), "backbone.classifier.1.weight": torch.zeros(1000, 1280)}
    path = tmp_path / "b0.pth"
    torch.save({"model_state_dict": state}, path)
    found, recipe, _ = read([path])
    assert recipe.backbone == "efficientnet_b0"
    again = build(recipe)
    again.load_state_dict(found)


@pytest.mark.parametrize("name", ["light", "micro", "efficientnet_b0"])
def test_every_backbone_runs_and_learns(name: str) -> None:
    network = build(Recipe(backbone=name, size=64, hidden=32))  # type: ignore[arg-type]
    image = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    network.fit_scale({"image": image})
    out = network(image)
    assert out["magnitude"].shape == (6, len(MAGNITUDE))
    assert out["azimuth"].shape == (6, len(AZIMUTH))
    ones = torch.ones(6)
    y = {"magnitude": torch.arange(6) % 4, "azimuth": torch.tensor([0, 1, -1, 3, 4, -1]),
         "magnitude_weight": ones, "azimuth_weight": ones, "focus": 0 * ones}  # fmt: skip
    loss(out, y, ones).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_loss_is_cross_entropy_and_focal() -> None:
    logits = {"magnitude": torch.randn(8, 4), "azimuth": torch.randn(8, 9)}
    ones = torch.ones(8)
    y = {"magnitude": torch.arange(8) % 4, "azimuth": torch.arange(8), "focus": 0 * ones,
         "magnitude_weight": ones, "azimuth_weight": ones}  # fmt: skip
    plain = [torch.nn.functional.cross_entropy(logits[k], y[k]) for k in ("magnitude", "azimuth")]
    assert float(loss(logits, y, ones)) == pytest.approx(float(plain[0] + 0.5 * plain[1]), rel=1e-5)
    assert loss(logits, {**y, "focus": 2 * ones}, ones) < loss(logits, y, ones)
    weight = class_weights(torch.tensor([0, 0, 0, 1, -1]), 4)
    assert weight[1] == pytest.approx(3 * weight[0]) and weight[2] == 0


@pytest.mark.parametrize("kind", ["physical", "published", "none"])
def test_augmentations_keep_the_range(kind: str) -> None:
    torch.manual_seed(0)
    image = torch.rand(12, 3, 48, 48)
    made = augment.apply(image, kind)
    assert made.shape == image.shape and made.min() >= 0 and made.max() <= 1
    assert torch.equal(made, image) == (kind == "none")


def test_physical_augmentation_keeps_frequencies_in_place() -> None:
    torch.manual_seed(0)
    image = torch.zeros(20, 3, 40, 40) + 0.2
    image[:, :, 10] = 0.8
    made = augment.physical(image, noise=0.0, gain=0.0)
    torch.testing.assert_close(made.mean(3), image.mean(3))


def test_gradcam_finds_what_the_score_rests_on() -> None:
    torch.manual_seed(0)
    network = build(Recipe(size=64, hidden=16, scaling="none")).eval()
    image = torch.full((4, 3, 64, 64), 0.2)
    image[:, :, 20:28] = 0.9
    for head in ("magnitude", "azimuth"):
        with torch.no_grad():
            gain = network(image)[head] - network(torch.zeros(1, 3, 64, 64))[head]
        maps = gradcam(network, image, head, gain.argmax(1), layer=-2, steps=4)
        assert maps.shape == (4, 64, 64) and maps.max() <= 1.0001 and maps.min() >= 0
    assert not network.training
    assert all(p.grad is None for p in network.parameters()), "nothing is left on the network"
    flat = np.ones((2, 50, 10), np.float32)
    np.testing.assert_allclose(band_share(flat, 0.1, 0.2), 0.2, atol=0.03)


# Published checkpoints


def wrapped(tmp_path: Path, order: list[str] | None = None) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(3)
    network = build(Recipe(backbone="micro", hidden=32, scaling="imagenet")).eval()
    state = dict(published_names(network))
    if order is not None:
        turn = [MAGNITUDE.index(n) for n in order]
        state |= {f"mag_head.5.{k}": state[f"mag_head.5.{k}"][turn] for k in ("weight", "bias")}
        (tmp_path / "class_mappings.json").write_text(
            json.dumps({"magnitude_classes": order, "azimuth_classes": list(AZIMUTH)})
        )
    path = tmp_path / "best_model.pth"
    torch.save({"epoch": 7, "model_state_dict": state, "config": {"lr": 1e-4}}, path)
    return path, network


@pytest.mark.parametrize("order", [None, ["Normal", "Moderate", "Medium", "Large"]])
def test_a_wrapped_checkpoint_is_imported(tmp_path: Path, order: list[str] | None) -> None:
    path, network = wrapped(tmp_path, order)
    state, recipe, fields = read([path])
    again = build(recipe)
    again.load_state_dict(state)
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        for name, expected in network(image).items():
            torch.testing.assert_close(again.eval()(image)[name], expected)
    assert "certificate" in " ".join(fields["notes"])


class Sneaky:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


def test_what_is_no_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.pth"
    bodies = [b"", b"hello", pickle.dumps(Sneaky())]
    for body in bodies:
        path.write_bytes(body)
        with pytest.raises(Refused) as refusal:
            read([path])
        assert "\n" not in str(refusal.value)
    torch.save({"weights": {"a": Sneaky()}}, path)
    with pytest.raises(Refused, match="more than weights"):
        read([path])
    torch.save({"state_dict": {"backbone.x": torch.ones(2)}}, path)
    with pytest.raises(Refused, match="no heads"):
        read([path])
    assert "code ran" not in capsys.readouterr().out
    assert "light" in BACKBONES
