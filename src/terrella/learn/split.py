"""Splits by group, so that nothing that belongs together lies on both sides."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from terrella.types import Fold, Refused, Windows


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


def guard(fold: Fold) -> None:
    """Refuse a fold that has a group on both sides.

    Raises:
        Refused: names the key and some of the groups that leak.
    """
    for key in fold.keys:
        shared = _labels(key, fold.train + fold.validation) & _labels(
            key, (s.windows for s in fold.test)
        )
        if shared:
            some = ", ".join(sorted(map(str, shared))[:3])
            raise Refused(
                f"split {fold.name!r}: {len(shared)} of {key} lie in both train and test ({some}); "
                "split by group"
            )


def _labels(key: str, parts: Iterable[Windows]) -> set[object]:
    found: set[object] = set()
    for windows in parts:
        if key not in windows.groups:
            raise Refused(f"a split by {key!r} needs rows labelled with it")
        found.update(np.unique(windows.groups[key][windows.valid]).tolist())
    return found
