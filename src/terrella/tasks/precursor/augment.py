"""Augmentations of spectrogram images, in two kinds.

``published`` is what the paper's training does: flips, rotation, colour jitter, shift, erasing.
Turned upside down a spectrogram has its low frequencies on top: this has no physical meaning and is
here to repeat the paper. ``physical`` changes only what an observatory may change: when the window
begins (time shift), the sensor's gain (one dB offset a component), and noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

KINDS = ("none", "physical", "published")


def _uniform(rows: int, low: float, high: float, generator: torch.Generator | None) -> Tensor:
    return torch.rand(rows, generator=generator) * (high - low) + low


def physical(
    image: Tensor,
    generator: torch.Generator | None = None,
    shift: float = 0.1,
    gain: float = 0.02,
    noise: float = 0.01,
) -> Tensor:
    """Time shift, gain and noise.

    Args:
        image: (rows, 3, size, size) in 0 .. 1; columns are time.
        generator: random state.
        shift: greatest share of the window that is rolled in time (what leaves comes in again, so
            that every frequency keeps its mean).
        gain: deviation of a component's offset; 0.02 is 2 dB of a 100 dB range.
        noise: deviation of each pixel.

    Returns:
        Same shape, in 0 .. 1.
    """
    rows, channels, _, width = image.shape
    by = (_uniform(rows, -shift, shift, generator) * width).round().long()
    index = (torch.arange(width)[None, :] - by[:, None]) % width
    out = image.gather(3, index[:, None, None, :].expand_as(image))
    level = torch.randn((rows, channels, 1, 1), generator=generator) * gain
    return (out + level + torch.randn(image.shape, generator=generator) * noise).clamp(0, 1)


def published(
    image: Tensor, generator: torch.Generator | None = None, degrees: float = 15.0
) -> Tensor:
    """Flip 0.5, rotate +-15 deg, shift 10 %, jitter 0.2 of brightness and contrast, erase 0.1.

    Args:
        image: (rows, 3, size, size) in 0 .. 1.
        generator: random state.
        degrees: greatest rotation.

    Returns:
        Same shape, in 0 .. 1.
    """
    rows = len(image)
    angle = torch.deg2rad(_uniform(rows, -degrees, degrees, generator))
    flip = torch.where(_uniform(rows, 0, 1, generator) < 0.5, -1.0, 1.0)
    move = torch.stack([_uniform(rows, -0.2, 0.2, generator) for _ in "xy"], 1)
    turn = torch.zeros(rows, 2, 3)
    turn[:, 0, 0], turn[:, 0, 1] = torch.cos(angle) * flip, -torch.sin(angle)
    turn[:, 1, 0], turn[:, 1, 1] = torch.sin(angle) * flip, torch.cos(angle)
    turn[:, :, 2] = move
    grid = F.affine_grid(turn, list(image.shape), align_corners=False)
    out = F.grid_sample(image, grid, padding_mode="zeros", align_corners=False)
    bright, contrast = (_uniform(rows, 0.8, 1.2, generator).view(-1, 1, 1, 1) for _ in "bc")
    out = out * bright
    middle = out.mean((1, 2, 3), keepdim=True)
    out = ((out - middle) * contrast + middle).clamp(0, 1)
    return _erase(out, 0.1, generator)


def _erase(image: Tensor, chance: float, generator: torch.Generator | None) -> Tensor:
    """A rectangle of 2 to 33 % of some images set to zero."""
    rows, _, height, width = image.shape
    hit = _uniform(rows, 0, 1, generator) < chance
    area = _uniform(rows, 0.02, 0.33, generator)
    aspect = torch.exp(_uniform(rows, math.log(0.3), math.log(3.3), generator))
    tall, wide = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    top = _uniform(rows, 0, 1, generator) * (1 - tall)
    left = _uniform(rows, 0, 1, generator) * (1 - wide)
    y = (torch.arange(height) + 0.5)[None, :] / height
    x = (torch.arange(width) + 0.5)[None, :] / width
    inside_y = (y >= top[:, None]) & (y <= (top + tall)[:, None])
    inside_x = (x >= left[:, None]) & (x <= (left + wide)[:, None])
    gone = inside_y[:, :, None] & inside_x[:, None, :] & hit[:, None, None]
    return image.masked_fill(gone[:, None], 0.0)


def apply(image: Tensor, kind: str, generator: torch.Generator | None = None) -> Tensor:
    """Augment by name: one of KINDS."""
    if kind == "physical":
        return physical(image, generator)
    return published(image, generator) if kind == "published" else image
