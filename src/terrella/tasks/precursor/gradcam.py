"""Grad-CAM of either head: which part of the spectrogram a class score rests on.

Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from terrella.tasks.precursor.network import Precursor


def gradcam(
    network: Precursor,
    image: Tensor,
    head: str = "magnitude",
    target: Tensor | None = None,
    layer: int = -1,
    batch: int = 32,
) -> NDArray[np.float32]:
    """Grad-CAM maps, in the image's own pixels.

    The network is run up to ``layer`` without gradients and from there with them, so that no hook
    is needed and nothing stays attached to it.

    Args:
        network: the network; its mode is put back afterwards.
        image: (rows, 3, h, w), bytes or floats in 0 .. 1.
        head: "magnitude" or "azimuth".
        target: (rows,) class numbers; None takes the class each row was given.
        layer: place in ``backbone.features`` after which the map is taken (-1: the last, 1/32 of
            the image; earlier layers are finer).
        batch: rows at a time.

    Returns:
        (rows, h, w) float32 in 0 .. 1, each map scaled by its own maximum (all 0 where no part
        speaks for the class).
    """
    training = network.training
    network.eval()
    stages = list(network.backbone.features)  # type: ignore[arg-type]
    split = len(stages) + layer + 1 if layer < 0 else layer + 1
    maps = []
    for start in range(0, len(image), batch):
        rows = image[start : start + batch]
        with torch.no_grad():
            held = network.scale(rows)
            for stage in stages[:split]:
                held = stage(held)
        held = held.detach().requires_grad_(True)
        with torch.enable_grad():
            out = held
            for stage in stages[split:]:
                out = stage(out)
            logits = network.heads(out)[head]
            chosen = logits.argmax(1) if target is None else target[start : start + batch]
            (slope,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), held)
        cam = F.relu((slope.mean((2, 3), keepdim=True) * held.detach()).sum(1, keepdim=True))
        cam = F.interpolate(cam, rows.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        top = cam.amax((1, 2), keepdim=True)
        maps.append(torch.where(top > 0, cam / top.clamp(min=1e-12), torch.zeros_like(cam)))
    network.train(training)
    return np.asarray(torch.cat(maps).numpy(), np.float32)


def band_share(
    maps: NDArray[np.float32], low: float, high: float, top: float = 0.5
) -> NDArray[np.float64]:
    """Share of each map's energy between two frequencies.

    Args:
        maps: (rows, h, w); row 0 is the highest frequency.
        low: Hz.
        high: Hz.
        top: Hz of the upper edge.

    Returns:
        (rows,) 0 .. 1, NaN where the map is empty.
    """
    height = maps.shape[1]
    frequency = top * (1 - (np.arange(height) + 0.5) / height)
    inside = (frequency >= low) & (frequency <= high)
    energy = maps.astype(np.float64).sum(2)
    total = energy.sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, energy[:, inside].sum(1) / total, np.nan)
