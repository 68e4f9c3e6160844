"""A training recipe as a file: tables [recipe], [options], [data] and [train]."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrella.learn.train import Training, settings
from terrella.registry import FOLDER, nearest
from terrella.task import Task
from terrella.types import Refused

TABLES = ["name", "summary", "notes", "recipe", "options", "data", "train"]


@dataclass(frozen=True)
class Config:
    """What a training run was asked to do.

    Attributes:
        path: the file it came from.
        packaged: whether that is the task's own.
        name: of the weights it makes.
        summary, notes: for their card.
        recipe, options: of the task.
        data: the table the task's ``training`` reads.
        train: how to train.
    """

    path: Path
    packaged: bool
    name: str
    summary: str
    notes: tuple[str, ...]
    recipe: Any
    options: dict[str, Any]
    data: dict[str, Any]
    train: Training


def load(task: Task, path: Path | None = None, **train: Any) -> Config:
    """Read a recipe file; the task's own ``train.toml`` if none is given.

    Args:
        task: whose recipe it is.
        path: a TOML file.
        **train: overrides of the [train] table; None leaves it as it is.

    Raises:
        Refused: not TOML, or a key that is not known.
    """
    packaged = path is None
    path = path or FOLDER / task.name / "train.toml"
    if not path.is_file():
        raise Refused(f"{path}: no such recipe file")
    try:
        body = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused(f"{path}: is not a recipe file ({error})") from None
    for key in body:
        if key not in TABLES:
            raise Refused(f"{path}: unknown table {key!r}; {nearest(key, TABLES)}")
    settings(body.get("options", {}), task.options, f"{path} [options]")
    chosen = {**body.get("train", {}), **{k: v for k, v in train.items() if v is not None}}
    return Config(
        path=path,
        packaged=packaged,
        name=str(body.get("name", path.stem)),
        summary=str(body.get("summary", "")),
        notes=tuple(body.get("notes", ())),
        recipe=settings(body.get("recipe", {}), task.recipe, f"{path} [recipe]"),
        options=dict(body.get("options", {})),
        data=dict(body.get("data", {})),
        train=settings(chosen, Training, f"{path} [train]"),
    )
