"""The published network and ours, and how both are run over a long series.

Published: Waters et al. 2025, doi:10.1029/2025JA034383: three tanh RNN layers, 14 -> 42, and a
linear layer to six classes, with PyTorch's own parameter names. Ours reads the same 14 features on
both sides of a sample, without recurrence.
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
REACHES = (3, 10)  # samples to either side over which means are told
OFFSETS = (-31, -20, -12, -6, -3, -1, 1, 3, 6, 12, 20, 31)  # samples at which neighbours are told
TOLD = 2 + len(REACHES) + 2 + len(OFFSETS)  # numbers told of each channel
DROPOUT = 0.1
SCALE_ROWS = 20_000  # more would not move a median
SURE = 0.1  # log error of B0 that is no reason for doubt
SMOOTHING = 5.0  # target mass moved to uniform per unit of log error in B0 ...
MOST = 0.8  # ... and at most this much


def build(recipe: Any) -> nn.Module:
    """The network of a recipe: ``kind`` is ``waters2025`` or ``context``."""
    if recipe.kind == "waters2025":
        return Published(recipe.hidden, recipe.layers)
    return Context(recipe.hidden, recipe.before, recipe.after)


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


def around(series: Tensor, before: int, after: int) -> Tensor:
    """What is told of a sample and both its sides: trees and our network see the same.

    Itself and its spread over the context; then, less itself, means over four stretches and
    neighbours at twelve distances (the furthest there is, where the context is shorter).

    Args:
        series: (..., length, channels).
        before, after: samples of context.

    Returns:
        (..., length - before - after, channels * TOLD) float32.
    """
    rows = series.shape[-2] - before - after
    at = series.narrow(-2, before, rows)
    # Sums in double precision: their differences are small beside them.
    total = F.pad(series.double().cumsum(-2), (0, 0, 1, 0))
    square = F.pad((series.double() ** 2).cumsum(-2), (0, 0, 1, 0))

    def mean(sums: Tensor, lo: int, hi: int) -> Tensor:
        above, below = (sums.narrow(-2, before + k, rows) for k in (hi + 1, lo))
        return (above - below) / (hi + 1 - lo)

    whole = mean(total, -before, after)
    spread = (mean(square, -before, after) - whole**2).clamp_min(0).sqrt()
    spans = [*((max(-k, -before), min(k, after)) for k in REACHES), (-before, 0), (0, after)]
    steps = [min(max(k, -before), after) for k in OFFSETS]
    told = [
        at, spread.float(), *((mean(total, lo, hi) - at).float() for lo, hi in spans),
        *(series.narrow(-2, before + k, rows) - at for k in steps),
    ]  # fmt: skip
    return torch.cat(told, -1)


class Context(nn.Module):
    """Layers over what ``around`` tells of a sample and both its sides.

    Scaling, the temperature that calibrates the confidence and the confidence below which it
    abstains are buffers: they travel with the weights.

    Args:
        hidden: width of the first two layers.
        before, after: samples of context on either side.
    """

    mean: Tensor
    scale: Tensor
    temperature: Tensor
    abstain: Tensor

    def __init__(self, hidden: int = 192, before: int = 31, after: int = 31) -> None:
        super().__init__()
        self.before, self.after = before, after
        told = FEATURES * TOLD
        self.layers = nn.Sequential(
            nn.Linear(told, hidden), nn.ReLU(), nn.Dropout(DROPOUT),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(DROPOUT),
            nn.Linear(hidden, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, CLASSES)
        self.register_buffer("mean", torch.zeros(told))
        self.register_buffer("scale", torch.ones(told))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("abstain", torch.zeros(()))

    def fit_scale(self, x: dict[str, Tensor]) -> None:
        """Take middle and spread of what is told from training rows, whatever their outliers."""
        told = around(x["features"][:SCALE_ROWS], self.before, self.after)[:, 0]
        self.mean.copy_(told.median(0).values)
        self.scale.copy_(1.5 * (told - self.mean).abs().median(0).values.clamp_min(1e-4))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(rows, before + 1 + after, 14) -> ``logits`` (rows, 6) of the sample in the middle."""
        return {"logits": self._of(around(features, self.before, self.after)[:, 0])}

    def sliding(self, series: Tensor, window: int) -> Tensor:
        """Logits of the middle sample of every window of a series (rows + window - 1, 14)."""
        return self._of(around(series, self.before, self.after))

    def _of(self, told: Tensor) -> Tensor:
        # Fields and flows have long tails; trees do not mind, layers do.
        x = (told - self.mean) / self.scale
        x = torch.copysign(x.abs().log1p(), x)
        logits: Tensor = self.head(self.layers(x)) / self.temperature
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
