"""Weights and cards: fetched by hash, kept together, refused when they do not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terrella import files, paths, registry, weights
from terrella.types import Refused


def test_a_card_survives_its_file(tmp_path: Path) -> None:
    model = weights.load("precipitation")
    path = weights.save(model.network, model.card, model.recipe, tmp_path)
    assert weights.read_card(path) == dataclasses.replace(
        model.card, sha256=files.sha256(path), recipe=dataclasses.asdict(model.recipe)
    )


def test_fetch_takes_the_right_bytes_only(tmp_path: Path) -> None:
    # A file: URL stands in for a mirror: the client code is the same, no network is touched.
    source = weights.locate("precipitation", "default")
    good = files.sha256(source)
    url = source.as_uri()
    folder = paths.weight_root() / "precipitation"
    with pytest.raises(Refused, match="the card says"):
        weights.fetch("precipitation", "mirror", url, "0" * 64)
    assert not list(folder.glob("*mirror*"))
    card = dataclasses.replace(weights.read_card(source), name="mirror", url=url, sha256=good)
    folder.mkdir(parents=True, exist_ok=True)
    weights.write_card(card, folder / "mirror.safetensors")
    path = weights.fetch("precipitation", "mirror")
    assert files.sha256(path) == good
    assert weights.load("precipitation", "mirror").card.name == "mirror"
    with pytest.raises(Refused, match="cannot be fetched"):
        weights.fetch("precipitation", "gone", (tmp_path / "gone").as_uri(), good)
    with pytest.raises(Refused, match="no card"):
        weights.fetch("precipitation", "unknown")


def test_a_network_of_another_shape_is_refused(tmp_path: Path) -> None:
    model = weights.load("precipitation")
    path = weights.save(model.network, model.card, model.recipe, tmp_path)
    card = weights.read_card(path)
    wrong = dataclasses.replace(card, recipe={**card.recipe, "hidden": 8})
    weights.write_card(wrong, path)
    with pytest.raises(Refused, match="does not fit"):
        weights.load("precipitation", path)
    weights.write_card(dataclasses.replace(card, recipe={"colour": "blue"}), path)
    with pytest.raises(Refused, match="recipe is not usable"):
        weights.load("precipitation", path)


def test_unknown_names_get_a_hint() -> None:
    with pytest.raises(Refused, match="did you mean 'precipitation'"):
        registry.get("precipitaton")
    with pytest.raises(Refused, match="did you mean 'default'"):
        weights.load("precipitation", "defalt")


def test_a_torch_checkpoint_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(Refused, match="not a safetensors file"):
        weights.header(path)


@settings(max_examples=80, deadline=None)
@given(body=st.binary(max_size=400))
def test_no_bytes_crash_the_header(body: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "any.safetensors"
    path.write_bytes(body)
    with pytest.raises(Refused, match="not a safetensors"):
        weights.header(path)


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.txt"
    with pytest.raises(RuntimeError), files.whole(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert not list(path.parent.iterdir())
    with files.whole(path) as scratch:
        scratch.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and len(list(path.parent.iterdir())) == 1
