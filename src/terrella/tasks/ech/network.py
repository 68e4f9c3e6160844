"""The default network: two small stages that scale their inputs, join them and calibrate.

Histories are encoded once per instant and places once per grid; a gated first layer joins the two
by broadcasting, so that a map of 61,488 points costs one pass of the encoders and a thin joint
part for each stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("attention-lstm", "lstm", "transformer")
Groups = Mapping[str, tuple[int, int]]  # name -> (length T, channels C)


class Encoder(nn.Module):
    """A group of histories (rows, T, C) to one vector (rows, width)."""

    def __init__(self, kind: str, channels: int, length: int, width: int) -> None:
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


class Histories(nn.Module):
    """Groups of raw histories (rows, T, C) in nT to one code (rows, size).

    Args:
        direct: width of a plain linear path beside each encoder; 0 for none.
    """

    def __init__(self, groups: Groups, kind: str, width: int, direct: int) -> None:
        super().__init__()
        self.groups = dict(groups)
        self.encoders, self.direct = nn.ModuleDict(), nn.ModuleDict()
        for name, (length, channels) in self.groups.items():
            for part, value in (("unit", 100.0), ("mean", 0.0), ("scale", 1.0)):
                self.register_buffer(f"{name}_{part}", torch.full((channels,), value))
            self.encoders[name] = Encoder(kind, channels, length, width)
            if direct:
                self.direct[name] = nn.Linear(length * channels, direct)
        self.size = (width + direct) * len(self.groups)

    def squeeze(self, name: str, x: Tensor) -> Tensor:
        """Asinh of nT over the group's unit: storms and quiet days on one scale."""
        return torch.asinh(x / self.get_buffer(f"{name}_unit"))

    @torch.no_grad()
    def fit(self, x: Mapping[str, Tensor]) -> None:
        """Set the scaling buffers from training rows."""
        for name in self.groups:
            values = self.squeeze(name, x[name]).flatten(0, 1)
            self.get_buffer(f"{name}_mean").copy_(values.mean(0))
            self.get_buffer(f"{name}_scale").copy_(values.std(0).clamp(min=1e-3))

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        coded = []
        for name, encoder in self.encoders.items():
            mean, scale = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_scale")
            scaled = (self.squeeze(name, x[name]) - mean) / scale
            coded.append(encoder(scaled))
            if name in self.direct:
                coded.append(F.silu(self.direct[name](scaled.flatten(1))))
        return torch.cat(coded, dim=-1)


