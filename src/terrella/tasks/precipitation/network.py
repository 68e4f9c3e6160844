"""The published bidirectional ReLU-LSTM, and a dilated convolution of ours.

Source: Capannolo, Li & Huang 2022, doi:10.3389/fspas.2022.858990.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrella.steps.scale import Standardise
from terrella.steps.window import base, once_per_sample
from terrella.tasks.precipitation.task import CLASSES, Recipe


def build(recipe: Recipe) -> nn.Module:
    """The network a recipe describes; its forward maps ``flux`` to ``logits`` (rows, 3)."""
    channels = 8 if recipe.features == "published" else 10
    return (BiLSTM if recipe.network == "bilstm" else Conv)(channels, recipe)


def loss(outputs: dict[str, Tensor], y: dict[str, Tensor], weight: Tensor) -> Tensor:
    """Weighted mean cross-entropy."""
    each = F.cross_entropy(outputs["logits"], y["class"], reduction="none")
    return (each * weight).sum() / weight.sum()


class BiLSTM(nn.Module):
    """Two LSTMs over a window, one from each end; their last states feed a dense layer.

    The cell's activation is the recipe's (ReLU as published, which ``nn.LSTM`` cannot run). Gates
    are stacked i, f, o, g, so that one sigmoid serves three. Input projections of windows that
    overlap are computed once a sample.

    Args:
        channels: features of one sample.
        recipe: sizes.
    """

    def __init__(self, channels: int, recipe: Recipe) -> None:
        super().__init__()
        self.hidden = recipe.hidden
        self.activation: Callable[[Tensor], Tensor] = getattr(torch, recipe.activation)
        self.scale = Standardise(channels)
        self.inputs = nn.Linear(channels, 8 * self.hidden)  # forward gates, then backward gates
        self.ahead = nn.Parameter(torch.empty(self.hidden, 4 * self.hidden))
        self.back = nn.Parameter(torch.empty(self.hidden, 4 * self.hidden))
        self.dense = nn.Linear(2 * self.hidden, recipe.dense)
        self.head = nn.Linear(recipe.dense, len(CLASSES))
        self.dropout = nn.Dropout(recipe.dropout)
        self._start()

    def _start(self) -> None:
        # As Keras starts an LSTM: orthogonal recurrence, forget gates open.
        for weight in (self.ahead, self.back):
            nn.init.orthogonal_(weight)
        nn.init.xavier_uniform_(self.inputs.weight)
        nn.init.zeros_(self.inputs.bias)
        with torch.no_grad():
            for k in (1, 5):
                self.inputs.bias[k * self.hidden : (k + 1) * self.hidden] = 1.0

    def fit_scale(self, x: dict[str, Tensor]) -> None:
        """Fix the scaling from training rows."""
        self.scale.fit(x["flux"])

    def forward(self, flux: Tensor) -> dict[str, Tensor]:
        """Map (rows, window, channels) to ``logits`` (rows, 3)."""
        gates = once_per_sample(lambda x: self.inputs(self.scale(x)), flux)
        size, steps = 4 * self.hidden, flux.shape[1]
        ends = [
            self._walk(gates[..., :size], self.ahead, range(steps)),
            self._walk(gates[..., size:], self.back, range(steps - 1, -1, -1)),
        ]
        dense = torch.relu(self.dense(self.dropout(torch.cat(ends, 1))))
        return {"logits": self.head(self.dropout(dense))}

    def _walk(self, gates: Tensor, recurrent: Tensor, order: range) -> Tensor:
        """Last state of one direction, from a zero state."""
        n = self.hidden
        h = c = torch.zeros(0)
        for k, step in enumerate(order):
            # The first state is zero: its product with the recurrent weights is left out.
            z = torch.addmm(gates[:, step], h, recurrent) if k else gates[:, step]
            i, f, o = torch.split(torch.sigmoid(z[:, : 3 * n]), n, 1)
            g = self.activation(z[:, 3 * n :])
            c = torch.addcmul(i * g, f, c) if k else i * g
            h = o * self.activation(c)
        return h


class Conv(nn.Module):
    """Dilated convolutions whose field of view is the window; a pass is convolved as a whole.

    Args:
        channels: features of one sample.
        recipe: ``window`` must be 1 + 4 (1 + 2 + 4 + ...) = 5, 13, 29, 61 samples.
    """

    def __init__(self, channels: int, recipe: Recipe) -> None:
        super().__init__()
        self.scale = Standardise(channels)
        layers, view, width = [], 1, channels
        while view < recipe.window:
            dilation = (view - 1) // 4 + 1
            layers.append(nn.Conv1d(width, recipe.hidden, 5, dilation=dilation))
            view, width = view + 4 * dilation, recipe.hidden
        if view != recipe.window:
            raise ValueError(f"window {recipe.window} is not one of 5, 13, 29, 61")
        self.layers = nn.ModuleList(layers)
        self.dense = nn.Conv1d(width, recipe.dense, 1)
        self.head = nn.Conv1d(recipe.dense, len(CLASSES), 1)
        self.dropout = nn.Dropout(recipe.dropout)

    def fit_scale(self, x: dict[str, Tensor]) -> None:
        """Fix the scaling from training rows."""
        self.scale.fit(x["flux"])

    def forward(self, flux: Tensor) -> dict[str, Tensor]:
        """Map (rows, window, channels) to ``logits`` (rows, 3)."""
        series = base(flux)
        x = self.scale(flux if series is None else series[None]).transpose(1, 2)
        for layer in self.layers:
            y = F.silu(layer(x))
            cut = (x.shape[2] - y.shape[2]) // 2
            # Each layer refines the middle of what it saw.
            x = y + x[..., cut:-cut] if x.shape[1] == y.shape[1] else y
        logits = self.head(self.dropout(F.silu(self.dense(x))))
        return {"logits": logits[..., 0] if series is None else logits[0].transpose(0, 1)}
