"""A measured certificate on file, and from there into the card of weights."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from terrella import files, paths
from terrella.tasks.precursor.skill import Certificate, Interval
from terrella.tasks.precursor.task import Evaluation, Recipe
from terrella.types import Refused
from terrella.weights import locate, read_card, write_card


def write_certificate(
    path: Path, evaluation: Evaluation, certificate: Certificate, recipe: Recipe
) -> None:
    """Write a certificate as JSON, with the split and the recipe that it was measured with."""
    body = {
        "task": "precursor", "line": certificate.line, **dataclasses.asdict(certificate),
        "null_p": None if math.isnan(certificate.null_p) else certificate.null_p,
        "evaluation": dataclasses.asdict(evaluation), "recipe": dataclasses.asdict(recipe),
    }  # fmt: skip
    with files.whole(path) as scratch:
        scratch.write_text(json.dumps(body, indent=2) + "\n", "utf-8")


def read_certificate(path: Path) -> tuple[Certificate, dict[str, Any]]:
    """A certificate and all that lies beside it in its file.

    Raises:
        Refused: no such file, not a certificate, or one whose line was changed.
    """
    try:
        body = json.loads(path.read_text("utf-8"))
        gain = Interval(**{k: float(v) for k, v in body["gain"].items()})
        null_p = math.nan if body["null_p"] is None else float(body["null_p"])
        made = Certificate(
            bool(body["skill"]), str(body["metric"]), float(body["network"]),
            str(body["baseline"]), gain, null_p, str(body["data"]),
        )  # fmt: skip
        split, recipe = body["evaluation"]["split"], dict(body["recipe"])
    except FileNotFoundError:
        raise Refused(f"{path}: no such file; `terrella precursor validate` writes it") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise Refused(
            f"{path}: not a certificate; `terrella precursor validate` writes certificate.json"
        ) from None
    if body.get("line") != made.line or (made.skill and not gain.low > 0):
        raise Refused(f"{path}: its line is not what its numbers say; validate again")
    return made, {"split": str(split), "recipe": recipe}


def certify(weights: str, certificate: Path) -> tuple[Path, str]:
    """Write a certificate's skill line into the card of weights.

    The certificate is of a recipe: weights of another one are not covered by it, nor are figures
    from a split that leaks.

    Args:
        weights: file, or name of imported weights.
        certificate: ``certificate.json`` of ``validate``.

    Returns:
        The weight file and the line that its card now carries.

    Raises:
        Refused: not a certificate, another recipe, a leaking split, or packaged weights.
    """
    made, beside = read_certificate(certificate)
    path = locate("precursor", weights)
    if path.resolve().parent == paths.packaged("precursor").resolve():
        raise Refused(
            f"{path.name}: packaged weights keep their card; "
            "`terrella weights export` makes a copy to certify"
        )
    if beside["split"] == "random":
        raise Refused(f"{certificate}: measured with --split random, which leaks; use loeo or all")
    card = read_card(path)
    if card.task != "precursor":
        raise Refused(f"{path}: these are weights of {card.task}, not of precursor")
    other = sorted(
        k for k in {*card.recipe, *beside["recipe"]}
        if card.recipe.get(k) != beside["recipe"].get(k)
    )  # fmt: skip
    if other:
        k = other[0]
        raise Refused(
            f"{certificate}: measured with {k} {beside['recipe'].get(k)}, "
            f"but {path.name} has {k} {card.recipe.get(k)}; validate with the weights' own recipe"
        )
    options = {**card.options, "certificate": made.line}
    write_card(dataclasses.replace(card, options=options), path)
    return path, made.line
