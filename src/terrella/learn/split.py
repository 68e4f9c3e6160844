"""Splits by group, so that nothing that belongs together lies on both sides."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from terrella.types import Fold, Refused, Scene, Windows


def by_group(groups: np.ndarray, shares: Sequence[float], seed: int) -> list[np.ndarray]:
    """Divide rows into parts so that every group lies in one part only.

    Args:
        groups: (rows,) label of each row.
        shares: share of the groups each part gets; they sum to 1.
        seed: of the shuffle of groups.

    Returns:
        One boolean mask over rows a part.

    Raises:
        Refused: there are fewer groups than parts.
    """
    labels, index = np.unique(groups, return_inverse=True)
    if len(labels) < len(shares):
        raise Refused(f"{len(labels)} groups cannot be split into {len(shares)} parts")
    order = np.random.default_rng(seed).permutation(len(labels))
    edges = np.round(np.cumsum([0.0, *shares]) / sum(shares) * len(labels)).astype(int)
    # A small share still gets a group of its own.
    for k in range(1, len(edges) - 1):
        edges[k] = min(max(edges[k], edges[k - 1] + 1), len(labels) - (len(shares) - k))
    part = np.empty(len(labels), int)
    for k, (lo, hi) in enumerate(itertools.pairwise(edges)):
        part[order[lo:hi]] = k
    return [part[index] == k for k in range(len(shares))]


def deal(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of each row: groups are dealt whole, the largest first, to the emptiest fold.

    Args:
        groups: (rows,) label of each row.
        folds: how many.
        seed: orders groups of equal size.

    Returns:
        (rows,) fold numbers from 0.
    """
    names, index, count = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-count[order], kind="stable")]
    load, where = np.zeros(folds), np.zeros(len(names), np.int64)
    for k in order:
        where[k] = int(np.argmin(load))
        load[where[k]] += count[k]
    return where[index]


def apart(time: np.ndarray, other: np.ndarray, embargo: np.timedelta64) -> np.ndarray:
    """Whether each time is more than the embargo from every other.

    Args:
        time: (rows,) datetime64.
        other: (others,) datetime64, in any order.
        embargo: a time at exactly this distance is not apart.

    Returns:
        (rows,) bool.
    """
    edge = np.sort(other)
    near = np.searchsorted(edge, time + embargo, "right") > np.searchsorted(edge, time - embargo)
    found: np.ndarray = ~near
    return found


def guard(fold: Fold) -> None:
    """Refuse a fold that does not say what it keeps apart, or does not keep it apart.

    Raises:
        Refused: names the key and some of the groups that leak, or the rows within the embargo.
    """
    if fold.leaks:
        return
    if not fold.keys:
        raise Refused(
            f"split {fold.name!r}: names no group that must not be on both sides; "
            "give Fold.keys, or say in Fold.leaks why it leaks"
        )
    learnt = fold.train + fold.validation
    for key in fold.keys:
        shared = _labels(key, learnt) & _labels(key, (s.windows for s in fold.test))
        if shared:
            some = ", ".join(sorted(map(str, shared))[:3])
            raise Refused(
                f"split {fold.name!r}: {len(shared)} of {key} lie in both train and test ({some}); "
                "split by group"
            )
    if fold.embargo is not None and learnt:
        tested = np.concatenate([s.windows.time[s.windows.valid] for s in fold.test])
        time = np.concatenate([w.time[w.valid] for w in learnt])
        near = int((~apart(time, tested, fold.embargo)).sum())
        if near:
            hours = fold.embargo / np.timedelta64(1, "h")
            raise Refused(
                f"split {fold.name!r}: {near} training rows lie within the embargo ({hours:g} h) "
                "of a test row; leave them out"
            )


def blind(windows: Windows) -> Windows:
    """Windows as a model sees them when it is judged: without their truth."""
    extra = {k: _bare(v) for k, v in windows.extra.items() if not k.startswith("true")}
    return dataclasses.replace(windows, y=None, extra=extra)


def _bare(value: Any) -> Any:
    """A table without the columns that its ``attrs["true"]`` names; anything else as it is."""
    if not isinstance(value, pd.DataFrame):
        return value
    return value.drop(columns=value.attrs.get("true", []), errors="ignore")


def shuffled(fold: Fold, seed: int) -> Fold:
    """A fold whose labels are exchanged among rows on both sides: nothing true is left to learn.

    The test side's are exchanged, too: a network that learnt noise points in some direction, and
    that may by chance be the right one.

    Args:
        fold: rows with targets; labels are exchanged within each ``fold.exchange``.
        seed: of the exchange.
    """
    rng = np.random.default_rng(seed)
    tested = tuple(
        dataclasses.replace(s, windows=_exchanged(s.windows, fold.exchange, rng)) for s in fold.test
    )
    parts = [tuple(_exchanged(w, fold.exchange, rng) for w in side)
             for side in (fold.train, fold.validation)]  # fmt: skip
    return dataclasses.replace(
        fold, test=tested, train=parts[0], validation=parts[1], null=f"label shuffle {seed}"
    )


def _exchanged(windows: Windows, within: str, rng: np.random.Generator) -> Windows:
    source = np.arange(len(windows))
    labels = windows.groups[within] if within else np.zeros(len(windows), int)
    for label in np.unique(labels):
        rows = np.flatnonzero((labels == label) & windows.valid)
        source[rows] = rng.permutation(rows)
    order = torch.from_numpy(source)
    return dataclasses.replace(windows, y={k: v[order] for k, v in (windows.y or {}).items()})


def rolled(scene: Scene, outputs: dict[str, np.ndarray], rng: np.random.Generator
           ) -> dict[str, np.ndarray]:  # fmt: skip
    """Outputs rolled along the rows by at least a tenth of them: they speak of other instants.

    Rolling keeps neighbours together, so the null is as smooth as the outputs are.
    """
    rows = len(scene.windows)
    far = max(rows // 10, 1)
    step = int(rng.integers(far, max(rows - far, far) + 1))
    return {k: np.roll(v, step, 0) if len(v) == rows else v for k, v in outputs.items()}


def _labels(key: str, parts: Iterable[Windows]) -> set[object]:
    found: set[object] = set()
    for windows in parts:
        if key not in windows.groups:
            raise Refused(f"a split by {key!r} needs rows labelled with it")
        found.update(np.unique(windows.groups[key][windows.valid]).tolist())
    return found
