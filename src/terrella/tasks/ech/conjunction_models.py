"""The models that the conjunction test compares, each fitted on the same rows and inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]
LAGS = 36
LEAST_AE = 1.0  # nT
EMBARGO = np.timedelta64(6, "h")  # twice the AE history: no input of one side is seen by the other
QUIET = 0.2  # lowest share of the training fluxes that counts as no precipitation
MODELS = ("terrella", "climatology", "ridge", "lightgbm")


@dataclass(frozen=True)
class Conjunctions:
    """Rows of a conjunction file.

    Attributes:
        time: (rows,). L: (rows,). MLT: (rows,) h. ae: (rows, 36) nT, oldest first, 5 min apart.
        flux: (rows,) 0-degree electron flux, 0 where nothing was counted.
        block: (rows,) number of its 27 days.
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


def logged(flux: Floats) -> Floats:
    """log10 flux; one of 0 counts as the smallest seen."""
    return np.asarray(np.log10(np.maximum(flux, flux[flux > 0].min(initial=np.inf))))


def apart(time: NDArray[np.datetime64], other: NDArray[np.datetime64]) -> Mask:
    """(rows,) whether each time is more than the embargo from every one of ``other``."""
    edge = np.sort(other)
    near = np.searchsorted(edge, time + EMBARGO, "right") > np.searchsorted(edge, time - EMBARGO)
    return np.asarray(~near)


def _place(rows: Conjunctions) -> Floats:
    angle = rows.MLT * np.pi / 12
    return np.stack([rows.L, np.cos(angle), np.sin(angle)], -1)


def fit(name: str, train: Conjunctions, settings: Settings, seed: int
        ) -> tuple[float, Callable[[Conjunctions], tuple[Floats, Floats]]]:  # fmt: skip
    """Fit a model; returns the threshold of occurrence and (rows) -> (probability, log10 flux)."""
    threshold = float(np.quantile(train.flux, QUIET))
    seen = train.flux > threshold
    fitter: dict[str, Callable[..., Any]] = {
        "terrella": _network, "climatology": _climatology, "ridge": _ridge, "lightgbm": _trees,
    }  # fmt: skip
    return threshold, fitter[name](train, seen, logged(train.flux), settings, seed)


def _climatology(
    train: Conjunctions, seen: Mask, value: Floats, settings: Settings, seed: int
) -> Any:
    from terrella.tasks.ech.baselines import cells, table_of

    key = cells(train.L, train.MLT)
    chance, mean = table_of(key, seen.astype(float)), table_of(key[seen], value[seen])
    return lambda rows: (chance(cells(rows.L, rows.MLT)), mean(cells(rows.L, rows.MLT)))


def _ridge(train: Conjunctions, seen: Mask, value: Floats, settings: Settings, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def inputs(rows: Conjunctions) -> Floats:
        place = _place(rows)
        return np.concatenate([place, place[:, :1] ** 2, np.log(rows.ae)], 1)

    first = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    second = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13)))
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
    learn = np.flatnonzero(~held & apart(train.time, train.time[held]))
    check = torch.from_numpy(np.flatnonzero(held))
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
