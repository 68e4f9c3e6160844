"""Networks: an ensemble over folds of time, and the published LSTM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from terrella.tasks.geoflux import conformal, features
from terrella.tasks.geoflux.daily import LEADS
from terrella.types import Windows

if TYPE_CHECKING:
    from terrella.tasks.geoflux.task import Recipe

CLIP = 5.0  # standard deviations beyond which an input says nothing more
NARROW = 0.02  # dex; a forecast is never surer than this


class Ensemble(nn.Module):
    """One perceptron a fold, run side by side; member k never learns from fold k.

    So every row of the training data has a member that did not see it, whose errors there are
    honest: they choose the epoch and fill the conformal table, and no year is lost for either.

    Inputs may be NaN: they are set to the mean, and the network is told what share of each driver
    is missing. In training whole groups
    of inputs are dropped at random, so a forecast without solar wind is one it has learnt.
    """

    mean: Tensor
    std: Tensor
    group: Tensor
    driver: Tensor
    usual: Tensor
    table: Tensor
    learnt: Tensor

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        n, k, leads = len(features.names()), recipe.members, len(LEADS)
        self.drop_inputs, self.drop_groups = recipe.drop_inputs, recipe.drop_groups
        told = len(features.DRIVERS)
        self.first = nn.Parameter(_uniform(k, n + told, recipe.hidden))
        self.first_bias = nn.Parameter(torch.zeros(k, 1, recipe.hidden))
        self.second = nn.Parameter(_uniform(k, recipe.hidden, recipe.hidden))
        self.second_bias = nn.Parameter(torch.zeros(k, 1, recipe.hidden))
        self.head = nn.Parameter(torch.zeros(k, recipe.hidden, 2 * leads))
        self.head_bias = nn.Parameter(torch.tensor([0.0] * leads + [-1.0] * leads).repeat(k, 1, 1))
        self.straight = nn.Parameter(torch.zeros(k, n, leads))
        self.dropout = nn.Dropout(recipe.dropout)
        self.days = [features.names().index(f"day {i}") for i in range(features.DAYS)]
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("std", torch.ones(n))
        self.register_buffer("group", torch.from_numpy(features.groups()))
        self.register_buffer("driver", torch.from_numpy(features.driver_of()))
        self.register_buffer("usual", torch.zeros(1))
        self.register_buffer("table", torch.zeros(leads, len(conformal.GRID)))
        self.register_buffer("learnt", torch.zeros(()))

    def fit_scale(self, x: dict[str, Tensor]) -> None:
        """Set the scaling buffers from training rows, NaN left out."""
        values = x["features"]
        mean = values.nanmean(0)
        spread = ((values - mean) ** 2).nanmean(0).sqrt()
        self.mean.copy_(torch.nan_to_num(mean))
        self.std.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        self.usual.copy_(torch.nan_to_num(values[:, self.days[0]].nanmean()).reshape(1))

    def settle(self, windows: Sequence[Windows]) -> None:
        """Fill the conformal table from rows each member did not learn from."""
        self.eval()
        scores = []
        with torch.inference_mode():
            for part in windows:
                if part.y is None:
                    continue
                out = self(**part.x)
                mine = part.y["use"].bool()[..., None]
                n = mine.sum(1).clamp(min=1)
                centre = torch.where(mine, out["member_mean"], 0.0).sum(1) / n
                scale = torch.where(mine, out["member_scale"], 0.0).sum(1) / n
                rows = part.y["use"].bool().any(1)[:, None] & torch.from_numpy(part.valid)[:, None]
                score = torch.where(rows, (part.y["log_flux"] - centre) / scale, torch.nan)
                scores.append(score)
        table = conformal.table_of(torch.cat(scores).double().numpy())
        self.table.copy_(torch.from_numpy(table))
        self.learnt.fill_(learnt_until(windows))

    def forward(self, features: Tensor, days: Tensor) -> dict[str, Tensor]:
        """Forecast log10 daily flux.

        Args:
            features: (rows, features) as ``features.features`` makes them, NaN where missing.
            days: (rows, days, 3) of the published network; not used.

        Returns:
            mean, scale (rows, leads) in dex, of the ensemble; member_mean, member_scale
            (rows, members, leads); table (rows, leads, grid), the conformal table; learnt (rows,),
            days from 1970 to the end of training.
        """
        last = features[:, self.days]
        base = self.usual.expand(len(last))
        for k in reversed(range(last.shape[1])):
            base = torch.where(torch.isfinite(last[:, k]), last[:, k], base)
        scaled = (features - self.mean) / self.std
        absent = ~torch.isfinite(scaled)
        if self.training and self.drop_groups:
            absent = absent | self._dropped(len(scaled))
        value = torch.where(absent, 0.0, scaled).clamp(-CLIP, CLIP)
        told = absent.to(value.dtype) @ self.driver
        k = len(self.head)
        value = value.expand(k, *value.shape)
        if self.training and self.drop_inputs:
            value = functional.dropout(value, self.drop_inputs)
        h = torch.cat([value, told.expand(k, *told.shape)], 2)
        h = self.dropout(functional.silu(torch.baddbmm(self.first_bias, h, self.first)))
        h = self.dropout(functional.silu(torch.baddbmm(self.second_bias, h, self.second)))
        out = torch.baddbmm(self.head_bias, h, self.head)
        change, width = out.transpose(0, 1).chunk(2, -1)
        change = change + torch.bmm(value, self.straight).transpose(0, 1)
        member = base[:, None, None] + change
        scale = functional.softplus(width + math.log(math.e - 1)) * 0.5 + NARROW
        spread = member.var(1, correction=0)
        return {
            "mean": member.mean(1),
            "scale": (scale.square().mean(1) + spread).sqrt(),
            "member_mean": member,
            "member_scale": scale,
            "table": self.table.expand(len(base), *self.table.shape),
            "learnt": self.learnt.expand(len(base)),
        }

    def _dropped(self, rows: int) -> Tensor:
        """Groups of inputs that a row must do without, (rows, features) bool."""
        some = torch.rand(rows, 1) < self.drop_groups
        gone = (torch.rand(rows, int(self.group.max()) + 1) < 0.3) & some
        return gone[:, self.group.clamp(min=0)] & (self.group >= 0)


class PublishedLSTM(nn.Module):
    """Wei et al. 2018, doi:10.1029/2018SW001829: five days of flux, r0 and sum of Kp.

    The authors forecast one day ahead; a further output a lead takes it to three.
    """

    mean: Tensor
    std: Tensor
    table: Tensor
    spread: Tensor
    learnt: Tensor

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, recipe.hidden, batch_first=True)
        self.head = nn.Linear(recipe.hidden, len(LEADS))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))
        self.register_buffer("spread", torch.ones(len(LEADS)))
        self.register_buffer("table", torch.zeros(len(LEADS), len(conformal.GRID)))
        self.register_buffer("learnt", torch.zeros(()))

    def fit_scale(self, x: dict[str, Tensor]) -> None:
        """Set the scaling buffers from training rows, NaN left out."""
        flat = x["days"].flatten(0, 1)
        self.mean.copy_(torch.nan_to_num(flat.nanmean(0)))
        spread = ((flat - self.mean) ** 2).nanmean(0).sqrt()
        self.std.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def settle(self, windows: Sequence[Windows]) -> None:
        """Fill the conformal table from the rows that chose the epoch."""
        self.eval()
        with torch.inference_mode():
            error = torch.cat(
                [
                    torch.where(
                        torch.from_numpy(p.valid)[:, None],
                        p.y["log_flux"] - self(**p.x)["mean"],
                        torch.nan,
                    )
                    for p in windows
                    if p.y is not None
                ]
            )
        self.spread.copy_(error.square().nanmean(0).sqrt())
        self.table.copy_(
            torch.from_numpy(conformal.table_of((error / self.spread).double().numpy()))
        )
        self.learnt.fill_(learnt_until(windows))

    def forward(self, features: Tensor, days: Tensor) -> dict[str, Tensor]:
        """Forecast log10 daily flux from (rows, 5, 3) daily flux, r0 and sum of Kp."""
        value = torch.nan_to_num((days - self.mean) / self.std)
        last, _ = self.lstm(value)
        mean = self.head(last[:, -1]) * self.std[0] + self.mean[0]
        scale = self.spread.expand_as(mean)
        return {
            "mean": mean,
            "scale": scale,
            "member_mean": mean[:, None],
            "member_scale": scale[:, None],
            "table": self.table.expand(len(mean), *self.table.shape),
            "learnt": self.learnt.expand(len(mean)),
        }


def learnt_until(windows: Sequence[Windows]) -> float:
    """Days from 1970 to the end of the last target that rows hold; 0 for none.

    Outcomes before it are no test of the network: the run must not steer by them.
    """
    ends = [0.0]
    for part in windows:
        if part.y is not None:
            known = torch.isfinite(part.y["log_flux"]).numpy() & part.valid[:, None]
            day = (part.time - np.datetime64(0, "ns")) / np.timedelta64(1, "D")
            ends += (day[:, None] + np.array(LEADS))[known].tolist()
    return max(ends)


def build(recipe: Recipe) -> nn.Module:
    """The network of a recipe."""
    return PublishedLSTM(recipe) if recipe.network == "lstm" else Ensemble(recipe)


def loss(outputs: dict[str, Tensor], y: dict[str, Tensor], weight: Tensor) -> Tensor:
    """Gaussian likelihood plus squared error of each member on the rows that are its own.

    Args:
        outputs: of a network of this task.
        y: ``log_flux`` (rows, leads), NaN where unknown; ``use`` (rows, members) 1 where a member
            may be judged by the row: rows of other folds in training, of its own in validation.
        weight: (rows,).
    """
    truth, use = y["log_flux"][:, None], y["use"]
    mean, scale = outputs["member_mean"], outputs["member_scale"]
    if mean.shape[1] == 1:
        use = torch.ones_like(use[:, :1])
    known = torch.isfinite(truth)
    error = torch.where(known, truth - mean, 0.0)
    each = 0.5 * (error / scale).square() + scale.log() + error.square()
    counted = known * use[..., None] * weight[:, None, None]
    total: Tensor = (each * counted).sum() / counted.sum().clamp(min=1.0)
    return total


def _uniform(members: int, n: int, m: int) -> Tensor:
    return (torch.rand(members, n, m) * 2 - 1) / math.sqrt(n)
