"""The published bidirectional ReLU-LSTM, and a dilated convolution of ours.

Source: Capannolo, Li & Huang 2022, doi:10.3389/fspas.2022.858990.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrella.steps.scale import Standardise
from terrella.steps.window import base, by_step
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
    overlap are computed once a sample. States are (hidden, rows): a gate is then one block of
    memory.

    Args:
        channels: features of one sample.
        recipe: sizes.
    """

    threads = 1

    def __init__(self, channels: int, recipe: Recipe) -> None:
        super().__init__()
        self.hidden = recipe.hidden
        self.activation: Callable[[Tensor], Tensor] = getattr(torch, recipe.activation)
        self.in_place: Callable[[Tensor], Tensor] = getattr(torch, f"{recipe.activation}_")
        self.scale = Standardise(channels)
        self.inputs = nn.Linear(channels, 8 * self.hidden)  # forward gates, then backward gates
        self.ahead = nn.Parameter(torch.empty(4 * self.hidden, self.hidden))
        self.back = nn.Parameter(torch.empty(4 * self.hidden, self.hidden))
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
        if len(flux) == 0:
            return {"logits": flux.new_zeros(0, len(CLASSES))}
        gates = by_step(self._projected, flux)
        size = 4 * self.hidden
        walk = self._walk if torch.is_grad_enabled() else self._walk_in_place
        # Lists of views: turning a tensor round would copy it.
        ahead = list(gates[:, :size])
        back = list(gates[:, size:])[::-1]
        ends = torch.cat([walk(ahead, self.ahead), walk(back, self.back)])
        dense = torch.relu(_affine(self.dense, self.dropout(ends)))
        return {"logits": _affine(self.head, self.dropout(dense)).T}

    def _projected(self, x: Tensor) -> Tensor:
        return _affine(self.inputs, self.scale(x.T).T)

    def _walk(self, gates: Sequence[Tensor], recurrent: Tensor) -> Tensor:
        """Last state (hidden, rows) of one direction, from a zero state."""
        n = self.hidden
        h = c = torch.zeros(0)
        for k, gate in enumerate(gates):
            # The first state is zero: its product with the recurrent weights is left out.
            z = torch.addmm(gate, recurrent, h) if k else gate
            i, f, o = torch.sigmoid(z[: 3 * n]).reshape(3, n, -1).unbind()
            g = self.activation(z[3 * n :])
            c = torch.addcmul(i * g, f, c) if k else i * g
            h = o * self.activation(c)
        return h

    def _walk_in_place(self, gates: Sequence[Tensor], recurrent: Tensor) -> Tensor:
        """The same without a gradient, in one set of buffers: half of the time is memory."""
        n, rows = self.hidden, gates[0].shape[1]
        z = gates[0].new_empty(4 * n, rows)
        h, c = z.new_empty(n, rows), z.new_empty(n, rows)
        i, f, o, g = z.reshape(4, n, -1).unbind()
        for k, gate in enumerate(gates):
            if k:
                torch.addmm(gate, recurrent, h, out=z)
                z[: 3 * n].sigmoid_()
                c.mul_(f).addcmul_(i, self.in_place(g))
            else:
                torch.sigmoid(gate[: 3 * n], out=z[: 3 * n])
                torch.mul(i, self.in_place(g.copy_(gate[3 * n :])), out=c)
            if self.activation is torch.relu:
                torch.mul(o, c, out=h).relu_()  # o is positive, so this is o relu(c), a pass less
            else:
                torch.mul(o, self.activation(c), out=h)
        return h


def _affine(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer on columns: (features, rows) to (outputs, rows)."""
    return torch.addmm(layer.bias[:, None], layer.weight, x)


class Conv(nn.Module):
    """Dilated convolutions whose field of view is the window; a pass is convolved as a whole.

    Args:
        channels: features of one sample.
        recipe: ``window`` must be 1 + 4 (1 + 2 + 4 + ...) = 5, 13, 29, 61 samples.
    """

    threads = 1

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
