"""The published network and ours, and how both are run over a long series.

Published: Waters et al. 2025, doi:10.1029/2025JA034383: three tanh RNN layers, 14 -> 42, and a
linear layer to six classes, with PyTorch's own parameter names. Ours reads the same 14 features to
both sides of a sample.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrella.tasks.reconnection.prepare import chunks
from terrella.types import Windows

ROWS = 1024  # rows a pass: one step's state stays in a core's cache
FEATURES, CLASSES = 14, 6
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
SURE = 0.1  # log error of B0 that is no reason for doubt
SMOOTHING = 5.0  # target mass moved to uniform per unit of log error in B0 ...
MOST = 0.8  # ... and at most this much


def build(recipe: Any) -> nn.Module:
    """The network of a recipe: ``kind`` is ``waters2025`` or ``bidirectional``."""
    if recipe.kind == "waters2025":
        return Published(recipe.hidden, recipe.layers)
    return Bidirectional(recipe.hidden, recipe.before, recipe.after)


class Published(nn.Module):
    """``nn.RNN`` (tanh) and a linear layer, as published.

    Args:
        hidden: width of each layer.
        layers: how many.
    """

    def __init__(self, hidden: int = 42, layers: int = 3) -> None:
        super().__init__()
        self.rnn = nn.RNN(FEATURES, hidden, layers, batch_first=True)
        self.fc = nn.Linear(hidden, CLASSES)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(rows, window, 14) -> ``logits`` (rows, 6) of the last sample, from a zero state."""
        state, _ = self.rnn(features)
        return {"logits": self.fc(state[:, -1])}

    def every(self, features: Tensor) -> Tensor:
        """(length, 14) -> logits (length, 6) of every sample, from a zero state."""
        state, _ = self.rnn(features)
        logits: Tensor = self.fc(state)
        return logits

    def sliding(self, series: Tensor, window: int) -> Tensor:
        """Logits of the last sample of every window of a series.

        Each window starts from a zero state, so its recurrence cannot be shared with the next, but
        the first layer's input projection is the same in all: it is made once a sample.

        Args:
            series: (rows + window - 1, 14).
            window: samples in each context.

        Returns:
            (rows, 6).
        """
        rows = len(series) - window + 1
        first = self._linear(series, "ih", 0)
        state = [series.new_zeros(rows, self.rnn.hidden_size) for _ in range(self.rnn.num_layers)]
        for step in range(window):
            below = torch.tanh(first[step : step + rows] + self._linear(state[0], "hh", 0))
            state[0] = below
            for layer in range(1, self.rnn.num_layers):
                below = torch.tanh(
                    self._linear(below, "ih", layer) + self._linear(state[layer], "hh", layer)
                )
                state[layer] = below
        logits: Tensor = self.fc(state[-1])
        return logits

    def _linear(self, x: Tensor, which: str, layer: int) -> Tensor:
        weight = getattr(self.rnn, f"weight_{which}_l{layer}")
        return F.linear(x, weight, getattr(self.rnn, f"bias_{which}_l{layer}"))


