"""The two-stage method on real data: precipitating electrons in POES/RBSP conjunctions.

Inputs are L, MLT and three hours of AE; occurrence is 0-degree flux above its lowest 20 % of the
training part, amplitude its log10. Neighbouring rows are seconds apart: a random split leaks, and
is scored beside the blocked one to show by how much.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray

from terrella.tasks.ech.conjunction_models import (
    EMBARGO,
    LAGS,
    LEAST_AE,
    MODELS,
    Conjunctions,
    Floats,
    Mask,
    Settings,
    apart,
    fit,
    logged,
)
from terrella.types import Refused

DAYS = 27.0  # of a block: one solar rotation
LEVEL = 0.9
FEWEST = 200


def read(path: Path) -> Conjunctions:
    """Read a conjunction file: time, L, MLT, flux_0, AE_lag00 (newest) to AE_lag35.

    Rows with a missing value are left out, with a warning. AE is at least 1 nT (its log is an
    input); a flux of 0 or below is one where nothing was seen.

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
        time = pd.to_datetime(table["time"], utc=True, format="ISO8601").dt.tz_localize(None)
        numbers = table[needed[1:]].to_numpy(float)
    except (ValueError, UnicodeDecodeError, OSError, EOFError, pd.errors.ParserError) as error:
        raise Refused(
            f"{path}: cannot be read as conjunctions ({str(error).splitlines()[0][:100]})"
        ) from None
    wrong = np.column_stack([time.isna(), ~np.isfinite(numbers)])
    good = ~wrong.any(1)
    first_bad = ""
    if not good.all():
        row, column = np.argwhere(wrong)[0]
        first_bad = f"the first is {needed[column]} in row {row + 1}"
    if good.sum() < FEWEST:
        raise Refused(
            f"{path}: {good.sum()} whole rows; {FEWEST} are needed"
            + (f" ({(~good).sum()} have a value missing: {first_bad})" if first_bad else "")
        )
    if first_bad:
        warnings.warn(
            f"{path}: {(~good).sum()} rows with a value missing are left out; {first_bad}",
            stacklevel=2,
        )
    stamp, numbers = time.to_numpy("datetime64[ns]")[good], numbers[good]
    numbers[:, 2] = np.maximum(numbers[:, 2], 0)
    numbers[:, 3:] = np.maximum(numbers[:, 3:], LEAST_AE)
    if not (numbers[:, 2] > 0).any():
        raise Refused(f"{path}: no flux_0 is above zero; nothing was seen in any row")
    block = (stamp - stamp.min()) // np.timedelta64(int(DAYS * 24), "h")
    return Conjunctions(stamp, numbers[:, 0], numbers[:, 1], numbers[:, :2:-1], numbers[:, 2],
                        block.astype(np.int64))  # fmt: skip


def _take(rows: Conjunctions, keep: Mask | NDArray[np.int64]) -> Conjunctions:
    return Conjunctions(rows.time[keep], rows.L[keep], rows.MLT[keep], rows.ae[keep],
                        rows.flux[keep], rows.block[keep])  # fmt: skip


def folds(rows: Conjunctions, kind: str, count: int, seed: int) -> Iterator[tuple[Mask, Mask]]:
    """(train, test) masks: ``blocked`` keeps each 27 days on one side, ``random`` does not.

    Rows within 6 h of a blocked test row are in neither: they share its AE and its injection.
    """
    rng = np.random.default_rng(seed)
    if kind == "random":
        part = rng.permutation(len(rows)) % count
    else:
        labels, index = np.unique(rows.block, return_inverse=True)
        part = (rng.permutation(len(labels)) % count)[index]
    for k in range(count):
        test = part == k
        yield (~test if kind == "random" else ~test & apart(rows.time, rows.time[test])), test


def compare(rows: Conjunctions, kind: str, settings: Settings, seed: int = 0, count: int = 5,
            later: Conjunctions | None = None, note: Callable[[str], None] = lambda _: None
            ) -> pd.DataFrame:  # fmt: skip
    """Out-of-fold predictions of every model on the same rows.

    Returns:
        One row a sample: block, seen (0, 1), value (log10 flux), and for each model p_ and m_.
    """
    parts = []
    pairs: list[tuple[Conjunctions, Conjunctions]] = (
        [(rows, later)] if later is not None
        else [(_take(rows, a), _take(rows, b)) for a, b in folds(rows, kind, count, seed)]
    )  # fmt: skip
    for k, (train, test) in enumerate(pairs):
        table: dict[str, Any] = {"block": test.block, "value": logged(test.flux)}
        for name in MODELS:
            note(f"{kind} fold {k + 1} of {len(pairs)}: {name}")
            threshold, predictor = fit(name, train, settings, seed)
            table["seen"] = (test.flux > threshold).astype(float)
            table[f"p_{name}"], table[f"m_{name}"] = predictor(test)
        parts.append(pd.DataFrame(table))
    return pd.concat(parts, ignore_index=True)


