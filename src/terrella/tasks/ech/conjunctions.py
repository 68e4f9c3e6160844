"""The two-stage method on real data: precipitating electrons in POES/RBSP conjunctions.

Inputs are L, MLT and three hours of AE; occurrence is 0-degree flux above its lowest 20 % of the
training part, amplitude its log10. Neighbouring rows are seconds apart: a random split leaks, and
is scored beside the blocked one to show by how much.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray

from terrella.types import Refused

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]
LAGS = 36
QUIET = 0.2  # lowest share of the training fluxes that counts as no precipitation
DAYS = 27.0  # of a block: one solar rotation
LEVEL = 0.9
MODELS = ("terrella", "climatology", "ridge", "lightgbm")


@dataclass(frozen=True)
class Conjunctions:
    """Rows of a conjunction file.

    Attributes:
        time: (rows,). L: (rows,). MLT: (rows,) h. ae: (rows, 36) nT, oldest first, 5 min apart.
        flux: (rows,) 0-degree electron flux. block: (rows,) number of its 27 days.
    """

    time: NDArray[np.datetime64]
    L: Floats
    MLT: Floats
    ae: Floats
    flux: Floats
    block: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True)
class Settings:
    """Of the network and its training; chosen once on folds of 2013-2016, then left alone."""

    members: int = 6
    epochs: int = 12
    batch: int = 256
    lr: float = 3e-3
    weight_decay: float = 0.02
    width: int = 24
    joint: int = 48
    direct: int = 32
    dropout: float = 0.2
    encoder: str = "attention-lstm"


def read(path: Path) -> Conjunctions:
    """Read a conjunction file: time, L, MLT, flux_0, AE_lag00 (newest) to AE_lag35.

    Raises:
        Refused: not such a file.
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
    if len(table) < 200 or not np.isfinite(numbers).all() or (numbers[:, 2:] <= 0).any():
        raise Refused(f"{path}: {len(table)} rows; 200 are needed, with positive fluxes and AE")
    stamp = time.to_numpy("datetime64[ns]")
    block = (stamp - stamp.min()) // np.timedelta64(int(DAYS * 24), "h")
    return Conjunctions(stamp, numbers[:, 0], numbers[:, 1], numbers[:, :2:-1], numbers[:, 2],
                        block.astype(np.int64))  # fmt: skip


def _take(rows: Conjunctions, keep: Mask | NDArray[np.int64]) -> Conjunctions:
    return Conjunctions(rows.time[keep], rows.L[keep], rows.MLT[keep], rows.ae[keep],
                        rows.flux[keep], rows.block[keep])  # fmt: skip


def _place(rows: Conjunctions) -> Floats:
    angle = rows.MLT * np.pi / 12
    return np.stack([rows.L, np.cos(angle), np.sin(angle)], -1)


def folds(rows: Conjunctions, kind: str, count: int, seed: int) -> Iterator[tuple[Mask, Mask]]:
    """(train, test) masks: ``blocked`` keeps each 27 days on one side, ``random`` does not."""
    rng = np.random.default_rng(seed)
    if kind == "random":
        part = rng.permutation(len(rows)) % count
    else:
        labels, index = np.unique(rows.block, return_inverse=True)
        part = (rng.permutation(len(labels)) % count)[index]
    for k in range(count):
        yield part != k, part == k


def fit(name: str, train: Conjunctions, settings: Settings, seed: int
        ) -> tuple[float, Callable[[Conjunctions], tuple[Floats, Floats]]]:  # fmt: skip
    """Fit a model; returns the threshold of occurrence and (rows) -> (probability, log10 flux)."""
    threshold = float(np.quantile(train.flux, QUIET))
    seen = train.flux > threshold
    fitter: dict[str, Callable[..., Any]] = {
        "terrella": _network, "climatology": _climatology, "ridge": _ridge, "lightgbm": _trees,
    }  # fmt: skip
    return threshold, fitter[name](train, seen, np.log10(train.flux), settings, seed)


def _climatology(
    train: Conjunctions, seen: Mask, value: Floats, settings: Settings, seed: int
) -> Any:
    from terrella.tasks.ech.baselines import cells, table_of

    key = cells(train.L, train.MLT)
    chance, mean = table_of(key, seen.astype(float)), table_of(key[seen], value[seen])
    return lambda rows: (chance(cells(rows.L, rows.MLT)), mean(cells(rows.L, rows.MLT)))


def _ridge(train: Conjunctions, seen: Mask, value: Floats, settings: Settings, seed: int) -> Any:
    from terrella.tasks.ech.baselines import needed

    linear, pipeline, scaling = (
        needed(f"sklearn.{m}") for m in ("linear_model", "pipeline", "preprocessing")
    )
    make_pipeline, scaler = pipeline.make_pipeline, scaling.StandardScaler

    def inputs(rows: Conjunctions) -> Floats:
        place = _place(rows)
        return np.concatenate([place, place[:, :1] ** 2, np.log(rows.ae)], 1)

    first = make_pipeline(scaler(), linear.LogisticRegression(max_iter=2000))
    second = make_pipeline(scaler(), linear.RidgeCV(np.logspace(-1, 5, 13)))
    first.fit(inputs(train), seen)
    second.fit(inputs(train)[seen], value[seen])
    return lambda rows: (first.predict_proba(inputs(rows))[:, 1], second.predict(inputs(rows)))


