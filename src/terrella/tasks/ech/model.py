"""Networks as the task sees them: lean or published, from a recipe, with one set of methods.

Besides ``forward``, both offer what a map needs: ``encode`` (histories, once per instant),
``locate`` (places, once per grid) and ``finish`` (the joint part of one stage, per point).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from terrella.tasks.ech.features import HISTORIES, LENGTHS
from terrella.tasks.ech.network import Groups, TwoStage, two_stage_loss
from terrella.tasks.ech.published import DeepECH
from terrella.tasks.ech.task import Recipe
from terrella.types import Windows

STAGES = ("occurrence", "amplitude")
BINS = (28, 24, 18)  # of coverage: L in quarters from 1, MLT in hours, |MLAT| in 2.5 deg
FEWEST = 3  # training samples that make a bin covered
MARGIN = 0.05  # share of the training range by which a history may leave it


def build(recipe: Recipe) -> nn.Module:
    """The network of a recipe."""
    return Published() if recipe.network == "deepech" else Lean(recipe)


def stages(recipe: Recipe, groups: Groups, place: int) -> TwoStage:
    """Both lean stages of a recipe, over groups of histories and ``place`` features of place."""
    made = TwoStage(
        groups, place, encoder=recipe.encoder, width=recipe.width, joint=recipe.joint,
        direct=recipe.direct, dropout=recipe.dropout, share=recipe.share,
    )  # fmt: skip
    made.get_buffer("amplitude_mean").fill_(recipe.amplitude_centre)
    made.get_buffer("amplitude_scale").fill_(recipe.amplitude_scale)
    return made


def loss(outputs: Mapping[str, Tensor], y: Mapping[str, Tensor], weight: Tensor | None = None
         ) -> Tensor:  # fmt: skip
    """Cross-entropy of occurrence plus the likelihood of amplitude where there is a wave."""
    return two_stage_loss(outputs, y["occurrence"], y["amplitude"], weight)


class Coverage(nn.Module):
    """Where, and under which histories, the network was trained."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", torch.zeros(BINS, dtype=torch.bool))
        # lowest and highest mean of each history (nT), and lowest and highest value
        self.register_buffer("low", torch.full((len(HISTORIES), 2), float("nan")))
        self.register_buffer("high", torch.full((len(HISTORIES), 2), float("nan")))

    @staticmethod
    def bins(place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bins of raw place features (..., 4)."""
        level, cos, sin, flat = place.unbind(-1)
        hours = torch.remainder(torch.atan2(sin, cos) * 12 / torch.pi, 24)
        degrees = torch.rad2deg(torch.arccos(flat.clamp(0, 1) ** (1 / 6)))
        raw = ((level - 1) * 4, hours, degrees / 2.5)
        return cast(
            tuple[Tensor, Tensor, Tensor],
            tuple(b.long().clamp(0, n - 1) for b, n in zip(raw, BINS, strict=True)),
        )

    @torch.no_grad()
    def fit(self, x: Mapping[str, Tensor]) -> None:
        """Mark what training rows cover."""
        places = x["place"].reshape(-1, 4)
        count = torch.zeros(BINS)
        count.index_put_(self.bins(places), torch.ones(len(places)), accumulate=True)
        self.get_buffer("places").copy_(count >= FEWEST)
        ends = [self._ends(x[n]) for n in HISTORIES]
        self.get_buffer("low").copy_(torch.stack([e.amin(0) for e in ends]))
        self.get_buffer("high").copy_(torch.stack([e.amax(0) for e in ends]))

    @staticmethod
    def _ends(history: Tensor) -> Tensor:
        return torch.stack([history.mean(1), history.abs().amax(1)], -1)

    def of_places(self, place: Tensor) -> Tensor:
        """(..., 4) raw features to a bool that is True outside the coverage."""
        beyond = place[..., 0] >= 1 + BINS[0] / 4
        return ~self.get_buffer("places")[self.bins(place)] | beyond

    def of_histories(self, x: Mapping[str, Tensor]) -> Tensor:
        """(rows,) True where a history leaves the range of training."""
        low, high = self.get_buffer("low"), self.get_buffer("high")
        room = MARGIN * (high - low)
        ends = torch.stack([self._ends(x[n]) for n in HISTORIES], 1)
        return ((ends > high + room) | (ends < low - room)).flatten(1).any(1)


class Lean(nn.Module):
    """Our default: both stages, scaled, calibrated, with the coverage of their training."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        groups = {"hourly": (LENGTHS["sme_hourly"], 2), "fast": (LENGTHS["sme_fast"], 2)}
        self.stages = stages(recipe, groups, 4)
        self.coverage = Coverage()

    @staticmethod
    def _grouped(x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {g: torch.stack([x[f"sme_{g}"], x[f"symh_{g}"]], -1) for g in ("hourly", "fast")}

    def fit_scale(self, x: Mapping[str, Tensor]) -> None:
        """Set scaling and coverage from training rows, once."""
        self.stages.fit({**self._grouped(x), "place": x["place"]})
        self.coverage.fit(x)

    def forward(self, place: Tensor, **histories: Tensor) -> dict[str, Tensor]:
        """Histories (rows, 49 or 61) in nT and places (rows, points, 4).

        Returns:
            ``logit``, ``mean`` (dB) and ``spread`` (dB), each (rows, points).
        """
        return cast(dict[str, Tensor], self.stages({**self._grouped(histories), "place": place}))

    def encode(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Stage -> what its joint part needs of the histories, (rows, k)."""
        return self.stages.codes(self._grouped(x))

    def locate(self, stage: str, place: Tensor) -> Tensor:
        """What a stage's joint part needs of places (n, 4), (n, k)."""
        return self.stages.stage(stage).encode_places(place)

    def finish(self, stage: str, code: Tensor, place: Tensor) -> dict[str, Tensor]:
        """A stage's outputs from codes that broadcast against each other."""
        return self.stages.finish(stage, self.stages.stage(stage).join(code, place))

    @torch.no_grad()
    def settle(self, validation: Sequence[Windows], rows: int = 4096) -> None:
        """Calibrate on rows that were not learnt from; called once, after training."""
        outputs: dict[str, list[Tensor]] = {}
        targets: dict[str, list[Tensor]] = {}
        for part in validation:
            chosen = torch.from_numpy(np.flatnonzero(part.valid))
            for some in torch.split(chosen, rows):
                found = self(**{k: v[some] for k, v in part.x.items()})
                seen = {k: v[some] for k, v in (part.y or {}).items()}
                for store, values in ((outputs, found), (targets, seen)):
                    for name, value in values.items():
                        store.setdefault(name, []).append(value.flatten())
        self.calibrate(
            {k: torch.cat(v) for k, v in outputs.items()},
            {k: torch.cat(v) for k, v in targets.items()},
        )

    @torch.no_grad()
    def calibrate(self, outputs: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> None:
        """Fit gain and shift of the logit, and the gain of the spread, to held-out rows.

        Args:
            outputs: of this network on rows that it was not trained on.
            y: their targets.
        """
        known = ~torch.isnan(y["occurrence"])
        gain, shift = _platt(outputs["logit"][known].double(), y["occurrence"][known].double())
        old = self.stages.get_buffer("logit_gain"), self.stages.get_buffer("logit_shift")
        old[1].copy_(gain * old[1] + shift)
        old[0].copy_(gain * old[0])
        waves = ~torch.isnan(y["amplitude"])
        if waves.any():
            miss = (y["amplitude"] - outputs["mean"])[waves].abs() / outputs["spread"][waves]
            level = torch.quantile(miss[:1_000_000].double(), 0.8) / 1.2815516
            self.stages.get_buffer("spread_gain").mul_(level)


def _platt(logit: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and shift that make sigmoid(gain logit + shift) likeliest (Newton's method)."""
    x = torch.stack([logit, torch.ones_like(logit)], -1)
    w = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for _ in range(20):
        p = torch.sigmoid(x @ w)
        slope = x.T @ (p - seen) / len(p)
        curve = (x * (p * (1 - p)).unsqueeze(-1)).T @ x / len(p) + 1e-6 * torch.eye(2)
        w = w - torch.linalg.solve(curve, slope)
    return w[0], w[1]


class Published(nn.Module):
    """Both published networks under one roof: keys ``occurrence.*`` and ``amplitude.*``."""

    def __init__(self) -> None:
        super().__init__()
        self.occurrence, self.amplitude = DeepECH(2), DeepECH(4)

    def _stage(self, name: str) -> DeepECH:
        return cast(DeepECH, self.get_submodule(name))

    @staticmethod
    def _seen(x: Mapping[str, Tensor], stage: DeepECH) -> Sequence[Tensor]:
        return [x[n] for n in HISTORIES[: stage.histories]]

    def forward(self, place: Tensor, **histories: Tensor) -> dict[str, Tensor]:
        """As ``Lean.forward``; the spread is unknown (NaN)."""
        rows, points = place.shape[:2]
        flat = place.reshape(rows * points, -1)
        out = {}
        for name, key in (("occurrence", "logit"), ("amplitude", "mean")):
            stage = self._stage(name)
            seen = [h.repeat_interleave(points, 0) for h in self._seen(histories, stage)]
            out[key] = stage(seen, flat).reshape(rows, points)
        return out | {"spread": torch.full_like(out["mean"], float("nan"))}

    def encode(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Stage -> what its joint part needs of the histories, (rows, 1024)."""
        stages = {n: self._stage(n) for n in STAGES}
        return {n: s.encode_histories(self._seen(x, s)) for n, s in stages.items()}

    def locate(self, stage: str, place: Tensor) -> Tensor:
        """What a stage's joint part needs of places (n, 4), (n, 1024)."""
        return self._stage(stage).encode_places(place)

    def finish(self, stage: str, code: Tensor, place: Tensor) -> dict[str, Tensor]:
        """A stage's outputs from codes that broadcast against each other."""
        value = self._stage(stage).join(code, place)
        if stage == "occurrence":
            return {"logit": value}
        return {"mean": value, "spread": torch.full_like(value, float("nan"))}