def auc(p: Floats, seen: Floats, weight: Floats) -> float:
    """Weighted area under the ROC curve; ties count half."""
    order = np.argsort(p, kind="stable")
    p, yes, no = p[order], (seen * weight)[order], ((1 - seen) * weight)[order]
    ties = np.append(0, np.flatnonzero(np.diff(p)) + 1)
    yes, no = np.add.reduceat(yes, ties), np.add.reduceat(no, ties)
    return float((yes * (np.cumsum(no) - no / 2)).sum() / (yes.sum() * no.sum()))


def explained(m: Floats, value: Floats, weight: Floats) -> float:
    """Weighted R2 against the weighted mean."""
    middle = (weight * value).sum() / weight.sum()
    return float(1 - (weight * (value - m) ** 2).sum() / (weight * (value - middle) ** 2).sum())


def scores(
    table: pd.DataFrame, data: str, split: str, draws: int = 400, seed: int = 0
) -> pd.DataFrame:
    """ROC-AUC and R2 of every model, and the network's lead over each, with 90 % intervals.

    Blocks are drawn with replacement, the same draws for all models, so leads are paired.
    """
    from terrella.learn.metrics import block_weights

    waves = table["seen"].to_numpy() > 0
    seen, value = table["seen"].to_numpy(), table["value"].to_numpy()
    weights = np.vstack(
        [np.ones(len(table)), block_weights(table["block"].to_numpy(), draws, seed)]
    )
    out = []
    drawn: dict[tuple[str, str], Floats] = {}
    for name in MODELS:
        p, m = table[f"p_{name}"].to_numpy(), table[f"m_{name}"].to_numpy()
        drawn["roc_auc", name] = np.array([auc(p, seen, w) for w in weights])
        drawn["r2", name] = np.array([explained(m[waves], value[waves], w[waves]) for w in weights])
    for (metric, name), got in list(drawn.items()):
        if name != "terrella":
            drawn[f"{metric} lead of terrella", name] = drawn[metric, "terrella"] - got
    for (metric, name), got in drawn.items():
        low, high = np.quantile(got[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        out.append({"task": "ech", "data": data, "split": split, "group": "all", "lead": "",
                    "model": name, "metric": metric, "value": got[0], "lo": low, "hi": high,
                    "n": len(table) if "auc" in metric else int(waves.sum())})  # fmt: skip
    return pd.DataFrame(out)


def _splits(file: Path, test: Path | None, leak: bool) -> list[tuple[str, str]]:
    if test is not None:
        return [("later", f"trained on {file.name}, all of it earlier")]
    ways = [("blocked", "27-day blocks, 5 folds"), ("random", "random rows, 5 folds (leaks)")]
    return ways[: 1 + leak]


def _later(test: Path, rows: Conjunctions, file: Path) -> Conjunctions:
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
    return _take(later, keep)


def conjunctions(
    file: Annotated[Path, typer.Argument(help="conjunctions: time, L, MLT, flux_0, AE_lag00..35")],
    out: Annotated[Path, typer.Option(help="folder for scores.csv and the figure")] = Path(
        "out/conjunctions"
    ),
    test: Annotated[
        Path | None, typer.Option(help="later conjunctions: train on all of FILE, score there")
    ] = None,
    members: Annotated[int, typer.Option(help="networks averaged", min=1)] = Settings.members,
    epochs: Annotated[int, typer.Option(help="at most, of each", min=1)] = Settings.epochs,
    encoder: Annotated[
        str, typer.Option(help="attention-lstm, lstm or transformer")
    ] = Settings.encoder,
    seed: Annotated[int, typer.Option(help="of folds, weights and bootstrap")] = 0,
    leak: Annotated[bool, typer.Option(help="score a random split, too, to show the leak")] = True,
) -> None:
    """The two-stage network on real conjunctions, beside climatology, ridge and LightGBM.

    Example: `terrella ech conjunctions poes_rbsp_conjunctions.csv.gz --out out/`
    """
    from terrella import files
    from terrella.tasks.ech.network import KINDS
    from terrella.tasks.ech.plot import comparison
    from terrella.verbs import say, warnings_as_lines

    if encoder not in KINDS:
        raise Refused(f"--encoder {encoder!r}: choose one of {', '.join(KINDS)}")
    settings = Settings(members=members, epochs=epochs, encoder=encoder)
    with warnings_as_lines():
        rows = read(file)
        later = _later(test, rows, file) if test is not None else None
    parts = []
    for kind, how in _splits(file, test, leak):
        table = compare(rows, kind, settings, seed, later=later, note=say)
        parts.append(scores(table, test.name if test else file.name, how, seed=seed))
        shown = parts[-1][["metric", "model", "value", "lo", "hi", "n"]]
        print(f"{how}\n{shown.to_string(index=False, float_format=lambda v: f'{v:.4f}')}")
    result = pd.concat(parts, ignore_index=True)
    with files.whole(out / "scores.csv") as scratch:
        result.to_csv(scratch, index=False, lineterminator="\n")
    comparison(result, out / "conjunctions.png")
    print(out / "scores.csv")
