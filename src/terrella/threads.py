"""How many threads a computation takes: its own number, so that a machine's cores do not show."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def on_threads(count: object) -> Iterator[None]:
    """Let torch use ``count`` threads for a while, as many as before where that is None."""
    before = torch.get_num_threads()
    if isinstance(count, int):
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread for a while, whatever the library.

    With another number sums are added in another order, which shows in last digits; and threads
    that wait for each other on busy cores take many times as long.
    """
    with threadpool_limits(1), on_threads(1):
        yield
