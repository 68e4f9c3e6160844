"""Terrella: products from raw geospace data with trained networks.

>>> import terrella
>>> model = terrella.load("precipitation")
>>> product = terrella.run(model, source, start, stop)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from terrella.registry import names as task_names
from terrella.task import Model, run
from terrella.types import NoData, Product, Refused

if TYPE_CHECKING:
    import os

__version__ = "0.1.0"
__all__ = ["Model", "NoData", "Product", "Refused", "load", "run", "task_names"]


def load(task: str, weights: str | os.PathLike[str] = "default") -> Model:
    """Load a task with trained weights.

    Args:
        task: a name from ``terrella.task_names()``.
        weights: ``default``, the name of imported weights, or a ``.safetensors`` file with its card
            beside it.

    Raises:
        Refused: no such task or weights, a wrong hash, or weights of another task.
    """
    from terrella.weights import load as load_weights

    return load_weights(task, weights)
