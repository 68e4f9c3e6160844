"""The network for conjunctions: the mean of lean two-stage members, each stopped on other rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from terrella.learn.evaluate import Refit, refitter
from terrella.learn.split import apart
from terrella.task import Model, Task
from terrella.tasks.ech.conjunction_rows import EMBARGO, LAGS, take
from terrella.tasks.ech.model import stages
from terrella.tasks.ech.task import Recipe
from terrella.types import Windows
from terrella.weights import Card


class Member(nn.Module):
    """Both stages on one AE history and one place."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.stages = stages(recipe, {"ae": (LAGS, 1)}, 3)

    def fit_scale(self, x: dict[str, Tensor]) -> None:
        """Set scaling from training rows, once."""
        self.stages.fit({"ae": x["ae"].unsqueeze(-1), "place": x["place"]})

    def forward(self, ae: Tensor, place: Tensor) -> dict[str, Tensor]:
        """AE (rows, 36) in nT and places (rows, points, 3) to logit, mean, spread a point."""
        return cast(dict[str, Tensor], self.stages({"ae": ae.unsqueeze(-1), "place": place}))


def build(recipe: Recipe) -> nn.Module:
    """A member of a recipe."""
    return Member(recipe)


class Committee(nn.Module):
    """Members whose probabilities and amplitudes are averaged; the spread holds their own, too."""

    threads = 1  # members are small: sharing an operation among cores loses

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, **x: Tensor) -> dict[str, Tensor]:
        """As a member's."""
        said = [member(**x) for member in self.members]
        chance, mean, spread = (
            torch.stack([s[k] for s in said]) for k in ("logit", "mean", "spread")
        )
        return {
            "logit": torch.logit(torch.sigmoid(chance).mean(0), eps=1e-6),
            "mean": mean.mean(0),
            "spread": (spread.square().mean(0) + mean.var(0, unbiased=False)).sqrt(),
        }


def committee(task: Task, recipe: Recipe, plan: Any) -> Refit:
    """A ``refit`` that holds out each training part in turn, and averages the networks so made.

    Args:
        task, recipe, plan: as for ``learn.evaluate.refitter``.
    """

    def refit(train: Sequence[Windows], validation: Sequence[Windows]) -> Model:
        members = []
        for k, held in enumerate(train):
            others = [w for j, w in enumerate(train) if j != k]
            learned = [take(w, apart(w.time, held.time, EMBARGO)) for w in others]
            one = refitter(task, recipe, dataclasses.replace(plan, seed=1000 * plan.seed + k))
            members.append(one(learned, [held]).network)
        return Model(task, Committee(members), recipe, Card(task.name, "committee"))

    return refit
