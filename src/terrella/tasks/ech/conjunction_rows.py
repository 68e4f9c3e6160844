"""Conjunction files as rows of the two-stage network, and their division into folds."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from terrella.learn.split import apart, deal
from terrella.tasks.ech.conjunctions import Evaluation
from terrella.types import Fold, Refused, Scene, Windows

LAGS = 36
LEAST_AE = 1.0  # nT
ACTIVE = 300.0  # nT of AE at the row
EMBARGO = np.timedelta64(6, "h")  # twice the AE history: no input of one side is seen by the other
QUIET = 0.2  # lowest share of the training fluxes that counts as no precipitation
DAYS = 27  # of a block: one solar rotation
FEWEST = 200
RANDOM = "random rows (leaks)"
LEAK = "rows seconds apart lie on both sides"


def read(path: Path) -> Windows:
    """Read a conjunction file: time, L, MLT, flux_0, AE_lag00 (newest) to AE_lag35.

    Rows with a missing value are left out, with a warning. AE is at least 1 nT; a flux of 0 or
    below is one where nothing was seen.

    Returns:
        x ``ae`` (rows, 36) nT, oldest first, 5 min apart, and ``place`` (rows, 1, 3): L, cos MLT,
        sin MLT; y ``flux`` (rows, 1); group ``block`` of 27 days; extra ``activity`` and ``year``.

    Raises:
        Refused: not such a file, or under 200 rows are left.
    """
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    needed = ["time", "L", "MLT", "flux_0", *(f"AE_lag{k:02d}" for k in range(LAGS))]
    try:
        table = pd.read_csv(path)
        if missing := [c for c in needed if c not in table]:
            raise Refused(f"{path}: lacks the column {missing[0]} ({len(missing)} in all)")
        time = pd.to_datetime(table["time"].astype(str), utc=True, format="ISO8601")
        time = time.dt.tz_localize(None)
        numbers = table[needed[1:]].to_numpy(float)
    except (ValueError, UnicodeDecodeError, OSError, EOFError, pd.errors.ParserError) as error:
        raise Refused(
            f"{path}: cannot be read as conjunctions ({str(error).splitlines()[0][:100]})"
        ) from None
    good = _whole(path, needed, np.column_stack([time.isna(), ~np.isfinite(numbers)]))
    stamp, numbers = time.to_numpy("datetime64[ns]")[good], numbers[good]
    if not (numbers[:, 2] > 0).any():
        raise Refused(f"{path}: no flux_0 is above zero; nothing was seen in any row")
    return _windows(stamp, numbers)


def _whole(path: Path, needed: Sequence[str], wrong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows without a missing value; says which are left out."""
    good = np.asarray(~wrong.any(1))
    if good.all() and len(good) >= FEWEST:
        return good
    first_bad = ""
    if not good.all():
        row, column = np.argwhere(wrong)[0]
        first_bad = f"the first is {needed[column]} in row {row + 1}"
    if good.sum() < FEWEST:
        raise Refused(
            f"{path}: {good.sum()} whole rows; {FEWEST} are needed"
            + (f" ({(~good).sum()} have a value missing: {first_bad})" if first_bad else "")
        )
    warnings.warn(
        f"{path}: {(~good).sum()} rows with a value missing are left out; {first_bad}", stacklevel=3
    )
    return good


def _windows(time: NDArray[np.datetime64], numbers: NDArray[np.floating]) -> Windows:
    ae = np.maximum(numbers[:, :2:-1], LEAST_AE)
    angle = numbers[:, 1] * np.pi / 12
    place = np.stack([numbers[:, 0], np.cos(angle), np.sin(angle)], -1)
    block = (time - time.min()) // np.timedelta64(DAYS * 24, "h")
    active = ae[:, -1] >= ACTIVE
    return Windows(
        x={"ae": torch.from_numpy(ae.astype(np.float32)),
           "place": torch.from_numpy(place.astype(np.float32)).unsqueeze(1)},
        time=time,
        valid=np.ones(len(time), bool),
        groups={"block": block.astype(np.int64)},
        y={"flux": torch.from_numpy(np.maximum(numbers[:, 2:3], 0))},
        extra={"activity": np.where(active, f"AE >= {ACTIVE:g} nT", f"AE < {ACTIVE:g} nT"),
               "year": time.astype("datetime64[Y]").astype(str)},
    )  # fmt: skip


