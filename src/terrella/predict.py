"""The plain loop of a network over rows, flat in memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from terrella.threads import on_threads
from terrella.types import Outputs, Windows

ROWS = 512  # rows a pass: the gates of one step stay in a core's cache, and memory stays flat


def predict(network: nn.Module, windows: Windows, rows: int = ROWS) -> Outputs:
    """Run a network over every row.

    A network may say by an attribute ``threads`` how many cores one operation of it should use: a
    small one loses more by sharing an operation than it gains, and much on a busy machine.

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
    out: Outputs = {}
    with torch.inference_mode(), on_threads(getattr(network, "threads", None)):
        for lo in range(0, max(len(windows), 1), rows):
            part = {k: v[lo : lo + rows].to(device) for k, v in windows.x.items()}
            for name, value in network(**part).items():
                if name not in out:
                    out[name] = np.empty((len(windows), *value.shape[1:]), np.float32)
                out[name][lo : lo + rows] = value.cpu().numpy()
    return out
