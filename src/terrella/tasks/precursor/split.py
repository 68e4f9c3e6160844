"""Folds that do not leak: by earthquake, by station, by time, or by all three at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from terrella.types import NoData

KINDS = ("loeo", "loso", "blocks", "all", "random")

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def _deal(groups: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """(n,) fold of each row; a group is dealt whole, the largest first, to the emptiest fold."""
    names, inverse, count = np.unique(groups, return_inverse=True, return_counts=True)
    random = np.random.default_rng(seed)
    order = random.permutation(len(names))
    order = order[np.argsort(-count[order], kind="stable")]
    load = np.zeros(folds)
    where = np.zeros(len(names), np.int64)
    for k in order:
        where[k] = int(np.argmin(load))
        load[where[k]] += count[k]
    return where[inverse]


def codes(values: pd.Series | NDArray[np.generic]) -> NDArray[np.int64]:
    """(n,) whole numbers, one for each distinct value."""
    return np.asarray(pd.factorize(np.asarray(values), sort=True)[0], np.int64)


def _clear(
    table: pd.DataFrame, train: NDArray[np.bool_], test: NDArray[np.bool_], embargo: float
) -> NDArray[np.bool_]:
    """Training rows further than ``embargo`` days from every test row."""
    end = table["end"].to_numpy("datetime64[ns]").astype(np.int64) / 86_400e9
    tested = np.sort(end[test])
    right = np.clip(np.searchsorted(tested, end), 0, len(tested) - 1)
    left = np.clip(right - 1, 0, len(tested) - 1)
    away = np.minimum(np.abs(end - tested[left]), np.abs(end - tested[right]))
    return train & (away > embargo)


def folds(
    table: pd.DataFrame, kind: str, count: int = 10, embargo: float = 7.0, seed: int = 42
) -> Iterator[Fold]:
    """Training and test rows, fold by fold.

    ``loeo`` deals declustered earthquakes (a precursor and its matched normals stay together);
    ``loso`` leaves one station out; ``blocks`` deals stretches of time and leaves out of training
    what is within ``embargo`` days of a test row; ``all`` is the three together: the test rows are
    one third of the stations in one stretch of time, and training keeps only rows of other stations
    and other stretches that share no earthquake with any of them and lie outside the embargo.
    ``random`` is the naive split, to show what it hides.

    Args:
        table: rows with station, cluster, block, end.
        kind: one of KINDS.
        count: folds (loso: as many as stations).
        embargo: days.
        seed: of the deal.

    Yields:
        (train rows, test rows), both sorted. Folds with an empty side are left out.

    Raises:
        NoData: not a single fold has both sides.
    """
    n, any_fold = len(table), False
    station, cluster, block = (codes(table[c]) for c in ("station", "cluster", "block"))
    for train, test in _masks(n, station, cluster, block, kind, count, seed):
        if not test.any():
            continue
        if kind in ("blocks", "all"):
            train = _clear(table, train, test, embargo)
        if train.any():
            any_fold = True
            yield np.flatnonzero(train), np.flatnonzero(test)
    if not any_fold:
        raise NoData(
            f"split {kind!r}: no fold has rows on both sides ({n} rows, {station.max() + 1} "
            f"stations, {cluster.max() + 1} earthquakes, {block.max() + 1} time blocks)"
        )


def _masks(
    n: int, station: NDArray[np.int64], cluster: NDArray[np.int64], block: NDArray[np.int64],
    kind: str, count: int, seed: int,
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:  # fmt: skip
    if kind == "random":
        deal = np.random.default_rng(seed).permutation(n) % count
    elif kind == "loso":
        deal = station
    elif kind == "loeo":
        deal = _deal(cluster, count, seed)
    else:  # stretches of whole blocks, one after the other: the embargo then costs least
        deal = block * min(count, int(block.max()) + 1) // (int(block.max()) + 1)
    side = _deal(station, min(3, int(station.max()) + 1), seed) if kind == "all" else station * 0
    for k in range(int(deal.max()) + 1):
        for s in range(int(side.max()) + 1):
            test = (deal == k) & (side == s)
            if kind != "all":
                yield deal != k, test
                continue
            yield (deal != k) & (side != s) & ~np.isin(cluster, cluster[test]), test
