"""Published checkpoints: ``terrella weights import ech CLS REG --name deepech``.

Nothing is unpickled: a checkpoint is read as weights only, or as safetensors.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from terrella.tasks.ech.published import stages_of
from terrella.tasks.ech.task import Recipe
from terrella.types import Refused

DOI = "10.1029/2011GL048793"
WRAPPERS = ("model_state_dict", "state_dict", "model", "network")


def read(paths: Sequence[Path]) -> tuple[dict[str, Tensor], Recipe, dict[str, Any]]:
    """State, recipe and card fields of the two published networks.

    Args:
        paths: occurrence (CLS) and amplitude (REG) checkpoints; which is which is told by content.

    Raises:
        Refused: not two files, not weights, or not these networks.
    """
    if len(paths) != 2:
        raise Refused(
            f"ech: {len(paths)} files given; the published network is two: occurrence and amplitude"
        )
    states = [_state(Path(p)) for p in paths]
    order = sorted(range(2), key=lambda k: "lstm3.lstm.weight_ih_l0" in states[k])
    states, named = [states[k] for k in order], [paths[k] for k in order]
    try:
        stages_of(states)
    except ValueError as error:
        raise Refused(f"{named[0]}, {named[1]}: {error}") from None
    whole = {
        f"{stage}.{key}": value.float()
        for stage, state in zip(("occurrence", "amplitude"), states, strict=True)
        for key, value in state.items()
    }
    return whole, Recipe(network="deepech"), {
        "summary": "DeepECH as published: two LSTM networks with attention pooling",
        "data": "Van Allen Probes 2013-2018 (authors)",
        "doi": DOI,
        "notes": ("the authors' split and amplitude reference level are not published",
                  "no interval for the amplitude; coverage taken as the Van Allen Probes' orbit"),
    }  # fmt: skip


def _reason(path: Path, error: Exception) -> str:
    """Why a file holds no weights, in words of ours: the libraries' run over many lines."""
    if not path.is_file():
        return "no such file"
    if path.suffix == ".safetensors":
        return "it is no safetensors file, or damaged"
    with path.open("rb") as stream:
        head = stream.read(4)
    if head[:2] != b"PK" and head[:1] != b"\x80":
        return "it is neither a torch checkpoint nor safetensors"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds objects that are not tensors, which are never loaded"
    return f"the checkpoint is damaged: {type(error).__name__}"


def _state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file fails in many ways, each of them a refusal
        reason = _reason(path, error)
        raise Refused(f"{path}: cannot be read as weights only ({reason}); ask for a state_dict "
                      "or safetensors file") from None  # fmt: skip
    for key in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise Refused(f"{path}: holds no state_dict of tensors")
    return {str(k).removeprefix("module."): v for k, v in state.items()}
