"""Scaling that lives in the network, so that weights and normalisation cannot part."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x - mean) / scale over the last axis, with both as buffers.

    Args:
        channels: length of the last axis.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def fit(self, x: Tensor) -> None:
        """Take mean and spread from samples (..., channels); NaNs are left out."""
        flat = x.reshape(-1, x.shape[-1]).double()
        known = torch.isfinite(flat)
        count = known.sum(0).clamp(min=1)
        mean = torch.where(known, flat, 0.0).sum(0) / count
        spread = (torch.where(known, flat - mean, 0.0).square().sum(0) / count).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale
