"""Train on folds and score on what was left out: network, shortcuts and nulls on the same rows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrella.tasks.precursor import augment
from terrella.tasks.precursor.labels import NORMAL_MAGNITUDE
from terrella.tasks.precursor.network import AZIMUTH, MAGNITUDE, Precursor, class_weights, fit_scaling, loss
from terrella.tasks.precursor.skill import SHORTCUTS, Certificate, certify, lookup
from terrella.tasks.precursor.split import codes, folds
from terrella.types import NoData

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """How a network is trained; the defaults are the published ones.

    Attributes:
        rate: AdamW's learning rate.
        decay: weight decay.
        batch: rows in a step.
        epochs: at most.
        patience: epochs without a better inner loss after which training ends.
        warmup: epochs in which the rate rises; then it falls as a cosine.
        clip: largest gradient norm.
        augment: "physical", "published" or "none".
        loss: "weighted", "focal" or "plain".
        inner: share of the training groups held back to choose the epoch.
        scaling: "data" fits the image scaling to the training rows, "kept" leaves the network's.
        seed: of everything drawn.
    """

    rate: float = 1e-4
    decay: float = 0.05
    batch: int = 32
    epochs: int = 50
    patience: int = 10
    warmup: int = 5
    clip: float = 1.0
    augment: str = "physical"
    loss: str = "weighted"
    inner: float = 0.2
    scaling: str = "data"
    seed: int = 42


def inner_split(
    groups: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to fit and rows to choose the epoch on: whole groups, from the training side only."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    count = max(round(share * len(names)), 1)
    held = np.isin(groups, names[:count])
    if held.all():
        raise NoData(f"{len(names)} group of earthquakes is too few to hold one back")
    return np.flatnonzero(~held), np.flatnonzero(held)


def _targets(table: pd.DataFrame) -> dict[str, Tensor]:
    return {k: torch.tensor(table[k].to_numpy(np.int64)) for k in ("magnitude", "azimuth")}


def _schedule(step: int, warm: int, total: int) -> float:
    if step < warm:
        return (step + 1) / max(warm, 1)
    return 0.5 * (1 + math.cos(math.pi * min((step - warm) / max(total - warm, 1), 1.0)))


def predict(network: Precursor, image: Tensor, batch: int = 64) -> dict[str, Array]:
    """Probabilities of both heads: "magnitude" (n, 4), "azimuth" (n, 9)."""
    network.eval()
    parts: dict[str, list[Tensor]] = {"magnitude": [], "azimuth": []}
    with torch.inference_mode():
        for start in range(0, len(image), batch):
            for name, logits in network(image[start : start + batch]).items():
                parts[name].append(logits.softmax(1))
    return {name: torch.cat(p).double().numpy() for name, p in parts.items()}


def fit(network: Precursor, image: Tensor, table: pd.DataFrame, how: Training) -> Precursor:
    """Train on some groups, keep the epoch that does best on others; all from the rows given.

    Args:
        network: fresh; it is changed and returned in evaluation mode.
        image: (n, 3, h, w) bytes.
        table: (n,) rows with magnitude, azimuth (class numbers) and cluster.
        how: settings.
    """
    torch.manual_seed(how.seed)
    generator = torch.Generator().manual_seed(how.seed)
    rows, held = inner_split(codes(table["cluster"]), how.inner, how.seed)
    if how.scaling == "data":
        fit_scaling(network, image[rows])
    target = _targets(table)
    weights = {
        "magnitude_weight": class_weights(target["magnitude"][rows], len(MAGNITUDE)),
        "azimuth_weight": class_weights(target["azimuth"][rows], len(AZIMUTH)),
    }
    steps = math.ceil(len(rows) / how.batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=how.rate, weight_decay=how.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: _schedule(s, how.warmup * steps, how.epochs * steps)
    )
    best, since, kept = math.inf, 0, copy.deepcopy(network.state_dict())
    for _ in range(how.epochs):
        network.train()
        order = torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)]
        for start in range(0, len(order), how.batch):
            pick = order[start : start + how.batch]
            unit = augment.apply(image[pick].float() / 255.0, how.augment, generator)
            value = loss(network(unit), {k: v[pick] for k, v in target.items()} | weights, how.loss)
            optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), how.clip)
            optimiser.step()
            schedule.step()
        now = _held_loss(network, image[held], {k: v[held] for k, v in target.items()} | weights)
        if now < best:
            best, since, kept = now, 0, copy.deepcopy(network.state_dict())
        else:
            since += 1
            if since >= how.patience:
                break
    network.load_state_dict(kept)
    return network.eval()


def _held_loss(network: Precursor, image: Tensor, target: dict[str, Tensor]) -> float:
    network.eval()
    with torch.inference_mode():
        parts = [network(image[k : k + 64]) for k in range(0, len(image), 64)]
        whole = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
        return float(loss(whole, target, "plain"))


@dataclass(frozen=True)
class Outcome:
    """Out-of-fold probabilities of one study, all models on the same rows.

    Attributes:
        rows: (m,) rows of the table that were tested.
        network: "magnitude" (m, 4), "azimuth" (m, 9).
        baselines: shortcut name -> the same.
        fold: (m,) number of the fold.
    """

    rows: NDArray[np.int64]
    network: dict[str, Array]
    baselines: dict[str, dict[str, Array]] = field(default_factory=dict)
    fold: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def shortcuts(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, dict[str, Array]]:
    """Every shortcut fitted on ``train``, as probabilities on ``test``."""
    size = {"magnitude": len(MAGNITUDE), "azimuth": len(AZIMUTH)}
    return {
        name: {head: lookup(train, test, columns, head, n) for head, n in size.items()}
        for name, columns in SHORTCUTS.items()
    }


def prepare_table(table: pd.DataFrame) -> pd.DataFrame:
    """Adds what shortcuts look up and is not there yet: kp_class (whole Kp), month, hour."""
    when = pd.DatetimeIndex(table["end"])
    out = table.reset_index(drop=True).copy()
    out["month"], out["hour"] = when.month, when.hour
    kp = out["kp"] if "kp" in out else pd.Series(np.nan, out.index)
    out["kp_class"] = np.where(kp.isna(), -1, np.floor(kp.fillna(0))).astype(int)
    return out


def crossval(
    image: NDArray[np.uint8] | Tensor,
    table: pd.DataFrame,
    make: Callable[[], Precursor],
    how: Training,
    kind: str = "loeo",
    count: int = 10,
    embargo: float = 7.0,
    progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Train and test fold by fold.

    Args:
        image: (n, 3, h, w) bytes.
        table: (n,) rows: station, end, cluster, block, magnitude, azimuth, bearing, kp.
        make: gives a fresh network.
        how: training settings.
        kind: split, one of ``split.KINDS``.
        count: folds.
        embargo: days.
        progress: told a line for every fold.

    Returns:
        Outcome with the network's and every shortcut's probabilities on the tested rows.
    """
    table = prepare_table(table)
    pixels = torch.as_tensor(image)
    rows: list[NDArray[np.int64]] = []
    number: list[NDArray[np.int64]] = []
    network: dict[str, list[Array]] = {"magnitude": [], "azimuth": []}
    base: dict[str, dict[str, list[Array]]] = {k: {h: [] for h in network} for k in SHORTCUTS}
    for k, (train, test) in enumerate(folds(table, kind, count, embargo, how.seed)):
        if table["cluster"].iloc[train].nunique() < 2:
            continue
        torch.manual_seed(how.seed + k)
        model = fit(make(), pixels[train], table.iloc[train], how)
        given = predict(model, pixels[test])
        rows.append(test)
        number.append(np.full(len(test), k))
        for head in network:
            network[head].append(given[head])
        for name, heads in shortcuts(table.iloc[train], table.iloc[test]).items():
            for head, value in heads.items():
                base[name][head].append(value)
        if progress:
            progress(f"{kind} fold {k + 1}: {len(train)} rows to train, {len(test)} to test")
    if not rows:
        raise NoData(f"split {kind!r}: no fold has two earthquakes to train on")
    return Outcome(
        np.concatenate(rows),
        {h: np.concatenate(v) for h, v in network.items()},
        {n: {h: np.concatenate(v) for h, v in heads.items()} for n, heads in base.items()},
        np.concatenate(number),
    )


def permuted(
    table: pd.DataFrame, outcome: Outcome, score: Callable[[Mapping[str, NDArray[np.int64]]], float],
    rounds: int = 200, seed: int = 42,
) -> list[float]:  # fmt: skip
    """A score after the labels were shuffled within each station, against the same outputs.

    Whole earthquakes swap labels where they can: the rows of a station are rolled by a random
    amount in the order of their earthquakes, so that neighbours keep their likeness.
    """
    random = np.random.default_rng(seed)
    tested = table.iloc[outcome.rows].reset_index(drop=True)
    order = np.lexsort((tested["end"], tested["cluster"], tested["station"]))
    station = tested["station"].to_numpy()[order]
    truth = {h: tested[h].to_numpy(np.int64) for h in ("magnitude", "azimuth")}
    out = []
    for _ in range(rounds):
        source = np.empty(len(order), np.int64)
        for code in np.unique(station):
            mine = order[station == code]
            source[mine] = np.roll(mine, random.integers(0, len(mine)))
        out.append(score({h: t[source] for h, t in truth.items()}))
    return out


def shuffled(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Labels drawn anew among the rows of each station: the null that is trained from scratch."""
    random = np.random.default_rng(seed)
    out = table.copy()
    for _, group in table.groupby("station"):
        source = random.permutation(group.index.to_numpy())
        for name in ("magnitude", "azimuth", "bearing", "kind"):
            out.loc[group.index, name] = table.loc[source, name].to_numpy()
    return out


def certificate(
    table: pd.DataFrame, outcome: Outcome, data: str, metric: str = "precursor MCC",
    permutations: int = 200, seed: int = 42,
) -> Certificate:  # fmt: skip
    """The skill certificate of a study: gain over the best shortcut, interval, label-shuffle p."""
    from terrella.tasks.precursor.skill import scores

    tested = prepare_table(table).iloc[outcome.rows]
    truth = {h: tested[h].to_numpy(np.int64) for h in ("magnitude", "azimuth")}
    bearing = tested["bearing"].to_numpy(np.float64)
    ones = np.ones(len(tested))

    def score(labels: Mapping[str, NDArray[np.int64]]) -> float:
        where = np.where(labels["magnitude"] == NORMAL_MAGNITUDE, np.nan, bearing)
        return scores(labels, outcome.network, where, ones)[metric]

    nulls = permuted(table, outcome, score, permutations, seed) if permutations else []
    return certify(
        truth, outcome.network, outcome.baselines, codes(tested["cluster"]), data, metric, nulls,
        bearing, seed=seed,
    )  # fmt: skip
