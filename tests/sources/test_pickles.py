"""The restricted readers: they read what they are for and run nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terrella.sources.pickles import array, scaler
from terrella.types import Refused

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_joblib_scaler_is_read() -> None:
    mean, scale = scaler(GOLDEN / "scaler.joblib")
    with np.load(GOLDEN / "keras_bilstm.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(mean, file["scaler_mean"])
        np.testing.assert_array_equal(scale, file["scaler_scale"])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1", "?"])
def test_an_array_is_read(tmp_path: Path, protocol: int, dtype: str) -> None:
    values = np.arange(24).reshape(4, 6).astype(dtype)
    for k, made in enumerate((values, np.asfortranarray(values), values[:, ::2])):
        path = tmp_path / f"{k}.pkl"
        path.write_bytes(pickle.dumps(made, protocol))
        np.testing.assert_array_equal(array(path), made)


class Bomb:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return (os.system, (self.command,))


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "bomb.pkl"
    for bomb in (Bomb(f"touch {mark}"), [np.zeros(3), Bomb(f"touch {mark}")]):
        path.write_bytes(pickle.dumps(bomb))
        for reader in (array, scaler):
            with pytest.raises(Refused, match="nothing in it was run"):
                reader(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "value",
    [np.array([{}], dtype=object), np.array(["a"]), {"a": 1}, [1.0], (np.zeros(2), np.zeros(2)), 3],
)
def test_anything_else_is_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(value))
    for reader in (array, scaler):
        with pytest.raises(Refused, match=r"other\.pkl"):
            reader(path)


def test_the_scaler_reader_takes_no_array(tmp_path: Path) -> None:
    path = tmp_path / "array.pkl"
    path.write_bytes(pickle.dumps(np.zeros(3)))
    with pytest.raises(Refused, match="StandardScaler"):
        scaler(path)
    with pytest.raises(Refused, match="numeric array"):
        array(GOLDEN / "scaler.joblib")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_pickles_are_refused_not_crashed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "scaler.joblib"
    raw = bytearray((GOLDEN / "scaler.joblib").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) // 2, 3]))]))
    try:
        mean, scale = scaler(path)
    except Refused as refusal:
        assert "\n" not in str(refusal)
    else:
        assert mean.shape == scale.shape
