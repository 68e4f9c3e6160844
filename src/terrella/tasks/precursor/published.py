"""Reads published checkpoints: weights only, wrapped or bare, with class names beside them."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from terrella.tasks.precursor.network import BACKBONES, build
from terrella.tasks.precursor.task import AZIMUTH, MAGNITUDE, Recipe
from terrella.types import Refused

#: Keys under which training scripts put a state dict.
WRAPS = ("model_state_dict", "state_dict", "model", "net")
PREFIXES = ("module.", "model.", "network.")
FIELDS = {
    "summary": "published two-head network (torchvision names)",
    "licence": "none stated with the file: ask its authors",
    "data": "not stated with the file",
    "split": "not stated with the file",
    "notes": (
        "Imported; it carries no certificate of skill.",
        "Images are standardised with ImageNet's mean and deviation, as the published chain does.",
    ),
}


def read(paths: list[Path]) -> tuple[dict[str, Tensor], Recipe, dict[str, Any]]:
    """Convert a published checkpoint.

    Args:
        paths: one ``.pt``/``.pth`` (read with ``weights_only``) or ``.safetensors``, and if the
            class order is not the usual one its ``class_mappings.json``, given or beside it.

    Returns:
        State dict of ``Precursor``, its recipe, and fields of the card.

    Raises:
        Refused: not such a file, code in the pickle, or names and shapes of no known network.
    """
    weights = [p for p in paths if p.suffix != ".json"]
    tables = [p for p in paths if p.suffix == ".json"]
    if len(weights) != 1 or len(tables) > 1:
        raise Refused("precursor: give one checkpoint, and at most one class_mappings.json")
    path = weights[0]
    beside = path.parent / "class_mappings.json"
    state = _unwrap(_load(path), path)
    recipe = _recipe(state, path)
    mapping = tables[0] if tables else beside if beside.is_file() else None
    notes = FIELDS["notes"]
    if mapping is not None:
        state = _reorder(state, mapping)
        notes = (*notes, f"Class order taken from {mapping.name}.")
    network = build(recipe)
    scaling = {k: v for k, v in network.state_dict().items() if k in ("mean", "deviation")}
    expected = {k: tuple(v.shape) for k, v in network.state_dict().items() if k not in scaling}
    found = {k: tuple(v.shape) for k, v in state.items()}
    if found != expected:
        odd = sorted(set(found.items()) ^ set(expected.items()))[0]
        raise Refused(
            f"{path}: does not fit {recipe.backbone}: {odd[0]} {odd[1]} is on one side only"
        )
    return {**state, **scaling}, recipe, {**FIELDS, "notes": notes}


def _load(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise Refused(
            f"{path}: holds more than weights, so it is not opened; save its state_dict alone"
        ) from None
    except (RuntimeError, OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise Refused(f"{path}: is not a checkpoint ({_first(error)})") from None
    except Exception as error:  # safetensors raises its own kind
        raise Refused(f"{path}: is not a checkpoint ({type(error).__name__})") from None


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def _unwrap(found: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside whatever a training script wrapped around it."""
    for _ in range(3):
        if not isinstance(found, dict):
            break
        inner = next((found[k] for k in WRAPS if isinstance(found.get(k), dict)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, dict) or not any(isinstance(v, Tensor) for v in found.values()):
        raise Refused(f"{path}: holds no state dict (looked under {', '.join(WRAPS)})")
    state = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    for prefix in PREFIXES:
        if all(k.startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    # torchvision's own classifier, where it was left in, is not used by the two heads.
    return {
        k: v if v.dtype == torch.int64 else v.float()
        for k, v in state.items()
        if not k.startswith("backbone.classifier") and k not in ("mean", "deviation")
    }


def _recipe(state: dict[str, Tensor], path: Path) -> Recipe:
    """Tell the network by its names and shapes."""
    if "mag_head.2.weight" not in state or "azi_head.5.bias" not in state:
        raise Refused(f"{path}: has no heads called mag_head and azi_head")
    hidden = int(state["mag_head.2.weight"].shape[0])
    mine = {k: tuple(v.shape) for k, v in state.items() if k.startswith("backbone.")}
    for name in BACKBONES:
        recipe = Recipe(backbone=name, hidden=hidden, scaling="imagenet", augment="published")  # type: ignore[arg-type]
        with torch.device("meta"):
            shapes = {k: tuple(v.shape) for k, v in build(recipe).state_dict().items()}
        if {k: v for k, v in shapes.items() if k.startswith("backbone.")} == mine:
            return recipe
    raise Refused(f"{path}: its backbone is none of {', '.join(BACKBONES)} (names and shapes)")


def _order(table: Any, names: tuple[str, ...], where: str) -> list[int]:
    """For each of our classes, its index in the file; from {name: index}, {index: name}, [name]."""
    if isinstance(table, list):
        table = {str(v): k for k, v in enumerate(table)}
    if isinstance(table, dict) and all(str(k).isdigit() for k in table):
        table = {str(v): int(k) for k, v in table.items()}
    lower = {str(k).lower(): v for k, v in table.items()} if isinstance(table, dict) else {}
    try:
        order = [int(lower[n.lower()]) for n in names]
    except (KeyError, TypeError, ValueError):
        raise Refused(f"{where}: class names are not {', '.join(names)}") from None
    if sorted(order) != list(range(len(names))):
        raise Refused(f"{where}: class numbers {order} are not 0 to {len(names) - 1}")
    return order


def _reorder(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Put the last layers in this project's class order."""
    try:
        body = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: is not JSON ({error})") from None
    out = dict(state)
    for head, word, names in (("mag_head", "mag", MAGNITUDE), ("azi_head", "azi", AZIMUTH)):
        keys = [k for k in body if word in str(k).lower()] if isinstance(body, dict) else []
        if not keys:
            continue
        best = next((k for k in keys if "idx" not in k.lower()), keys[0])
        order = _order(body[best], names, f"{path} {best}")
        for name in ("weight", "bias"):
            out[f"{head}.5.{name}"] = state[f"{head}.5.{name}"][order].contiguous()
    return out
