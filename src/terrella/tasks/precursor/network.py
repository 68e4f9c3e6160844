"""ConvNeXt and EfficientNet-B0 with two heads, in torchvision's parameter names.

The layers are laid out so that a state dict of the published training (torchvision backbone under
``backbone.``, heads ``mag_head`` and ``azi_head``) loads without renaming; torchvision itself is
not needed. Image scaling (ImageNet mean and deviation in the published chain) is a pair of buffers.

ConvNeXt: Liu et al. 2022, doi:10.1109/CVPR52688.2022.01167.
EfficientNet: Tan & Le 2019, arXiv:1905.11946.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrella.tasks.precursor import augment
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE, Recipe
from terrella.types import Refused

#: Depths and widths. "light" is this project's own: it trains in minutes on two cores, and with
#: two stages each place of its last map sees a sixth of a hertz only, so that Grad-CAM can point.
#: "micro" is the four-stage shape at its smallest.
CONVNEXT = {
    "light": ((1, 1), (24, 48)),
    "micro": ((1, 1, 2, 1), (16, 32, 48, 64)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}
BACKBONES = (*CONVNEXT, "efficientnet_b0")

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Expansion, kernel, stride, input, output channels and repeats of EfficientNet-B0's stages.
_B0 = (
    (1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1),
)  # fmt: skip


class Permute(nn.Module):
    """Reorder dimensions; holds no parameter, keeps the places in a Sequential."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = tuple(order)

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> the same values with dimensions in ``order``."""
        return x.permute(self.order)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (rows, channels, height, width)."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape."""
        x = input.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Stochastic depth: in training a row's branch is left out with probability p."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        if not self.training or self.p == 0.0:
            return x
        keep = torch.rand((len(x), *[1] * (x.ndim - 1)), device=x.device) >= self.p
        return x * keep / (1.0 - self.p)


