"""Overlapping windows as views, and work on them done once a sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def slide(series: Tensor, length: int) -> Tensor:
    """All windows of a series with stride 1, as a view.

    Args:
        series: (samples, channels).
        length: samples in a window.

    Returns:
        (samples - length + 1, length, channels), sharing memory with ``series``; no rows if the
        series is shorter than one window.
    """
    if len(series) < length:
        return series.new_empty(0, length, series.shape[1])
    return series.unfold(0, length, 1).transpose(1, 2)


def base(windows: Tensor) -> Tensor | None:
    """The series that windows slide over, if they are views of one; None if they are copies.

    Args:
        windows: (rows, length, channels).

    Returns:
        (rows + length - 1, channels), a view, or None.
    """
    rows, length, channels = windows.shape
    hop, step, unit = windows.stride()
    if rows < 2 or hop != step or unit != 1 or step < channels:
        return None
    return windows.as_strided((rows + length - 1, channels), (step, 1), windows.storage_offset())


def once_per_sample(work: Callable[[Tensor], Tensor], windows: Tensor) -> Tensor:
    """Apply per-sample work to windows, once for each sample however many windows share it.

    Args:
        work: maps (..., channels) to (..., features), each sample by itself.
        windows: (rows, length, channels), copies or views of ``slide``.

    Returns:
        (rows, length, features).
    """
    series = base(windows)
    return work(windows) if series is None else slide(work(series), windows.shape[1])


def by_step(work: Callable[[Tensor], Tensor], windows: Tensor) -> Tensor:
    """Per-sample work once a sample, laid out for a network that walks through its windows.

    Args:
        work: maps (channels, samples) to (features, samples), each sample by itself.
        windows: (rows, length, channels), copies or views of ``slide``.

    Returns:
        (length, features, rows): step t of every row is ``[t]``, a view in which rows are
        contiguous, so that pointwise work on a block of features runs through memory in order.
    """
    series = base(windows)
    if series is None:
        return torch.stack([work(x.T) for x in windows.unbind(1)])
    return work(series.T).unfold(1, len(windows), 1).permute(1, 0, 2)


def centre(length: int) -> int:
    """Index within a window of the sample it speaks for."""
    return length // 2


def as_tensor(array: object) -> Tensor:
    """A float32 tensor of its own memory."""
    return torch.as_tensor(array).to(torch.float32).contiguous()