def take(windows: Windows, keep: NDArray[np.bool_]) -> Windows:
    """Some of the rows."""
    rows = torch.from_numpy(np.flatnonzero(keep))
    return Windows(
        {k: v[rows] for k, v in windows.x.items()}, windows.time[keep], windows.valid[keep],
        {k: v[keep] for k, v in windows.groups.items()},
        {k: v[rows] for k, v in (windows.y or {}).items()},
        {k: v[keep] for k, v in windows.extra.items()},
    )  # fmt: skip


def two_stages(windows: Windows, threshold: float) -> Windows:
    """Flux as occurrence above a threshold, and where it is, its log10 as amplitude."""
    assert windows.y is not None
    flux = windows.y["flux"]
    seen = flux > threshold
    value = torch.where(seen, flux.clamp(min=1e-9).log10(), torch.nan)
    return dataclasses.replace(windows, y={"occurrence": seen.float(), "amplitude": value.float()})


def plan(
    paths: Sequence[Path], evaluation: Evaluation, recipe: Any, options: Any
) -> Iterator[Fold]:
    """Folds of one file by block, and one at random; or a file to learn from and a later one."""
    rows, name = read(paths[0]), paths[0].name
    if len(paths) > 1:
        said = {"data": paths[1].name, "split": f"trained on {name}, all of it earlier"}
        yield _fold("later", rows, _later(paths[1], rows, paths[0]), evaluation, **said)
        return
    block = rows.groups["block"]
    if len(np.unique(block)) < max(evaluation.folds, 3):
        raise Refused(f"{paths[0]}: spans fewer blocks of {DAYS} days than its folds need")
    part = deal(block, evaluation.folds, evaluation.seed)
    said = {"data": name, "split": f"{DAYS}-day blocks, {evaluation.folds} folds"}
    for k in range(evaluation.folds):
        test = part == k
        learn = ~test & apart(rows.time, rows.time[test], EMBARGO)
        yield _fold(f"{k + 1}", take(rows, learn), take(rows, test), evaluation, **said)
    if evaluation.leak:  # beside the whole, to show what leaking hides; one fold is enough for that
        random = np.random.default_rng(evaluation.seed)
        test = random.permutation(len(rows)) % evaluation.folds == 0
        rows.extra["year"] = np.full(len(rows), RANDOM)
        fold = _fold(RANDOM, take(rows, ~test), take(rows, test), evaluation, **said)
        yield dataclasses.replace(fold, keys=(), embargo=None, leaks=LEAK, aside=True)


def _fold(name: str, learn: Windows, test: Windows, how: Evaluation, data: str, split: str
          ) -> Fold:  # fmt: skip
    """Training rows come in parts of whole blocks, for the committee."""
    assert learn.y is not None
    threshold = float(np.quantile(learn.y["flux"].numpy(), QUIET))
    learn, test = two_stages(learn, threshold), two_stages(test, threshold)
    part = deal(learn.groups["block"], how.members, how.seed)
    train = tuple(take(learn, part == k) for k in range(how.members) if (part == k).any())
    return Fold(
        name, (Scene({}, test),), train, refit=True, data=data, split=split, keys=("block",),
        embargo=EMBARGO,
    )  # fmt: skip


def _later(test: Path, rows: Windows, file: Path) -> Windows:
    later = read(test)
    keep = later.time > rows.time.max() + EMBARGO
    what = f"{(~keep).sum()} rows earlier than 6 h after {file} ends"
    if keep.sum() < FEWEST:
        raise Refused(
            f"{test}: {keep.sum()} rows are left without {what}; it must be later, "
            f"by {FEWEST} rows or more"
        )
    if not keep.all():
        warnings.warn(f"{test}: {what} are left out", stacklevel=2)
    later = take(later, keep)
    # Blocks are counted from the file's own start; those of the other file are others.
    labels = later.groups["block"] + rows.groups["block"].max() + 1
    return dataclasses.replace(later, groups={"block": labels})
