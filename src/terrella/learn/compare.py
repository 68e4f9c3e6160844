"""Scores of an evaluation, all models with the same draws, and what the network adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from terrella.learn.evaluate import NETWORK, ROLL, Evaluation
from terrella.learn.metrics import LEVEL, Draws, sections
from terrella.task import Judging

COLUMNS = ["task", "data", "split", "group", "lead", "model", "metric", "value", "lo", "hi", "n"]


@dataclass(frozen=True)
class Gain:
    """What a network adds to the best of its baselines, in one metric on one part of the rows.

    Attributes:
        metric, group, lead: of what.
        network: its own score.
        baseline, kind, score: the best baseline, of what kind, and its score.
        value, lo, hi: gain, positive where the network is better. In every draw it is over whatever
            baseline is best in that draw, which is in the network's disfavour.
        n, blocks: rows, and independent blocks.
        p: share of rolled outputs that scored as well; nan if none were made.
        null: best score of a network trained where nothing true was left; nan if none was.
        lost: whether such a network did as well.
        shortcut: a baseline that knows only metadata, beats the trivial ones, and is not beaten by
            the network; empty if there is none.
    """

    metric: str
    group: str
    lead: Any
    network: float
    baseline: str
    kind: str
    score: float
    value: float
    lo: float
    hi: float
    n: int
    blocks: int
    p: float = float("nan")
    null: float = float("nan")
    lost: bool = False
    shortcut: str = ""

    @property
    def shown(self) -> bool:
        """Whether skill beyond the best baseline was shown."""
        return bool(self.lo > 0 and not self.p > 0.05 and not self.lost)


def scores(found: Evaluation, judging: Judging | None = None, level: float = LEVEL
           ) -> tuple[pd.DataFrame, list[Gain]]:  # fmt: skip
    """Score every model on every part of the rows, all with the same draws.

    Returns:
        Rows with the columns of ``scores.csv``, the gains over the best baseline among them; and
        those gains.

    Raises:
        ValueError: two models were judged on different rows.
    """
    how, task = judging or Judging(), found.task
    said = {"task": task.name, "data": found.data, "split": found.split}
    _same_rows(found)
    rows: list[dict[str, Any]] = []
    gains: list[Gain] = []
    for group, lead, mask in sections(found.network):
        draws = Draws.of(found.network["block"].to_numpy()[mask], how.draws, how.bootstrap)
        part = {name: table[mask] for name, table in found.tables.items()}
        where = {**said, "group": group, "lead": lead, "n": int(mask.sum())}
        for name, metric in task.metrics.items():
            drawn = {m: draws.values(metric, t) for m, t in part.items()}
            for model, values in drawn.items():
                value, lo, hi = draws.interval(values, level)
                if np.isfinite(value):
                    rows.append({**where, "model": model, "metric": name,
                                 "value": value, "lo": lo, "hi": hi})  # fmt: skip
            if name in task.primary:
                gain = _gain(found, name, group, lead, drawn, draws, mask, level)
                if gain is None:
                    continue
                gains.append(gain)
                rows.append({**where, "model": NETWORK, "metric": f"{name} over {gain.baseline}",
                             "value": gain.value, "lo": gain.lo, "hi": gain.hi})  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS), gains


def _same_rows(found: Evaluation) -> None:
    for name, table in found.tables.items():
        for column in ("block", "group", "activity", "lead", "aside"):
            has = column in found.network
            if has != (column in table) or (
                has and not table[column].equals(found.network[column])
            ):
                raise ValueError(f"{found.task.name}: {name} was judged on other rows")


def _gain(
    found: Evaluation, name: str, group: str, lead: Any, drawn: dict[str, np.ndarray],
    draws: Draws, mask: np.ndarray, level: float,
) -> Gain | None:  # fmt: skip
    """Gain on one part of the rows; None where no baseline, or not the network, has the score."""
    metric = found.task.metrics[name]
    sign = 1.0 if metric.better == "more" else -1.0
    rivals = {k: sign * v for k, v in drawn.items()
              if k in found.task.baselines and np.isfinite(v[0])}  # fmt: skip
    if not rivals or not np.isfinite(drawn[NETWORK][0]):
        return None
    best = max(rivals, key=lambda k: rivals[k][0])
    top = np.fmax.reduce(list(rivals.values()))
    if metric.floor is not None:
        top = np.fmax(top, sign * metric.floor)
    value, lo, hi = draws.interval(sign * drawn[NETWORK] - top, level)
    own = drawn[NETWORK][0]
    against = _nulls(found, metric, sign, lead, float(own)) if group == "all" else {}
    return Gain(
        name, group, lead, float(own), best, found.task.baselines[best].kind,
        float(drawn[best][0]), value, lo, hi, int(mask.sum()), draws.blocks,
        shortcut=_shortcut(found, rivals, sign * drawn[NETWORK], draws, level), **against,
    )  # fmt: skip


def _shortcut(
    found: Evaluation, rivals: dict[str, np.ndarray], own: np.ndarray, draws: Draws, level: float
) -> str:
    """Name of a metadata baseline that beats the trivial ones and is not beaten itself."""
    kinds = {k: found.task.baselines[k].kind for k in rivals}
    trivial = [v for k, v in rivals.items() if kinds[k] == "trivial"]
    for name in sorted(rivals, key=lambda k: -rivals[k][0]):
        if kinds[name] == "metadata" and trivial:
            over = draws.interval(rivals[name] - np.fmax.reduce(trivial), level)
            left = draws.interval(own - rivals[name], level)
            if over[1] > 0 and not left[1] > 0:
                return name
    return ""


def _nulls(found: Evaluation, metric: Any, sign: float, lead: Any, own: float) -> dict[str, Any]:
    """Share of rolled outputs that do as well (the data counted among them), and the best null."""
    rolls: list[float] = []
    trained: list[float] = []
    for name, table in found.nulls.items():
        part = table if lead == "" else table[table["lead"] == lead]
        value = metric(part, np.ones(len(part)))
        (rolls if name.startswith(ROLL) else trained).append(sign * value)
    p = (1 + sum(v >= sign * own for v in rolls)) / (1 + len(rolls)) if rolls else float("nan")
    if not trained:
        return {"p": p}
    return {"p": p, "null": sign * max(trained), "lost": max(trained) >= sign * own}
