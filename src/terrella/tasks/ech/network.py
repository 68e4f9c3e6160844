"""The default network: two small stages that share their shape, not their weights.

Each stage scales its inputs in buffers, encodes every group of histories once per instant and
the place once per grid; a gated first layer joins the two by broadcasting, so that a map of
61,488 points costs one pass of the encoders and a thin joint part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["attention-lstm", "lstm", "transformer"]
KINDS: tuple[Kind, ...] = ("attention-lstm", "lstm", "transformer")


class Encoder(nn.Module):
    """A group of histories (rows, T, C) to one vector (rows, width)."""

    def __init__(self, kind: Kind, channels: int, length: int, width: int) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"encoder {kind!r} is unknown: choose one of {', '.join(KINDS)}")
        self.kind = kind
        if kind == "transformer":
            self.embed = nn.Linear(channels, width)
            self.position = nn.Parameter(torch.randn(length, width) * 0.1)
            self.block = nn.TransformerEncoderLayer(
                width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
            )
        else:
            self.lstm = nn.LSTM(channels, width, batch_first=True)
        if kind != "lstm":
            self.score = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "transformer":
            states = self.block(self.embed(x) + self.position)
        else:
            states = self.lstm(x)[0]
        if self.kind == "lstm":
            return cast(Tensor, states.mean(dim=1))
        weight = torch.softmax(self.score(states), dim=1)
        return cast(Tensor, (weight * states).sum(dim=1))


class Stage(nn.Module):
    """Histories and place to ``outputs`` numbers a point.

    Args:
        groups: name of each group of histories -> (length T, channels C).
        place: number of raw place features (the first three are L, cos MLT, sin MLT).
        direct: also feed the scaled histories through one linear layer, for data sets too
            small to train a recurrent encoder by itself.
    """

    def __init__(
        self,
        groups: Mapping[str, tuple[int, int]],
        place: int,
        outputs: int,
        *,
        kind: Kind = "attention-lstm",
        width: int = 48,
        joint: int = 128,
        dropout: float = 0.0,
        direct: int = 0,
    ) -> None:
        super().__init__()
        self.groups = dict(groups)
        self.encoders = nn.ModuleDict()
        self.direct = nn.ModuleDict()
        for name, (length, channels) in self.groups.items():
            for part, value in (("unit", 100.0), ("mean", 0.0), ("scale", 1.0)):
                self.register_buffer(f"{name}_{part}", torch.full((channels,), value))
            self.encoders[name] = Encoder(kind, channels, length, width)
            if direct:
                self.direct[name] = nn.Linear(length * channels, direct)
        self.register_buffer("place_mean", torch.zeros(place))
        self.register_buffer("place_scale", torch.ones(place))
        self.place = nn.Sequential(nn.Linear(place + 2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
        self.from_history = nn.Linear((width + direct) * len(self.groups), 2 * joint)
        self.from_place = nn.Linear(64, 2 * joint, bias=False)
        self.hidden = nn.Linear(joint, joint)
        self.thin = nn.Linear(joint, joint // 2)
        self.out = nn.Linear(joint // 2, outputs)
        self.dropout = dropout

    def scaled(self, name: str, x: Tensor) -> Tensor:
        """(rows, T, C) nT to the encoder's units: asinh, then centred and scaled."""
        unit, mean, scale = (self.get_buffer(f"{name}_{p}") for p in ("unit", "mean", "scale"))
        return (torch.asinh(x / unit) - mean) / scale

    @torch.no_grad()
    def fit_scaling(self, x: Mapping[str, Tensor]) -> None:
        """Set every scaling buffer from training inputs, once, before training."""
        for name in self.groups:
            values = torch.asinh(x[name] / self.get_buffer(f"{name}_unit")).flatten(0, 1)
            self.get_buffer(f"{name}_mean").copy_(values.mean(0))
            self.get_buffer(f"{name}_scale").copy_(values.std(0).clamp(min=1e-3))
        place = x["place"].flatten(0, -2)
        self.get_buffer("place_mean").copy_(place.mean(0))
        self.get_buffer("place_scale").copy_(place.std(0).clamp(min=1e-3))

    def encode_histories(self, x: Mapping[str, Tensor]) -> Tensor:
        """Groups (rows, T, C) to their share of the joint layer, (rows, 2 joint)."""
        coded = []
        for name, encoder in self.encoders.items():
            scaled = self.scaled(name, x[name])
            coded.append(encoder(scaled))
            if name in self.direct:
                coded.append(F.silu(self.direct[name](scaled.flatten(1))))
        h = F.dropout(torch.cat(coded, dim=-1), self.dropout, self.training)
        return cast(Tensor, self.from_history(h))

    def encode_places(self, place: Tensor) -> Tensor:
        """Raw place features (..., P) to their share of the joint layer, (..., 2 joint)."""
        cos, sin = place[..., 1:2], place[..., 2:3]
        second = torch.cat([cos * cos - sin * sin, 2 * sin * cos], -1)
        scaled = (place - self.get_buffer("place_mean")) / self.get_buffer("place_scale")
        return cast(Tensor, self.from_place(self.place(torch.cat([scaled, second], -1))))

    def join(self, history: Tensor, place: Tensor) -> Tensor:
        """Shares that broadcast against each other to (..., outputs)."""
        x = F.glu(history + place, dim=-1)
        x = F.dropout(x, self.dropout, self.training)
        x = x + F.silu(self.hidden(x))
        x = F.dropout(F.silu(self.thin(x)), self.dropout, self.training)
        return cast(Tensor, self.out(x))

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        return self.join(self.encode_histories(x), self.encode_places(x["place"]))
