"""Weights: a safetensors file and, beside it, the card that says what it is.

Nothing is unpickled: a file is opened only if it is safetensors, its hash is the card's, and it was
made for the task that asks for it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terrella import files, paths, registry
from terrella.task import Model
from terrella.types import Refused

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIX = ".safetensors"
UNKNOWN = "no skill shown: these weights carry no certificate"


@dataclass(frozen=True)
class Card:
    """What a weight file is, where it came from and how well it does.

    Attributes:
        task: the task it belongs to.
        name: what ``--weights`` calls it.
        summary: one line.
        sha256: hash of the weight file.
        recipe: the task's recipe as keys and values: features, window, network shape.
        options: run options that suit these weights.
        parameters: number of trained values.
        data, split, seed, command: what it was trained on, how divided, and how to do it again.
        scores: rows of the score table, each with lo and hi.
        doi, licence, url: of the method and of the file.
        notes: what a user should know.
        inputs: summary of the training rows (``terrella.novelty``).
        certificate: what an evaluation showed, in short (``terrella.learn.certificate``).
    """

    task: str
    name: str
    summary: str = ""
    sha256: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    data: str = ""
    split: str = ""
    seed: int | None = None
    command: str = ""
    doi: str = ""
    licence: str = ""
    url: str = ""
    notes: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    certificate: Mapping[str, Any] = field(default_factory=dict)
    scores: tuple[Mapping[str, Any], ...] = ()

    @property
    def verdict(self) -> str:
        """What these weights were shown to do, in one sentence."""
        return str(self.certificate.get("verdict", UNKNOWN))


def load(task: str, weights: str | os.PathLike[str] = "default") -> Model:
    """Load a model; see ``terrella.load``."""
    from safetensors.torch import load_file

    found = registry.get(task)
    path = locate(task, weights)
    card = read_card(path)
    _check(path, card, task)
    recipe = _recipe(found.recipe, card, path)
    network = found.network(recipe)
    state = load_file(path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise Refused(f"{path}: does not fit the network its card describes: {first}") from None
    network.eval()
    return Model(found, network, recipe, card)


def save(network: nn.Module | Mapping[str, Tensor], card: Card, recipe: Any, folder: Path) -> Path:
    """Write ``folder/<card.name>.safetensors`` and its card, each whole or not at all.

    Returns:
        The weight file's path. The card is completed with the recipe, the hash and the count of
        parameters.
    """
    from safetensors.torch import save_file

    state = dict(network if isinstance(network, Mapping) else network.state_dict())
    path = folder / f"{card.name}{SUFFIX}"
    with files.whole(path) as scratch:
        save_file({k: v.contiguous() for k, v in state.items()}, scratch, {"task": card.task})
    count = (
        sum(v.numel() for v in state.values())
        if isinstance(network, Mapping)
        else sum(p.numel() for p in network.parameters())
    )
    full = dataclasses.replace(
        card, recipe=dataclasses.asdict(recipe), sha256=files.sha256(path), parameters=count
    )
    write_card(full, path)
    return path


def write_card(card: Card, path: Path) -> None:
    """Write the card of a weight file beside it."""
    import tomli_w

    body = {k: _plain(v) for k, v in dataclasses.asdict(card).items() if v not in (None, (), {})}
    with files.whole(path.with_suffix(".toml")) as scratch:
        scratch.write_text(tomli_w.dumps(body), "utf-8")


def read_card(path: Path) -> Card:
    """Read the card beside a weight file.

    Raises:
        Refused: there is none, or it is not a card.
    """
    beside = path.with_suffix(".toml")
    try:
        body = tomllib.loads(beside.read_text("utf-8"))
    except FileNotFoundError:
        raise Refused(
            f"{path}: has no card ({beside.name}) beside it; keep the two files together, "
            "or use `terrella weights import`"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused(f"{beside}: is not a card ({error})") from None
    known = {f.name for f in dataclasses.fields(Card)}
    if "task" not in body or "name" not in body:
        raise Refused(f"{beside}: is not a card (it names no task)")
    fixed: dict[str, Any] = {
        k: tuple(v) if k in ("notes", "scores") else v for k, v in body.items()
    }
    return Card(**{k: v for k, v in fixed.items() if k in known})


def locate(task: str, weights: str | os.PathLike[str]) -> Path:
    """Find a weight file by name (packaged, then imported) or by path.

    Raises:
        Refused: nothing there, or not a safetensors file.
    """
    given = Path(weights)
    name = str(weights)
    if given.suffix or os.sep in name:
        if not given.exists():
            raise Refused(f"{given}: no such weight file")
        if given.suffix != SUFFIX:
            hint = f"`terrella weights import {task} {given} --name NAME` reads published formats"
            raise Refused(f"{given}: weights are read from {SUFFIX} files only; {hint}")
        return given
    for folder in (paths.packaged(task), paths.weight_root() / task):
        if (folder / f"{name}{SUFFIX}").is_file():
            return folder / f"{name}{SUFFIX}"
    known = [c.name for c in cards(task)]
    raise Refused(f"no weights of {task} are called {name!r}; {registry.nearest(name, known)}")


def cards(task: str) -> list[Card]:
    """Cards of all weights of a task on this machine, packaged first."""
    folders = (paths.packaged(task), paths.weight_root() / task)
    return [read_card(p) for f in folders for p in sorted(f.glob(f"*{SUFFIX}"))]


def import_published(task: str, given: list[Path], name: str) -> Path:
    """Convert weights published in another format into the user's weight root.

    Raises:
        Refused: the task knows no such format, or the files are not what they should be.
    """
    found = registry.get(task)
    if found.importers is None:
        raise Refused(f"{task}: has no published weights to import")
    if not name.isidentifier() or name == "default":
        raise Refused(f"--name {name}: use letters, digits and _, and not 'default'")
    for path in given:
        if not path.exists():
            raise Refused(f"{path}: no such file or folder")
    state, recipe, fields = found.importers(given)
    found.network(recipe).load_state_dict(state)
    return save(state, Card(task=task, name=name, **fields), recipe, paths.weight_root() / task)


def fetch(task: str, name: str, url: str = "", sha256: str = "") -> Path:
    """Download weights by the URL and hash of their card, and refuse any other bytes.

    Raises:
        Refused: no URL is known, the file cannot be had, or its hash is not the card's.
    """
    import urllib.request

    folder = paths.weight_root() / task
    path = folder / f"{name}{SUFFIX}"
    card = read_card(path) if path.with_suffix(".toml").is_file() else None
    url, sha256 = url or (card.url if card else ""), sha256 or (card.sha256 if card else "")
    if not url or not sha256:
        raise Refused(f"{task} {name}: no card with a url and sha256 lies in {folder}")
    with files.whole(path) as scratch:
        try:
            with urllib.request.urlopen(url, timeout=60) as stream, scratch.open("wb") as sink:
                while piece := stream.read(1 << 20):
                    sink.write(piece)
        except (OSError, ValueError) as error:
            raise Refused(f"{url}: cannot be fetched ({error})") from None
        if (got := files.sha256(scratch)) != sha256:
            raise Refused(f"{url}: its sha256 is {got[:12]}..., the card says {sha256[:12]}...")
    return path


def header(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, checked before anything else is read.

    Raises:
        Refused: the bytes are not safetensors (a pickle, a zip, a text).
    """
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 2 <= size <= min(path.stat().st_size - 8, 100 << 20):
                raise ValueError
            body = json.loads(stream.read(size))
        if not isinstance(body, dict):
            raise ValueError
    except (ValueError, OSError, RecursionError):
        raise Refused(
            f"{path}: is not a safetensors file; pickles and other formats are never loaded"
        ) from None
    return dict(body.get("__metadata__") or {})


def _check(path: Path, card: Card, task: str) -> None:
    made_for = header(path).get("task", card.task)
    if card.task != task or made_for != task:
        wrong = card.task if card.task != task else made_for
        raise Refused(f"{path}: these are weights of {wrong}, not of {task}")
    if (got := files.sha256(path)) != card.sha256:
        raise Refused(
            f"{path}: its sha256 is {got[:12]}..., its card says {card.sha256[:12] or 'nothing'}; "
            "the file was changed or damaged, get it again"
        )


def _recipe(kind: type, card: Card, path: Path) -> Any:
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in card.recipe.items()})
    except TypeError as error:
        raise Refused(f"{path.with_suffix('.toml')}: the recipe is not usable ({error})") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.item() if hasattr(value, "item") else value
