"""Restricted readers for the two pickles that published systems ship: a scaler and an array.

Nothing is executed: the only names that resolve are numpy's own array builders and empty stand-ins.
Any other name, and any array of objects, refuses the file.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from terrella.sources.base import check_file
from terrella.types import Refused

LARGEST = 1 << 30  # bytes of one array
# The Python implementation: joblib puts an array's bytes after the opcode that builds its wrapper,
# and only this one lets a reader step in there.
_Unpickler: Any = pickle._Unpickler


class _Box:
    """Stands for an object whose state is wanted and whose class is not."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state) if isinstance(state, dict) else {}


class _Scaler(_Box):
    """Stands for scikit-learn's StandardScaler."""


class _Wrapper(_Box):
    """Stands for joblib's note of an array whose bytes follow."""


class _Blank(np.ndarray):
    """An array that has yet to be given its state."""


def _numeric(dtype: Any) -> np.dtype[Any]:
    kind: np.dtype[Any] = np.dtype(dtype)
    if kind.hasobject or kind.kind not in "biufc":
        raise pickle.UnpicklingError(f"an array of {kind}")
    return kind


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    return np.ndarray.__new__(_Blank, (0,), np.uint8)


def _scalar(dtype: Any, raw: bytes) -> Any:
    return np.frombuffer(raw, _numeric(dtype))[0]


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    return _shaped(raw, dtype, shape, order == "F")


def _allowed() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
        ("_codecs", "encode"): _latin,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        names[f"{core}.multiarray", "scalar"] = _scalar
        names[f"{core}.numeric", "_frombuffer"] = _frombuffer
    for place in ("sklearn.preprocessing._data", "sklearn.preprocessing.data"):
        names[place, "StandardScaler"] = _Scaler
    return names


def _latin(text: str, coding: str) -> bytes:
    # Old protocols write bytes as text; no other codec is needed.
    if coding != "latin1":
        raise pickle.UnpicklingError(f"codec {coding}")
    return text.encode("latin1")


class _Reader(_Unpickler):  # type: ignore[misc]
    """An unpickler that knows a dozen harmless names."""

    dispatch: ClassVar = dict(_Unpickler.dispatch)

    def __init__(self, stream: io.BufferedIOBase) -> None:
        super().__init__(stream, encoding="latin1")
        self.stream = stream
        self.names = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.names:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.names[module, name]

    def build(self) -> None:
        """BUILD: give an object its state, and read an array where joblib left its bytes."""
        if isinstance(self.stack[-2], _Blank):
            state = self.stack.pop()
            self.stack[-1] = _filled(state)
            return
        _Unpickler.dispatch[pickle.BUILD[0]](self)
        if isinstance(self.stack[-1], _Wrapper):
            self.stack[-1] = self._inline(self.stack[-1].state)

    dispatch[pickle.BUILD[0]] = build

    def _inline(self, state: dict[str, Any]) -> np.ndarray:
        dtype, shape = _numeric(state["dtype"]), tuple(int(n) for n in state["shape"])
        if state.get("numpy_array_alignment_bytes") is not None:
            self.stream.read(self.stream.read(1)[0])
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if not 0 <= size <= LARGEST:
            raise pickle.UnpicklingError(f"an array of {size} bytes")
        return _shaped(self.stream.read(size), dtype, shape, state.get("order") == "F")


def _filled(state: Any) -> np.ndarray:
    _, shape, dtype, fortran, raw = state
    if not isinstance(raw, bytes):
        raise pickle.UnpicklingError("an array without plain bytes")
    return _shaped(raw, dtype, shape, bool(fortran))


def _shaped(raw: bytes, dtype: Any, shape: Any, fortran: bool) -> np.ndarray:
    flat = np.frombuffer(raw, _numeric(dtype))
    return np.reshape(flat, tuple(shape), order="F" if fortran else "C").copy()


def _load(path: Path, what: str, check: Callable[[Any], Any]) -> Any:
    check_file(path)
    try:
        with path.open("rb") as stream:
            return check(_Reader(stream).load())
    except Refused:
        raise
    except Exception as error:  # damaged bytes can trip any opcode
        why = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise Refused(f"{path}: is not {what} and nothing in it was run ({why})") from None


def scaler(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of a StandardScaler saved with joblib or pickle.

    Raises:
        Refused: the file holds anything else.
    """

    def check(found: Any) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(found, _Scaler):
            raise pickle.UnpicklingError("it holds another object")
        mean, scale = (np.asarray(found.state[k], float) for k in ("mean_", "scale_"))
        if mean.ndim != 1 or mean.shape != scale.shape or not (scale > 0).all():
            raise pickle.UnpicklingError("mean_ and scale_ do not fit")
        return mean, scale

    result: tuple[np.ndarray, np.ndarray] = _load(path, "a StandardScaler", check)
    return result


def array(path: Path) -> np.ndarray:
    """The one numeric array in a pickle.

    Raises:
        Refused: the file holds anything else.
    """

    def check(found: Any) -> np.ndarray:
        if not isinstance(found, np.ndarray) or isinstance(found, _Blank):
            raise pickle.UnpicklingError("it holds another object")
        return found

    result: np.ndarray = _load(path, "a pickle of one numeric array", check)
    return result
