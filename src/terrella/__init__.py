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
    from typing import Any

    from terrella.archive.catalogue import Catalogue

__version__ = "0.1.0"
__all__ = ["Model", "NoData", "Product", "Refused", "load", "open_catalogue", "run", "task_names"]


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


def open_catalogue(store: str | os.PathLike[str], **where: Any) -> Catalogue:
    """Open the events of a store that ``terrella run TASK ... --workers`` made; reads nothing yet.

    >>> found = terrella.open_catalogue("store", label="REP", L=(4, 6), time=("2013-01-01", None))
    >>> found.count(), found.to_pandas(), found.write("rep.csv")

    Args:
        store: its folder. Only whole units count, those of the store's own weights and options.
        where: columns and what they must be: a value, a list (any of them), or a tuple, the range
            [lo, hi) with None for an open end. ``time`` stands for the start of an event. Files
            that cannot match are not opened, row groups that cannot are not read.

    Raises:
        Refused: no store, no such column, or a value that does not fit it.
    """
    from terrella.archive import cluster
    from terrella.archive.catalogue import open_catalogue as open_it

    cluster.need()
    return open_it(store, **where)
