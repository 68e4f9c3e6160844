"""The two published DeepECH networks, under their published parameter names.

Stage 1 (occurrence, a logit) reads the two hourly histories; stage 2 (amplitude, dB) reads all
four. Each history passes an LSTM with attention pooling, the place passes three dense layers,
and the joint layers see histories (in order) and then place. Here the first joint layer is
applied as two products that are added, so that a history is encoded once per instant and a
place once per grid, and only their sum is formed for every point of a map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN = 64
PLACE = (4, 100, 200, 500)
JOINT = (1024, 1024, 512, 512, 256, 256, 64, 1)
DROPPED = (6, 7)  # dropout 0.1 follows the last two hidden layers
CHUNK = 8192  # points whose joint layers run at once: bounds a map's memory


class _Pool(nn.Module):
    """Bias-free linear score over time, softmax, weighted sum: (rows, T, H) to (rows, H)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        weight = torch.softmax(self.attention(states), dim=1)
        return (weight * states).sum(dim=1)


class _History(nn.Module):
    """LSTM (1 to 64) over one raw index history in nT, attention-pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, HIDDEN, batch_first=True)
        self.attention = _Pool(HIDDEN)

    def forward(self, history: Tensor) -> Tensor:
        return cast(Tensor, self.attention(self.lstm(history.unsqueeze(-1))[0]))


class DeepECH(nn.Module):
    """One published stage: ``histories`` = 2 for occurrence, 4 for amplitude."""

    def __init__(self, histories: int) -> None:
        super().__init__()
        self.histories = histories
        for k in range(1, histories + 1):
            self.add_module(f"lstm{k}", _History())
        for k in range(1, 4):
            self.add_module(f"pos_fc{k}", nn.Linear(PLACE[k - 1], PLACE[k]))
        width = histories * HIDDEN + PLACE[-1]
        for k, out in enumerate(JOINT, start=1):
            self.add_module(f"fc{k}", nn.Linear(width, out))
            width = out

    def _dense(self, name: str) -> nn.Linear:
        return cast(nn.Linear, self.get_submodule(name))

    def encode_histories(self, histories: Sequence[Tensor]) -> Tensor:
        """Histories (rows, T) in nT to their share of the first joint layer, (rows, 1024)."""
        first = self._dense("fc1")
        return F.linear(self._coded(histories), first.weight[:, : self.histories * HIDDEN])

    def _coded(self, histories: Sequence[Tensor]) -> Tensor:
        coded = [self.get_submodule(f"lstm{k}")(h) for k, h in enumerate(histories, start=1)]
        return torch.cat(coded, dim=-1)

    def _placed(self, place: Tensor) -> Tensor:
        x = F.relu(self._dense("pos_fc1")(place))
        return cast(Tensor, self._dense("pos_fc3")(F.relu(self._dense("pos_fc2")(x))))

    def encode_places(self, place: Tensor) -> Tensor:
        """Place features (..., 4) to their share of the first joint layer, (..., 1024)."""
        first = self._dense("fc1")
        return F.linear(self._placed(place), first.weight[:, self.histories * HIDDEN :], first.bias)

    def join(self, history: Tensor, place: Tensor) -> Tensor:
        """Shares that broadcast against each other to the output, their common shape less one."""
        return self._finish(history + place)

    def _finish(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(x, 0.01)
        for k in range(2, len(JOINT)):
            x = F.leaky_relu(self._dense(f"fc{k}")(x), 0.01, inplace=not self.training)
            if k in DROPPED:
                x = F.dropout(x, 0.1, self.training)
        return cast(Tensor, self._dense(f"fc{len(JOINT)}")(x)).squeeze(-1)

    def forward(self, histories: Sequence[Tensor], place: Tensor) -> Tensor:
        """Histories (rows, T) each and place (rows, 4) to (rows,).

        One product over the joined inputs, as the authors do it: in single precision these
        networks differ from themselves by 1e-4 when sums are taken in another order.
        """
        joined = torch.cat([self._coded(histories), self._placed(place)], dim=-1)
        return self._finish(self._dense("fc1")(joined))


def stages_of(states: Sequence[Mapping[str, Tensor]]) -> tuple[DeepECH, DeepECH]:
    """(occurrence, amplitude) networks from their two state dicts, in that order.

    Raises:
        ValueError: a state dict is not that of the stage expected in its place.
    """
    made = []
    for label, count, state in zip(("occurrence", "amplitude"), (2, 4), states, strict=True):
        network = DeepECH(count)
        expected = network.state_dict()
        wrong = sorted(set(expected) ^ set(state)) or [
            k for k in expected if expected[k].shape != state[k].shape
        ]
        if wrong:
            raise ValueError(
                f"not the published {label} network ({count} histories): {wrong[0]!r} is "
                f"missing, unexpected or of another shape ({len(wrong)} such)"
            )
        network.load_state_dict(dict(state))
        made.append(network.eval())
    return made[0], made[1]