class Bidirectional(nn.Module):
    """A GRU towards the sample from the past and one from the future, then a small head.

    Scaling, the temperature that calibrates the confidence and the confidence below which it
    abstains are buffers: they travel with the weights.

    Args:
        hidden: width of each direction.
        before, after: samples of context on either side.
    """

    mean: Tensor
    scale: Tensor
    temperature: Tensor
    abstain: Tensor

    def __init__(self, hidden: int = 32, before: int = 31, after: int = 31) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.past = nn.GRU(FEATURES, hidden, batch_first=True)
        self.future = nn.GRU(FEATURES, hidden, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, CLASSES)
        )
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("abstain", torch.zeros(()))

    def fit_scale(self, x: dict[str, Tensor]) -> None:
        """Take mean and spread of the features from training rows."""
        flat = x["features"][:, self.before]
        self.mean.copy_(flat.mean(0))
        self.scale.copy_(flat.std(0).clamp_min(1e-6))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(rows, before + 1 + after, 14) -> ``logits`` (rows, 6) of the sample in the middle."""
        x = (features - self.mean) / self.scale
        _, past = self.past(x[:, : self.before + 1])
        _, future = self.future(x[:, self.before :].flip(1))
        logits: Tensor = self.head(torch.cat([past[-1], future[-1]], dim=1)) / self.temperature
        return {"logits": logits}

    def sliding(self, series: Tensor, window: int) -> Tensor:
        """Logits of the middle sample of every window of a series (rows + window - 1, 14).

        Input projections are made once a sample and shared by all windows.
        """
        rows = len(series) - window + 1
        x = (series - self.mean) / self.scale
        past = _final(self.past, x, rows, range(self.before + 1))
        future = _final(self.future, x, rows, range(window - 1, self.before - 1, -1))
        logits: Tensor = self.head(torch.cat([past, future], dim=1)) / self.temperature
        return logits

    def settle(self, windows: list[Windows], accuracy: float = 0.95) -> None:
        """Fit the temperature, then the confidence to abstain below, on held-out rows.

        Args:
            windows: rows with targets that the training did not see; a wrong B0 disqualifies.
            accuracy: share of correct labels wanted among those that are not abstained from.
        """
        self.temperature.fill_(1.0)
        logits, truth = [], []
        for part in windows:
            if part.y is not None:
                rows = torch.from_numpy(part.valid) & (part.y["doubt"] < SURE)
                logits.append(torch.from_numpy(_logits(self, part))[rows])
                truth.append(part.y["region"][rows])
        fitted = torch.cat(logits)
        known = torch.cat(truth)
        grid = torch.logspace(-0.7, 0.7, 57)
        losses = torch.stack([F.cross_entropy(fitted / t, known) for t in grid])
        self.temperature.fill_(float(grid[losses.argmin()]))
        best = torch.softmax(fitted / self.temperature, 1).max(1)
        confidence, order = best.values.sort(descending=True)
        right = (best.indices == known)[order].double().cumsum(0)
        kept = right / torch.arange(1, len(right) + 1)
        enough = torch.nonzero(kept >= accuracy)
        last = int(enough[-1]) if len(enough) else 0
        self.abstain.fill_(float(confidence[last]) if last + 1 < len(confidence) else 0.0)


def _final(gru: nn.GRU, x: Tensor, rows: int, steps: range) -> Tensor:
    """Last state of a one-layer GRU run over ``x[step : step + rows]`` for each step in turn.

    For inference only: it works in place, since memory traffic is what a step costs.
    """
    weights: list[Tensor] = [getattr(gru, f"{k}_l0") for k in NAMES]
    into, over, into_bias, over_bias = weights
    width, turned = gru.hidden_size, over.t().contiguous()
    bias = into_bias.clone()
    bias[: 2 * width] += over_bias[: 2 * width]  # of reset and update, where both simply add
    gates = F.linear(x, into, bias)
    state, own = x.new_zeros(rows, width), x.new_empty(rows, 3 * width)
    both, new = x.new_empty(rows, 2 * width), x.new_empty(rows, width)
    for step in steps:
        given = gates[step : step + rows]
        torch.mm(state, turned, out=own)
        torch.add(given[:, : 2 * width], own[:, : 2 * width], out=both).sigmoid_()
        torch.add(own[:, 2 * width :], over_bias[2 * width :], out=new)
        new.mul_(both[:, :width]).add_(given[:, 2 * width :]).tanh_()
        torch.lerp(new, state, both[:, width:], out=state)
    return state


def loss(outputs: dict[str, Tensor], y: dict[str, Tensor], weight: Tensor) -> Tensor:
    """Cross-entropy with targets that are less sure where B0 was set wrong on purpose.

    Training rows are also shown with a wrong B0 (``y["doubt"]`` is its log error); their target is
    moved towards uniform, so the network learns that an odd scale is a reason for doubt.
    """
    logits = outputs["logits"]
    soft = (SMOOTHING * (y["doubt"] - SURE).clamp_min(0)).clamp_max(MOST)[:, None]
    target = F.one_hot(y["region"], logits.shape[1]).to(logits.dtype)
    target = (1 - soft) * target + soft / logits.shape[1]
    each = -(target * F.log_softmax(logits, 1)).sum(1)
    total: Tensor = (each * weight).sum() / weight.sum().clamp_min(1e-9)
    return total


def predict(network: nn.Module, windows: Windows) -> dict[str, np.ndarray]:
    """Class probabilities of every row.

    In mode ``published`` the series is cut into chunks of the window's length, the state reset at
    each. In mode ``overlap`` every row has its own context. Where B0 and n0 are uncertain the rows
    are seen under several draws of both, and probabilities are averaged.

    Returns:
        ``probability`` (rows, 6) float32; ``spread`` (rows,), the standard deviation among draws
        of the winning class' probability; ``abstain`` (rows,), the confidence that these weights
        want before a region is named.
    """
    network.eval()
    edges = windows.extra.get("probe_rows", np.array([0, len(windows)]))
    factors = windows.extra.get("factors", [np.ones((1, FEATURES), np.float32)])
    mean = np.zeros((len(windows), CLASSES), np.float32)
    square = np.zeros_like(mean)
    if not len(windows):
        return {"probability": mean, "spread": mean[:, 0], "abstain": mean[:, 0]}
    for k, drawn in enumerate(factors):
        lo, hi = int(edges[k]), int(edges[k + 1])
        for factor in drawn:
            p = torch.softmax(
                torch.from_numpy(_logits(network, windows, lo, hi, factor)), 1
            ).numpy()
            mean[lo:hi] += p / len(drawn)
            square[lo:hi] += p**2 / len(drawn)
    best = mean.argmax(1)[:, None]
    variance = np.take_along_axis(square, best, 1) - np.take_along_axis(mean, best, 1) ** 2
    threshold = float(getattr(network, "abstain", torch.zeros(())))
    return {
        "probability": mean,
        "spread": np.sqrt(np.maximum(variance, 0))[:, 0],
        "abstain": np.full(len(windows), threshold, np.float32),
    }


def _logits(
    network: Any, windows: Windows, lo: int = 0, hi: int | None = None,
    factor: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Logits of rows [lo, hi), (rows, 6) float32, features multiplied by ``factor`` (14,)."""
    view = windows.x["features"]
    hi = len(windows) if hi is None else hi
    out = np.zeros((hi - lo, CLASSES), np.float32)
    if hi <= lo:
        return out
    times = torch.ones(FEATURES) if factor is None else torch.from_numpy(factor)
    with torch.inference_mode():
        if windows.extra.get("mode") == "published":
            place = windows.extra["place"]
            samples = view[lo:hi, place] * times
            segment = windows.extra["segment"][lo:hi]
            return _chunked(network, samples, segment, view.shape[1]).numpy()
        window = view.shape[1]
        for at in range(lo, hi, ROWS):
            end = min(at + ROWS, hi)
            # The windows of neighbouring rows are one series: its first column, and the last row.
            series = torch.cat([view[at:end, 0], view[end - 1, 1:]]) * times
            out[at - lo : end - lo] = network.sliding(series, window).numpy()
    return out


def _chunked(network: Any, samples: Tensor, segment: np.ndarray, size: int) -> Tensor:
    """Logits of a series cut into chunks of ``size``, from a zero state at the start of each.

    One chunk at a time, without a batch dimension, as the authors run it: in a batch the sums are
    made in another order, which moves probabilities by as much as 1e-6.
    """
    _, place = chunks(segment, size)
    edges = [*np.flatnonzero(place == 0).tolist(), len(samples)]
    parts = [network.every(samples[i:j]) for i, j in pairwise(edges)]
    return torch.cat(parts)
