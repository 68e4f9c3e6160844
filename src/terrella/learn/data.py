"""Batches of rows for training, drawn in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from terrella.types import Refused, Windows

Batch = dict[str, Any]


class Rows(Dataset[Batch]):
    """Rows of many windows, fetched a whole batch at a time.

    Args:
        windows: parts, each with targets; overlapping views stay views until a batch is taken.
        sample: ``(windows, rng) -> (rows, weight)``; all valid rows with weight 1 if None.
        seed: of ``sample``.

    Raises:
        Refused: a part has no targets, or no row is left.
    """

    def __init__(
        self,
        windows: Sequence[Windows],
        sample: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.windows = list(windows)
        parts, rows, weights = [], [], []
        for k, part in enumerate(self.windows):
            if part.y is None:
                raise Refused("training needs rows whose truth is known; these have no targets")
            if sample is None:
                chosen = np.flatnonzero(part.valid)
                weight = np.ones(len(chosen), np.float32)
            else:
                chosen, weight = sample(part, rng)
            parts.append(np.full(len(chosen), k))
            rows.append(chosen)
            weights.append(weight)
        if not sum(map(len, rows)):
            raise Refused("no valid row to train on")
        self.part = np.concatenate(parts)
        self.row = np.concatenate(rows)
        self.weight = np.concatenate(weights).astype(np.float32)

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: Sequence[int] | np.ndarray) -> Batch:
        """One batch: ``x`` and ``y`` dicts of (batch, ...) tensors and ``weight`` (batch,)."""
        index = np.asarray(index)
        order = index[np.argsort(self.part[index], kind="stable")]
        parts, starts = np.unique(self.part[order], return_index=True)
        pieces = np.split(order, starts[1:])
        x: dict[str, list[Tensor]] = {}
        y: dict[str, list[Tensor]] = {}
        for part, piece in zip(parts, pieces, strict=True):
            windows, rows = self.windows[part], torch.from_numpy(self.row[piece])
            for name, value in windows.x.items():
                x.setdefault(name, []).append(value[rows])
            for name, value in (windows.y or {}).items():
                y.setdefault(name, []).append(value[rows])
        return {
            "x": {k: torch.cat(v) for k, v in x.items()},
            "y": {k: torch.cat(v) for k, v in y.items()},
            "weight": torch.from_numpy(self.weight[order]),
        }


class Shuffled(Sampler[np.ndarray]):
    """Batches of row numbers in an order fixed by seed and epoch, shared among ranks.

    A run that is resumed at an epoch's start sees the very batches it would have seen.
    """

    def __init__(self, rows: int, batch: int, seed: int, shuffle: bool = True) -> None:
        self.rows, self.batch, self.seed, self.shuffle = rows, batch, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def _ranks(self) -> tuple[int, int]:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def __len__(self) -> int:
        _, ranks = self._ranks()
        return -(-self.rows // (self.batch * ranks))

    def __iter__(self) -> Iterator[np.ndarray]:
        rank, ranks = self._ranks()
        order = np.arange(self.rows)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)
        # Each step takes batch * ranks rows in all; ranks share them evenly, so that the mean of
        # their gradients is the gradient of one process with that batch.
        step = self.batch * ranks
        for lo in range(0, self.rows, step):
            mine = order[lo : lo + step][rank::ranks]
            yield mine if len(mine) else order[:1]


def loader(rows: Rows, batch: int, seed: int, shuffle: bool = True) -> DataLoader[Batch]:
    """A loader whose every item is one batch."""
    sampler = Shuffled(len(rows), batch, seed, shuffle)
    return DataLoader(rows, sampler=sampler, batch_size=None)
