"""The certificate: what was judged, on what, and in one sentence what was shown.

A certificate is plain data made from an evaluation alone, so that the same seed gives the same
bytes. Its verdict is derived from its numbers, and is derived again whenever it is read.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from terrella import __version__, files, paths
from terrella.learn.compare import Gain, scores
from terrella.learn.evaluate import Evaluation
from terrella.learn.metrics import LEVEL, Draws, curve
from terrella.task import Judging, Model
from terrella.types import Refused
from terrella.weights import Card, locate, read_card, write_card

FORMAT = 1
FEW = 20  # blocks below which an interval is to be read with care
DIGITS = 6
Body = dict[str, Any]


def certify(
    found: Evaluation, model: Model, judging: Judging, how: Any, inputs: Sequence[Path] = ()
) -> tuple[Body, pd.DataFrame]:
    """Score an evaluation and say what it shows.

    Args:
        found: from ``learn.evaluate.evaluate``.
        model: the weights judged, or whose recipe was trained anew on each fold.
        judging: draws and nulls.
        how: the task's evaluation settings.
        inputs: files the folds were made from; hashed.

    Returns:
        The certificate as plain data, and all scores with the columns of ``scores.csv``.
    """
    table, gains = scores(found, judging)
    card = model.card
    body: Body = {
        "format": FORMAT, "terrella": __version__, "task": found.task.name,
        "certifies": "recipe" if any(p.refit for p in found.parts) else "weights",
        "weights": {"name": card.name, "sha256": card.sha256},
        "recipe": dataclasses.asdict(model.recipe),
        "data": found.data, "split": found.split, "leaks": found.leaks,
        "inputs": {p.name: files.sha256(p) for p in _files(inputs)},
        "folds": [dataclasses.asdict(p) for p in found.parts],
        "evaluation": dataclasses.asdict(how), "judging": dataclasses.asdict(judging),
        "level": LEVEL,
        "gains": [{**dataclasses.asdict(g), "shown": g.shown} for g in gains],
        "reliability": _reliability(found, judging),
        "baselines": {k: b.kind for k, b in found.task.baselines.items() if k not in found.absent},
        "absent": found.absent,
        "scores": table.drop(columns=["task", "data", "split"]).to_dict("records"),
        "limits": _limits(found, card, gains),
    }  # fmt: skip
    body = json.loads(json.dumps(_plain(body)))
    return {"verdict": verdict(body), "skill": skill(body), **body}, table


def skill(body: Mapping[str, Any]) -> str:
    """``shown``, ``in part`` or ``not shown``, over the primary metrics and leads."""
    said = [bool(g["shown"]) for g in _headlines(body)]
    if body["leaks"] or not any(said):
        return "not shown"
    return "shown" if all(said) else "in part"


def verdict(body: Mapping[str, Any]) -> str:
    """The certificate in one sentence, from its own numbers."""
    if body["leaks"]:
        return f"no verdict: the split leaks ({body['leaks']}) and shows nothing"
    if not _headlines(body):
        return f"no verdict: none of the scores it would be about is defined on {body['data']}"
    clauses = []
    for gain in _headlines(body):
        where = gain["metric"] + (f" (lead {gain['lead']})" if gain["lead"] != "" else "")
        by = "{value:.3f} [{lo:.3f}, {hi:.3f}]".format(
            **{k: math.nan if gain[k] is None else gain[k] for k in ("value", "lo", "hi")}
        )
        if gain["shown"]:
            clauses.append(f"beats {gain['baseline']} by {by} in {where}")
            continue
        why = ""
        if gain["shortcut"]:
            why = f"; a shortcut, {gain['shortcut']}, which knows only metadata, does as well"
        elif gain["lo"] is not None and gain["lo"] > 0:
            why = "; a null did as well"
        clauses.append(f"no skill beyond {gain['baseline']} shown in {where} (gain {by}{why})")
    worst = [r for r in body["reliability"] if r["off"]]
    if worst:
        r = max(worst, key=lambda r: r["n"] * abs(r["y"] - r["p"]))
        clauses.append(
            f"its probabilities are off: {r['p']:.2f} came true {r['y']:.2f} "
            f"[{r['lo']:.2f}, {r['hi']:.2f}]"
        )
    return f"{', '.join(clauses)}, on {body['data']}"


def _headlines(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [g for g in body["gains"] if g["group"] == "all"]


def _reliability(found: Evaluation, judging: Judging) -> list[dict[str, Any]]:
    table = found.network
    if "rel_n0" not in table:
        return []
    table = table[~table["aside"].to_numpy(bool)]
    draws = Draws.of(table["block"].to_numpy(), judging.draws, judging.bootstrap)
    rows: list[Any] = curve(table, draws).to_dict("records")
    return rows


def _limits(found: Evaluation, card: Card, gains: Sequence[Gain]) -> list[str]:
    limits = []
    if "simulated" in found.data:
        limits.append("Judged on simulated data: what it can do on observations is not known.")
    if any(p.refit for p in found.parts):
        limits.append(
            "Networks were trained anew on each fold: the figures are of the recipe, not of these "
            "very weights."
        )
    few = min((g.blocks for g in gains if g.group == "all"), default=0)
    if few < FEW:
        limits.append(f"Only {few} independent blocks: intervals rest on little.")
    if not found.nulls:
        limits.append("No null was made.")
    limits += [f"{name} is not among the baselines: {why}" for name, why in found.absent.items()]
    return [*limits, *card.notes]


def _files(inputs: Sequence[Path]) -> list[Path]:
    every = [sorted(p.rglob("*")) if p.is_dir() else [p] for p in inputs]
    return [p for part in every for p in part if p.is_file()]


def _plain(value: Any) -> Any:
    """JSON values; floats of six significant digits, None where undefined."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