class Joint(nn.Module):
    """A code of histories and raw place features to ``outputs`` numbers a point."""

    def __init__(self, code: int, place: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("place_mean", torch.zeros(place))
        self.register_buffer("place_scale", torch.ones(place))
        self.place = nn.Sequential(
            nn.Linear(place + 2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU()
        )
        self.from_history = nn.Linear(code, 2 * width)
        self.from_place = nn.Linear(64, 2 * width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.thin = nn.Linear(width, width // 2)
        self.out = nn.Linear(width // 2, outputs)
        self.dropout = dropout

    @torch.no_grad()
    def fit(self, place: Tensor) -> None:
        """Set the scaling buffers from training places (rows, P)."""
        self.get_buffer("place_mean").copy_(place.mean(0))
        self.get_buffer("place_scale").copy_(place.std(0).clamp(min=1e-3))

    def encode_histories(self, code: Tensor) -> Tensor:
        """(rows, size) to the histories' share of the gated layer, (rows, 2 width)."""
        return cast(Tensor, self.from_history(F.dropout(code, self.dropout, self.training)))

    def encode_places(self, place: Tensor) -> Tensor:
        """(..., P) to the place's share of the gated layer, (..., 2 width)."""
        cos, sin = place[..., 1:2], place[..., 2:3]  # MLT; its second harmonic is added
        second = torch.cat([cos * cos - sin * sin, 2 * sin * cos], -1)
        scaled = (place - self.get_buffer("place_mean")) / self.get_buffer("place_scale")
        return cast(Tensor, self.from_place(self.place(torch.cat([scaled, second], -1))))

    def join(self, history: Tensor, place: Tensor) -> Tensor:
        """Shares that broadcast against each other to (..., outputs)."""
        x = F.dropout(F.glu(history + place, dim=-1), self.dropout, self.training)
        x = x + F.silu(self.hidden(x))
        x = F.dropout(F.silu(self.thin(x)), self.dropout, self.training)
        return cast(Tensor, self.out(x))


class TwoStage(nn.Module):
    """Occurrence (a calibrated logit) and amplitude (mean and spread) of one place and history.

    Args:
        groups: groups of histories -> (length, channels).
        place: number of raw place features; the first three are L, cos MLT, sin MLT.
        encoder: one of KINDS. width: of each encoder. joint: of the joint layers.
        direct: width of the linear path beside each encoder, 0 for none.
        dropout: in the joint layers. share: one set of encoders for both stages.
    """

    def __init__(self, groups: Groups, place: int, *, encoder: str = "attention-lstm",
                 width: int = 32, joint: int = 128, direct: int = 0, dropout: float = 0.0,
                 share: bool = True) -> None:  # fmt: skip
        super().__init__()
        names = ("both",) if share else ("occurrence", "amplitude")
        self.histories = nn.ModuleDict(
            {n: Histories(groups, encoder, width, direct) for n in names}
        )
        size = (width + direct) * len(groups)
        self.joints = nn.ModuleDict(
            {
                "occurrence": Joint(size, place, 1, joint, dropout),
                "amplitude": Joint(size, place, 2, joint, dropout),
            }
        )
        for name, start in (("logit_gain", 1.0), ("logit_shift", 0.0), ("spread_gain", 1.0),
                            ("amplitude_mean", 0.0), ("amplitude_scale", 1.0)):  # fmt: skip
            self.register_buffer(name, torch.tensor(start))

    @torch.no_grad()
    def fit(self, x: Mapping[str, Tensor]) -> None:
        """Set scaling buffers from training rows."""
        for histories in self.histories.values():
            cast(Histories, histories).fit(x)
        for joint in self.joints.values():
            cast(Joint, joint).fit(x["place"].flatten(0, -2))

    def stage(self, name: str) -> Joint:
        """The joint part of ``occurrence`` or ``amplitude``."""
        return cast(Joint, self.joints[name])

    def codes(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Histories' share of each stage's gated layer, (rows, 2 joint) each."""
        coded = {name: histories(x) for name, histories in self.histories.items()}
        return {
            name: cast(Joint, joint).encode_histories(coded["both" if "both" in coded else name])
            for name, joint in self.joints.items()
        }

    def finish(self, name: str, raw: Tensor) -> dict[str, Tensor]:
        """A stage's raw numbers (..., k) to calibrated outputs (...)."""
        if name == "occurrence":
            gain, shift = self.get_buffer("logit_gain"), self.get_buffer("logit_shift")
            return {"logit": raw[..., 0] * gain + shift}
        mean, scale = self.get_buffer("amplitude_mean"), self.get_buffer("amplitude_scale")
        spread = F.softplus(raw[..., 1] + 0.5) * scale * self.get_buffer("spread_gain")
        return {"mean": raw[..., 0] * scale + mean, "spread": spread + 1e-3 * scale}

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Histories (rows, T, C), places (rows, points, P) to logit, mean, spread a point."""
        out: dict[str, Tensor] = {}
        for name, code in self.codes(x).items():
            stage = self.stage(name)
            raw = stage.join(code.unsqueeze(1), stage.encode_places(x["place"]))
            out |= self.finish(name, raw)
        return out


def two_stage_loss(outputs: Mapping[str, Tensor], occurrence: Tensor, amplitude: Tensor,
                   weight: Tensor | None = None) -> Tensor:  # fmt: skip
    """Cross-entropy of occurrence plus the Gaussian likelihood of amplitude where a wave is.

    Args:
        outputs: logit, mean, spread, each (rows, points).
        occurrence: (rows, points), 0 or 1, NaN where unknown.
        amplitude: (rows, points), NaN where there is none.
        weight: (rows,).
    """
    w = (
        torch.ones_like(occurrence)
        if weight is None
        else weight.unsqueeze(-1) * occurrence.new_ones(1)
    )
    known, waves = ~torch.isnan(occurrence), ~torch.isnan(amplitude)
    first = F.binary_cross_entropy_with_logits(
        outputs["logit"], torch.nan_to_num(occurrence), reduction="none"
    )
    miss = torch.nan_to_num(amplitude) - outputs["mean"]
    # The mean is fitted by squares in units of the batch's own scatter, the spread by likelihood
    # around that mean: a Gaussian likelihood alone would let it explain misses away.
    unit = amplitude[waves].std().clamp(min=1e-3) if int(waves.sum()) > 1 else miss.new_ones(())
    spread = outputs["spread"]
    second = 0.5 * (miss / unit).square()
    second = second + 0.5 * (miss.detach() / spread).square() + (spread / unit).log()
    w = w.expand_as(occurrence)
    return _mean(first, w * known) + _mean(torch.where(waves, second, 0.0), w * waves)


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    return (value * weight).sum() / weight.sum().clamp(min=1e-6)
