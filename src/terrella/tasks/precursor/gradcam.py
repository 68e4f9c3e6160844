"""Grad-CAM of either head: which part of the spectrogram a class score rests on.

Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74; Integrated Grad-CAM: Sattarzadeh et al. 2021,
doi:10.1109/ICASSP39728.2021.9415064.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from terrella.tasks.precursor.network import Precursor


def _slope(
    network: Precursor, stages: list[nn.Module], held: Tensor, head: str, chosen: Tensor
) -> Tensor:
    """Gradient of the chosen class's logit with respect to ``held``; same shape."""
    held = held.detach().requires_grad_(True)
    with torch.enable_grad():
        out = held
        for stage in stages:
            out = stage(out)
        logits = network.heads(out)[head]
        (slope,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), held)
    return slope


def _through(stages: list[nn.Module], x: Tensor) -> Tensor:
    with torch.no_grad():
        for stage in stages:
            x = stage(x)
    return x


def gradcam(
    network: Precursor,
    image: Tensor,
    head: str = "magnitude",
    target: Tensor | None = None,
    layer: int = -1,
    steps: int = 0,
    batch: int = 32,
) -> NDArray[np.float32]:
    """Grad-CAM maps, in the image's own pixels.

    Plain Grad-CAM (``steps`` 0) weighs activations by their mean gradient at the image itself.
    Where the score is saturated, as it is for a strong signal, that gradient says little or points
    away. Integrated Grad-CAM averages it on the straight way from the activations of the mean
    training image to those of this one, so that the map sums to what the image adds to the score.

    The network is run up to ``layer`` without gradients and from there with them, so that no hook
    is needed and nothing stays attached to it.

    Args:
        network: the network; its mode is put back afterwards.
        image: (rows, 3, h, w), bytes or floats in 0 .. 1.
        head: "magnitude" or "azimuth".
        target: (rows,) class numbers; None takes the class each row was given.
        layer: place in ``backbone.features`` after which the map is taken (-1: the last; earlier
            layers are finer).
        steps: of the integral; 0 for plain Grad-CAM.
        batch: rows at a time.

    Returns:
        (rows, h, w) float32 in 0 .. 1, each map scaled by its own maximum (all 0 where no part
        speaks for the class).
    """
    training = network.training
    network.eval()
    stages = list(network.backbone.features)  # type: ignore[arg-type]
    split = len(stages) + layer + 1 if layer < 0 else layer + 1
    early, late = stages[:split], stages[split:]
    maps = []
    for start in range(0, len(image), batch):
        rows = image[start : start + batch]
        scaled = network.scale(rows)
        held = _through(early, scaled)
        with torch.no_grad():
            logits = network.heads(_through(late, held))[head]
        chosen = logits.argmax(1) if target is None else target[start : start + batch]
        if steps:
            usual = _through(early, torch.zeros_like(scaled[:1]))
            way = [(k + 0.5) / steps for k in range(steps)]
            points = [usual + share * (held - usual) for share in way]
            slope = sum(_slope(network, late, p, head, chosen) for p in points) / steps
            cam = (slope * (held - usual)).sum(1, keepdim=True)
        else:
            slope = _slope(network, late, held, head, chosen).mean((2, 3), keepdim=True)
            cam = (slope * held).sum(1, keepdim=True)
        cam = F.interpolate(F.relu(cam), rows.shape[-2:], mode="bilinear", align_corners=False)
        maps.append(cam[:, 0] / cam.amax((2, 3)).clamp(min=1e-12)[:, None])
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
