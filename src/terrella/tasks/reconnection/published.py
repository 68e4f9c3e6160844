"""Import of the published network (Waters et al. 2025) from safetensors or a PyTorch state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terrella.tasks.reconnection.task import Recipe
from terrella.types import Refused

if TYPE_CHECKING:
    from torch import Tensor

DOI = "10.1029/2025JA034383"


def read(paths: list[Path]) -> tuple[dict[str, Tensor], Recipe, dict[str, Any]]:
    """Read a state dict of ``nn.RNN`` + ``nn.Linear`` named ``rnn.*`` and ``fc.*``.

    Args:
        paths: one ``.safetensors`` file, or a ``.pt``/``.pth`` state dict, which is loaded with
            ``weights_only=True``: nothing in it is executed.

    Returns:
        State, recipe, and fields of the card.

    Raises:
        Refused: not such a file, or parameters of another network.
    """
    if len(paths) != 1 or not paths[0].is_file():
        raise Refused("weights import reconnection: give one file, .safetensors or .pt")
    path = paths[0]
    state = _tensors(path)
    state = {re.sub(r"^(?:module|model|net|network)\.", "", k): v for k, v in state.items()}
    recipe = _shape(state, path)
    fields = {
        "summary": "published RNN of Waters et al. 2025, imported",
        "doi": DOI,
        "licence": "as published by the authors; not part of this package",
        "options": {"mode": "overlap"},
        "notes": ("The classes' names were not published: a label is a number.",
                  "--mode published resets the state every 32 rows, as the authors do."),
    }  # fmt: skip
    return state, recipe, fields


def _tensors(path: Path) -> dict[str, Tensor]:
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise Refused(f"{path}: is not a safetensors file ({str(error)[:80]})") from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The unpickler meets foreign bytes with errors of many kinds.
        reason = (
            "it holds more than tensors"
            if "weights" in str(error).lower()
            else "damaged or foreign"
        )
        raise Refused(
            f"{path}: is not a plain PyTorch state dict ({reason}); save it with "
            "torch.save(model.state_dict(), path)"
        ) from None
    for key in ("model_state_dict", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(
        isinstance(v, torch.Tensor) for v in found.values()
    ):
        raise Refused(f"{path}: holds no state dict of tensors")
    return {str(k): v for k, v in found.items()}


def _shape(state: dict[str, Tensor], path: Path) -> Recipe:
    import torch

    from terrella.tasks.reconnection.network import build

    try:
        hidden = int(state["rnn.weight_ih_l0"].shape[0])
    except (KeyError, IndexError):
        raise Refused(
            f"{path}: has no rnn.weight_ih_l0; its names are {', '.join(state)[:120]}"
        ) from None
    layers = sum(bool(re.fullmatch(r"rnn\.weight_ih_l\d+", k)) for k in state)
    if not 1 <= hidden <= 4096 or layers > 16:
        raise Refused(
            f"{path}: a network of {layers} layers, {hidden} wide, is not the published kind"
        )
    recipe = Recipe(kind="waters2025", hidden=hidden, layers=layers)
    wanted = build(recipe).state_dict()
    for name, tensor in wanted.items():
        got = tuple(state[name].shape) if name in state else None
        if got != tuple(tensor.shape):
            raise Refused(f"{path}: {name} has shape {got}, {tuple(tensor.shape)} is needed")
        if not bool(torch.isfinite(state[name]).all()):
            raise Refused(f"{path}: {name} holds values that are not numbers")
        state[name] = state[name].to(torch.float32)
    if extra := sorted(set(state) - set(wanted)):
        raise Refused(f"{path}: unknown parameter {extra[0]}")
    return recipe