class Block(nn.Module):
    """ConvNeXt block: depthwise 7x7, LayerNorm, 4x wide GELU, layer scale, residual."""

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            Permute((0, 2, 3, 1)),
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            Permute((0, 3, 1, 2)),
        )
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 1e-6))
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, width, h, w) -> same shape."""
        out: Tensor = x + self.drop(self.layer_scale * self.block(x))
        return out


def convnext(depths: Sequence[int], widths: Sequence[int], drop: float = 0.1) -> nn.Sequential:
    """Features of a ConvNeXt: (rows, 3, h, w) -> (rows, widths[-1], h / 32, w / 32)."""
    norm = partial(ChannelNorm, eps=1e-6)
    layers: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), norm(widths[0]))]
    total, done = sum(depths), 0
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            before = widths[stage - 1]
            layers.append(nn.Sequential(norm(before), nn.Conv2d(before, width, 2, stride=2)))
        rates = [drop * (done + k) / max(total - 1, 1) for k in range(depth)]
        layers.append(nn.Sequential(*[Block(width, rate) for rate in rates]))
        done += depth
    return nn.Sequential(*layers)


def _conv(inside: int, outside: int, kernel: int, stride: int, groups: int, act: bool) -> nn.Module:
    parts: list[nn.Module] = [
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside),
    ]
    return nn.Sequential(*parts, *([nn.SiLU()] if act else []))


class Squeeze(nn.Module):
    """Squeeze and excitation: channels weighted by what the whole image holds."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, narrow, 1)
        self.fc2 = nn.Conv2d(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, width, h, w) -> same shape."""
        scale = F.silu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(scale))


class MBConv(nn.Module):
    """EfficientNet's inverted residual: widen, depthwise, squeeze, narrow."""

    def __init__(
        self, expand: int, kernel: int, stride: int, inside: int, outside: int, drop: float
    ) -> None:
        super().__init__()
        wide = inside * expand
        parts = [_conv(inside, wide, 1, 1, 1, True)] if expand != 1 else []
        self.block = nn.Sequential(
            *parts,
            _conv(wide, wide, kernel, stride, wide, True),
            Squeeze(wide, max(1, inside // 4)),
            _conv(wide, outside, 1, 1, 1, False),
        )
        self.drop = DropPath(drop)
        self.residual = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        """(rows, inside, h, w) -> (rows, outside, h / stride, w / stride)."""
        out: Tensor = self.block(x)
        return x + self.drop(out) if self.residual else out


def efficientnet_b0(drop: float = 0.2) -> nn.Sequential:
    """Features of EfficientNet-B0: (rows, 3, h, w) -> (rows, 1280, h / 32, w / 32)."""
    layers: list[nn.Module] = [_conv(3, 32, 3, 2, 1, True)]
    total, done = sum(stage[-1] for stage in _B0), 0
    for expand, kernel, stride, inside, outside, repeats in _B0:
        stage = []
        for k in range(repeats):
            first = k == 0
            stage.append(
                MBConv(
                    expand, kernel, stride if first else 1, inside if first else outside, outside,
                    drop * done / total,
                )
            )  # fmt: skip
            done += 1
        layers.append(nn.Sequential(*stage))
    layers.append(_conv(320, 1280, 1, 1, 1, True))
    return nn.Sequential(*layers)


def head(width: int, hidden: int, classes: int) -> nn.Sequential:
    """LayerNorm-Dropout 0.5-Linear-GELU-Dropout 0.25-Linear: (rows, width) -> logits."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Dropout(0.5),
        nn.Linear(width, hidden),
        nn.GELU(),
        nn.Dropout(0.25),
        nn.Linear(hidden, classes),
    )


class Precursor(nn.Module):
    """Spectrogram image -> magnitude and azimuth logits.

    ``forward(image)`` takes (rows, 3, h, w), bytes or floats in 0 .. 1 (H, D, Z; low frequency
    in the last row, as
    images are drawn) and returns ``{"magnitude": (rows, 4), "azimuth": (rows, 9)}``.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        backbone: nn.Sequential,
        width: int,
        hidden: int = 512,
        scaling: str = "imagenet",
        augmentation: str = "none",
        rows: int = 224,
    ) -> None:
        super().__init__()
        self.scaling, self.augmentation = scaling, augmentation
        self.backbone = nn.Module()
        self.backbone.features = backbone
        self.mag_head = head(width, hidden, len(MAGNITUDE))
        self.azi_head = head(width, hidden, len(AZIMUTH))
        constants = IMAGENET if scaling == "imagenet" else ((0.0,) * 3, (1.0,) * 3)
        for name, values in zip(("mean", "deviation"), constants, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        if scaling == "data":
            # One mean a row: the spectrum that every image shares is taken off, what is left is
            # how this window differs from it.
            self.mean = torch.zeros(1, 3, rows, 1)

    def fit_scale(self, x: dict[str, Tensor]) -> None:
        """Set the scaling buffers from training images, where the recipe asks for it."""
        if self.scaling == "data":
            unit = unit_range(x["image"])
            self.mean.copy_(unit.mean((0, 3), keepdim=True))
            self.deviation.copy_(unit.std((0, 2, 3)).clamp(min=1e-3).view(1, 3, 1, 1))

    def scale(self, image: Tensor) -> Tensor:
        """(rows, 3, h, w), bytes or floats in 0 .. 1 -> what the first layer takes."""
        unit = unit_range(image)
        if self.training:
            unit = augment.apply(unit, self.augmentation)
        return (unit - self.mean) / self.deviation

    def features(self, image: Tensor) -> Tensor:
        """(rows, 3, h, w) -> (rows, width, h / 32, w / 32)."""
        stages: nn.Module = self.backbone.features  # type: ignore[assignment]
        out: Tensor = stages(self.scale(image))
        return out

    def heads(self, features: Tensor) -> dict[str, Tensor]:
        """(rows, width, h, w) -> logits of both heads."""
        pooled = features.mean((2, 3))
        return {"magnitude": self.mag_head(pooled), "azimuth": self.azi_head(pooled)}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """See the class."""
        return self.heads(self.features(image))


def _initialise(network: nn.Module, published: bool, fan_out: bool) -> None:
    """As published (ConvNeXt: truncated normal of 0.02; EfficientNet: by fan-out), or by fan-in.

    With fan-in a small network learns in minutes what it otherwise learns in hours.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and fan_out:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            deviation = 0.02 if published else layer.weight[0].numel() ** -0.5
            nn.init.trunc_normal_(layer.weight, std=deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, Block) and not published:
            nn.init.ones_(layer.layer_scale)


def unit_range(image: Tensor) -> Tensor:
    """Bytes or floats in 0 .. 1 -> floats in 0 .. 1, same shape."""
    return image.float() / 255.0 if image.dtype == torch.uint8 else image


def build(recipe: Recipe) -> Precursor:
    """A network with fresh weights.

    Raises:
        Refused: an unknown backbone.
    """
    if recipe.backbone not in BACKBONES:
        raise Refused(f"unknown backbone {recipe.backbone!r}; known are {', '.join(BACKBONES)}")
    if recipe.backbone == "efficientnet_b0":
        features, width = efficientnet_b0(recipe.drop), 1280
    else:
        depths, widths = CONVNEXT[recipe.backbone]
        features, width = convnext(depths, widths, recipe.drop), widths[-1]
    network = Precursor(features, width, recipe.hidden, recipe.scaling, recipe.augment, recipe.size)
    _initialise(
        network, recipe.backbone not in ("light", "micro"), recipe.backbone == "efficientnet_b0"
    )
    return network


def published_names(network: Precursor) -> OrderedDict[str, Tensor]:
    """State dict without the scaling buffers: the names and shapes of published checkpoints."""
    state = network.state_dict()
    return OrderedDict((k, v) for k, v in state.items() if k not in ("mean", "deviation"))


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """(classes,) inverse-frequency weights with mean 1 over the labels; an absent class has 0."""
    count = torch.bincount(labels[labels >= 0], minlength=classes).float()
    present = count > 0
    weight = torch.where(present, count.sum() / count.clamp(min=1), torch.zeros_like(count))
    return weight / (weight * count).sum().clamp(min=1e-9) * count.sum()


def loss(outputs: dict[str, Tensor], y: dict[str, Tensor], weight: Tensor) -> Tensor:
    """L_mag + 0.5 L_azi, a scalar: weighted cross-entropy or focal loss.

    Lin et al. 2017, arXiv:1708.02002, for the focal loss: each row's cross-entropy times
    (1 - p)^focus, which is 1 where the exponent is 0.

    Args:
        outputs: logits ``magnitude`` (rows, 4), ``azimuth`` (rows, 9).
        y: ``magnitude``, ``azimuth`` (rows,) class numbers, -1 where not known;
            ``magnitude_weight``, ``azimuth_weight`` (rows,) class weights; ``focus`` (rows,).
        weight: (rows,) of each row.
    """
    total = outputs["magnitude"].sum() * 0.0 + outputs["azimuth"].sum() * 0.0
    for name, share in (("magnitude", 1.0), ("azimuth", 0.5)):
        label = y[name]
        chosen = F.log_softmax(outputs[name], -1).gather(1, label.clamp(min=0)[:, None])[:, 0]
        each = -chosen * (1 - chosen.exp()).clamp(min=1e-9) ** y["focus"]
        counted = weight * y[f"{name}_weight"] * (label >= 0)
        total = total + share * (each * counted).sum() / counted.sum().clamp(min=1e-9)
    return total
