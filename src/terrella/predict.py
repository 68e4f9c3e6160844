"""The plain loop of a network over rows, flat in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from terrella.types import Outputs, Windows

ROWS = 512  # rows a pass: the gates of one step stay in a core's cache, and memory stays flat


def predict(network: nn.Module, windows: Windows, rows: int = ROWS) -> Outputs:
    """Run a network over every row.

    On a CPU each core takes passes of its own: networks of this size have too little work in one
    operation to share it among cores.

    Args:
        network: its ``forward(**x)`` gives a dict of tensors, rows first.
        windows: the rows; strided views are sliced, never copied.
        rows: rows in one pass.

    Returns:
        The outputs by name, (rows, ...) float32. Rows marked invalid are computed too, and are the
        caller's to mask: leaving them out would break the overlap that views share.
    """
    device = next(network.parameters()).device
    network.eval()
    starts = range(0, max(len(windows), 1), rows)

    def one(lo: int) -> Outputs:
        with torch.inference_mode():
            part = {k: v[lo : lo + rows].to(device) for k, v in windows.x.items()}
            return {k: v.cpu().numpy() for k, v in network(**part).items()}

    out: Outputs = {}
    for lo, found in zip(starts, _each(one, starts, device.type), strict=True):
        for name, value in found.items():
            if name not in out:
                out[name] = np.empty((len(windows), *value.shape[1:]), np.float32)
            out[name][lo : lo + rows] = value
    return out


def _each(one: Callable[[int], Outputs], starts: range, device: str) -> Iterator[Outputs]:
    cores = min(torch.get_num_threads(), len(starts)) if device == "cpu" else 1
    if cores < 2:
        yield from map(one, starts)
        return
    # The number of threads is a setting of the thread that sets it: the caller's stays as it is.
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(one, starts)