def _trees(train: Conjunctions, seen: Mask, value: Floats, settings: Settings, seed: int) -> Any:
    from terrella.tasks.ech.baselines import trees

    def inputs(rows: Conjunctions) -> Floats:
        return np.concatenate([_place(rows), rows.ae], 1)

    first = trees("binary", seed).fit(inputs(train), seen)
    second = trees("regression", seed).fit(inputs(train)[seen], value[seen])
    return lambda rows: (first.predict_proba(inputs(rows))[:, 1], second.predict(inputs(rows)))


def _network(train: Conjunctions, seen: Mask, value: Floats, settings: Settings, seed: int) -> Any:
    """Members of the two-stage network, each stopped by blocks of its own, averaged."""
    import torch

    made = [_member(train, seen, value, settings, 1000 * seed + m) for m in range(settings.members)]

    def predictor(rows: Conjunctions) -> tuple[Floats, Floats]:
        x = _tensors(rows)
        with torch.inference_mode():
            out = [network(x) for network in made]
        chance = sum(torch.sigmoid(o["logit"][:, 0]) for o in out) / len(out)
        mean = sum(o["mean"][:, 0] for o in out) / len(out)
        return chance.numpy().astype(float), mean.numpy().astype(float)  # type: ignore[union-attr]

    return predictor


def _tensors(rows: Conjunctions) -> dict[str, Any]:
    import torch

    return {
        "ae": torch.from_numpy(rows.ae.astype(np.float32)).unsqueeze(-1),
        "place": torch.from_numpy(_place(rows).astype(np.float32)).unsqueeze(1),
    }


def _member(train: Conjunctions, seen: Mask, value: Floats, settings: Settings, seed: int) -> Any:
    import torch

    from terrella.tasks.ech.network import TwoStage, two_stage_loss

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    labels = np.unique(train.block)
    held = np.isin(train.block, rng.permutation(labels)[: max(len(labels) // 6, 1)])
    x = _tensors(train)
    o = torch.from_numpy(seen.astype(np.float32)).unsqueeze(1)
    a = torch.from_numpy(np.where(seen, value, np.nan).astype(np.float32)).unsqueeze(1)
    learn, check = np.flatnonzero(~held), torch.from_numpy(np.flatnonzero(held))
    network = TwoStage(
        {"ae": (LAGS, 1)}, 3, encoder=settings.encoder, width=settings.width, joint=settings.joint,
        direct=settings.direct, dropout=settings.dropout, share=False,
    )  # fmt: skip
    rows = torch.from_numpy(learn)
    network.fit({k: v[rows] for k, v in x.items()}, a[rows][~torch.isnan(a[rows])])
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    steps = max(len(learn) // settings.batch, 1)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.lr, total_steps=max(settings.epochs * steps, 20) + 1, pct_start=0.2
    )
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for _ in range(settings.epochs):
        network.train()
        order = rng.permutation(learn)
        for k in range(steps):
            batch = torch.from_numpy(order[k * settings.batch : (k + 1) * settings.batch])
            loss = two_stage_loss(network({n: v[batch] for n, v in x.items()}), o[batch], a[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            rate.step()
        _keep_best(network, {n: v[check] for n, v in x.items()}, o[check], a[check], best)
    for _, state in best.values():
        network.load_state_dict(state, strict=False)
    return network.eval()


def _keep_best(network: Any, x: dict[str, Any], o: Any, a: Any,
               best: dict[str, tuple[float, dict[str, Any]]]) -> None:  # fmt: skip
    """Remember each stage's own best epoch: the stages share nothing."""
    import torch

    network.eval()
    with torch.no_grad():
        out = network(x)
        waves = ~torch.isnan(a)
        loss = {
            "occurrence": torch.nn.functional.binary_cross_entropy_with_logits(out["logit"], o),
            "amplitude": (out["mean"] - a)[waves].square().mean(),
        }
    for stage, value in loss.items():
        if stage not in best or float(value) < best[stage][0]:
            state = {k: v for k, v in network.state_dict().items() if f".{stage}." in k}
            best[stage] = (float(value), copy.deepcopy(state))


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
        table: dict[str, Any] = {"block": test.block, "value": np.log10(test.flux)}
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
    if later.time.min() <= rows.time.max():
        raise Refused(f"{test}: begins {later.time.min()}, before {file} ends; it must be later")
    return later


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
    from terrella.verbs import say

    if encoder not in KINDS:
        raise Refused(f"--encoder {encoder!r}: choose one of {', '.join(KINDS)}")
    settings = Settings(members=members, epochs=epochs, encoder=encoder)
    rows = read(file)
    parts = []
    for kind, how in _splits(file, test, leak):
        later = _later(test, rows, file) if test is not None else None
        table = compare(rows, kind, settings, seed, later=later, note=say)
        parts.append(scores(table, test.name if test else file.name, how, seed=seed))
        shown = parts[-1][["metric", "model", "value", "lo", "hi", "n"]]
        print(f"{how}\n{shown.to_string(index=False, float_format=lambda v: f'{v:.4f}')}")
    result = pd.concat(parts, ignore_index=True)
    with files.whole(out / "scores.csv") as scratch:
        result.to_csv(scratch, index=False, lineterminator="\n")
    comparison(result, out / "conjunctions.png")
    print(out / "scores.csv")
