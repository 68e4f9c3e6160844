"""One numeric array out of a pickle, without ever letting the pickle choose what is called."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrella.types import Refused

LARGEST = 1 << 30  # bytes


def read_array(data: bytes) -> NDArray[Any]:
    """Read a pickle that holds exactly one plain numeric numpy array.

    Only the names that numpy itself writes for such an array are known; each leads to a stand-in of
    ours that checks what it is given, so no name in the file ever reaches numpy's or Python's own
    functions.

    Raises:
        Refused: anything else.
    """
    if len(data) > LARGEST:
        raise Refused("is larger than a feature file should be")
    try:
        held = _Restricted(io.BytesIO(data)).load()
    except Refused:
        raise
    except Exception as error:  # damaged pickles fail in many ways
        raise Refused(f"is no pickle of one numeric array ({type(error).__name__})") from None
    if isinstance(held, _Array):
        held = held.value
    if not isinstance(held, np.ndarray) or held.dtype.kind not in "fiu":
        raise Refused("is a pickle of something else than one numeric array")
    return held


class _Dtype:
    """Stands for ``numpy.dtype``: plain numbers only."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        if not isinstance(code, str) or code.lstrip("<>=|")[:1] not in ("f", "i", "u"):
            raise Refused(f"is a pickle of an array of {str(code)[:20]!r}, not of numbers")
        self.code, self.order = code.lstrip("<>=|"), "="

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "=", "|"):
            self.order = state[1]

    def real(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for a ``numpy.ndarray`` until its state is given."""

    def __init__(self) -> None:
        self.value: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        if not isinstance(kind, _Dtype) or not isinstance(raw, bytes):
            raise Refused("is a pickle of an array that is not of plain numbers")
        self.value = _shaped(raw, kind, shape, "F" if fortran else "C")


def _shaped(raw: Any, kind: _Dtype, shape: Any, order: str) -> NDArray[Any]:
    flat = np.frombuffer(bytes(raw), kind.real())
    return flat.reshape(tuple(int(n) for n in shape), order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(kind, _Dtype):
        raise Refused("is a pickle of an array that is not of plain numbers")
    return _shaped(raw, kind, shape, str(order))


def _encode(text: Any, codec: Any) -> bytes:
    if codec != "latin1" or not isinstance(text, str):
        raise Refused("is a pickle that asks for a codec no array needs")
    return text.encode("latin1")


class _NdarrayType:
    """Stands for the class ``numpy.ndarray`` where a pickle only names it."""


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _NdarrayType,
    ("_codecs", "encode"): _encode,
    **{(m, "_reconstruct"): _reconstruct for m in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(m, "_frombuffer"): _frombuffer for m in ("numpy.core.numeric", "numpy._core.numeric")},
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        raise Refused(f"is a pickle that asks for {module}.{name}; only one numeric array is read")

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("is a pickle with outside references; only one numeric array is read")
