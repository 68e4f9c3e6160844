"""Reads the published weights: the ``.npz`` of arrays, or a Keras SavedModel with its scaler.

Capannolo, Li & Huang 2022, doi:10.3389/fspas.2022.858990. The authors state no licence, so the
weights are imported by whoever has them and never packaged.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terrella.sources.pickles import scaler
from terrella.tasks.precipitation.task import Recipe
from terrella.types import Refused

FIELDS = {
    "summary": "published bidirectional ReLU-LSTM, 7 samples, 0/90 fluxes of E1..E4",
    "doi": "10.3389/fspas.2022.858990",
    "licence": "none stated by the authors",
    "data": "34,340 samples of randomly stacked event windows (as the authors report)",
    "split": "not published",
    "options": {"postprocess": "capannolo2023"},
    "notes": ("False alarms per orbit were never published; trained on event windows only.",),
}


def read(paths: list[Path]) -> tuple[dict[str, Tensor], Recipe, dict[str, Any]]:
    """Convert published weights.

    Args:
        paths: one ``.npz``, or a SavedModel folder and the scaler's joblib file, in any order.

    Returns:
        State dict of ``BiLSTM``, its recipe, and fields of the card.

    Raises:
        Refused: not such files, or arrays missing or of the wrong shape.
    """
    folders = [p for p in paths if p.is_dir()]
    plain = [p for p in paths if p.is_file()]
    if len(folders) == 1 and len(plain) == 1:
        arrays = saved_model(folders[0])
        arrays["scaler_mean"], arrays["scaler_scale"] = scaler(plain[0])
    elif len(plain) == 1 and not folders:
        arrays = npz(plain[0])
    else:
        raise Refused(
            "precipitation: give one .npz of arrays, or a SavedModel folder and its scaler file"
        )
    return (*convert(arrays, paths[0]), dict(FIELDS))


def npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz``; one that holds pickled objects is refused."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {k: file[k] for k in file.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        what = str(error).splitlines()[0][:60] if str(error) else type(error).__name__
        raise Refused(f"{path}: is not an .npz of plain arrays ({what})") from None


def saved_model(folder: Path) -> dict[str, np.ndarray]:
    """Variables of a Keras SavedModel, through TensorFlow's checkpoint reader.

    Raises:
        Refused: TensorFlow is not installed, or the folder is not a SavedModel.
    """
    prefix = folder / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        raise Refused(f"{folder}: is not a SavedModel folder (no variables/variables.index)")
    try:
        import tensorflow as tf
    except ImportError:
        raise Refused(
            f"{folder}: reading a SavedModel needs TensorFlow: pip install 'terrella[tensorflow]'"
        ) from None
    try:
        checkpoint = tf.train.load_checkpoint(str(prefix))
        shapes = checkpoint.get_variable_to_shape_map()
        named = _trackable_names(checkpoint, shapes)
        return {new: checkpoint.get_tensor(old) for new, old in named.items()}
    except Exception as error:  # TensorFlow raises its own kinds for damaged files
        raise Refused(f"{folder}: cannot be read ({str(error).splitlines()[0][:80]})") from None


def _trackable_names(checkpoint: Any, shapes: dict[str, list[int]]) -> dict[str, str]:
    """Model variables by the names layers gave them, leaving out optimiser slots."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    named: dict[str, str] = {}
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in shapes:
        graph = trackable_object_graph_pb2.TrackableObjectGraph()
        try:
            graph.ParseFromString(checkpoint.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        except DecodeError as error:
            raise ValueError(f"object graph: {error}") from None
        for node in graph.nodes:
            for a in node.attributes:
                places = f"{a.checkpoint_key} {a.full_name}".lower()
                if a.full_name and not any(k in places for k in ("optimizer", "adam", "rmsprop")):
                    named.setdefault(a.full_name, a.checkpoint_key)
    return named or {k: k for k in shapes}


def convert(arrays: dict[str, np.ndarray], where: Path) -> tuple[dict[str, Tensor], Recipe]:
    """Arrays in Keras layout (gates i, f, g, o; one bias) to the state dict of ``BiLSTM``.

    Raises:
        Refused: an array is missing or does not have the published shape.
    """
    found = {k.replace("/", "."): v for k, v in arrays.items()}
    cells = {}
    for side in ("forward", "backward"):
        for kind in ("recurrent_kernel", "kernel", "bias"):
            keys = [
                k for k in found if f"{side}_lstm" in k and k.split(".")[-1].split(":")[0] == kind
            ]
            cells[side, kind] = _one(found, keys, f"{side} LSTM {kind}", where)
    dense = sorted(
        {k.rsplit(".", 1)[0] for k in found if k.startswith("dense") or ".dense" in k},
        key=lambda k: _one(found, [f"{k}.kernel"], f"{k} kernel", where).shape[1],
        reverse=True,
    )
    if len(dense) != 2:
        raise Refused(f"{where}: two dense layers are needed, found {len(dense)}")
    n = cells["forward", "recurrent_kernel"].shape[0]
    order = np.concatenate(
        [np.arange(k * n, (k + 1) * n) for k in (0, 1, 3, 2)]
    )  # i f g o->i f o g
    sides = ("forward", "backward")
    state = {
        "scale.mean": _one(found, ["scaler_mean"], "scaler mean", where),
        "scale.scale": _one(found, ["scaler_scale"], "scaler scale", where),
        "inputs.weight": np.concatenate([cells[s, "kernel"][:, order] for s in sides], 1).T,
        "inputs.bias": np.concatenate([cells[s, "bias"][order] for s in sides]),
        "ahead": cells["forward", "recurrent_kernel"][:, order].T,
        "back": cells["backward", "recurrent_kernel"][:, order].T,
        "dense.weight": found[f"{dense[0]}.kernel"].T,
        "dense.bias": found[f"{dense[0]}.bias"],
        "head.weight": found[f"{dense[1]}.kernel"].T,
        "head.bias": found[f"{dense[1]}.bias"],
    }
    recipe = Recipe(hidden=n, dense=int(state["dense.bias"].shape[0]))
    _fits(state, recipe, where)
    return {k: torch.tensor(np.asarray(v), dtype=torch.float32) for k, v in state.items()}, recipe


def _one(found: dict[str, np.ndarray], keys: list[str], what: str, where: Path) -> np.ndarray:
    present = [k for k in keys if k in found]
    if len(present) != 1:
        raise Refused(f"{where}: {what} is {'missing' if not present else 'there twice'}")
    return found[present[0]]


def _fits(state: dict[str, np.ndarray], recipe: Recipe, where: Path) -> None:
    from terrella.tasks.precipitation.network import build

    for name, wanted in build(recipe).state_dict().items():
        got = np.shape(state[name])
        if got != tuple(wanted.shape):
            raise Refused(f"{where}: {name} has shape {got}, {tuple(wanted.shape)} is needed")
        if not np.isfinite(state[name]).all():
            raise Refused(f"{where}: {name} holds values that are not numbers")