def write(body: Body, path: Path) -> Path:
    """Write ``certificate.json``, whole or not at all."""
    with files.whole(path) as scratch:
        scratch.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    return path


def read(path: Path) -> Body:
    """Read a certificate.

    Raises:
        Refused: not a certificate, or one whose verdict is not what its numbers say.
    """
    try:
        body: Body = json.loads(path.read_text("utf-8"))
        said = body["format"] == FORMAT and (body["verdict"], body["skill"])
        derived = (verdict(body), skill(body))
        _ = body["task"], body["certifies"], body["weights"]["sha256"], body["recipe"]
    except FileNotFoundError:
        raise Refused(f"{path}: no such file; `terrella evaluate TASK` writes it") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Refused(
            f"{path}: is not a certificate; `terrella evaluate TASK` writes certificate.json"
        ) from None
    if said != derived:
        raise Refused(f"{path}: its verdict is not what its numbers say; evaluate again")
    return body


def on_card(card: Card, body: Body) -> Card:
    """A card that carries a certificate: verdict, gains, limits, overall scores.

    Raises:
        Refused: the certificate is of another task, other weights or another recipe, or leaks.
    """
    if card.task != body["task"]:
        raise Refused(f"a certificate of {body['task']} does not fit weights of {card.task}")
    if body["leaks"]:
        raise Refused(f"its split leaks ({body['leaks']}) and certifies nothing")
    if body["certifies"] == "weights" and body["weights"]["sha256"] != card.sha256:
        name = body["weights"]["name"]
        raise Refused(f"it is of weights {name!r} of another sha256; evaluate these weights")
    mine = json.loads(json.dumps(_plain(card.recipe)))
    for key in sorted({*mine, *body["recipe"]}):
        if mine.get(key) != body["recipe"].get(key):
            raise Refused(
                f"it was measured with {key} {body['recipe'].get(key)}, these weights have "
                f"{mine.get(key)}; evaluate with the weights' own recipe"
            )
    kept = ("verdict", "skill", "certifies", "data", "split", "limits", "reliability")
    short = {k: body[k] for k in kept} | {"gains": _headlines(body)}
    said = {"task": body["task"], "data": body["data"], "split": body["split"]}
    rows = tuple({**said, **r} for r in body["scores"] if r["group"] == "all")
    return dataclasses.replace(card, certificate=short, scores=rows)


def attach(task: str, weights: str, path: Path) -> tuple[Path, str]:
    """Write a certificate, be it yes or no, into the card of weights.

    Returns:
        The weight file, and the verdict its card now carries.

    Raises:
        Refused: it does not fit, or the weights are packaged (export a copy first).
    """
    body, where = read(path), locate(task, weights)
    if where.resolve().parent == paths.packaged(task).resolve():
        raise Refused(
            f"{where.name}: packaged weights keep their card; "
            "`terrella weights export` makes a copy to certify"
        )
    try:
        write_card(on_card(read_card(where), body), where)
    except Refused as refusal:
        raise Refused(f"{path}: {refusal}") from None
    return where, str(body["verdict"])
