"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from terrella.types import Refused


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside ``path`` that takes its place only if the block succeeds.

    Raises:
        Refused: the folder cannot be written, or the disk is full.
    """
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix
        )
        os.close(handle)
        scratch = Path(name)
        yield scratch
        scratch.chmod(0o666 & ~_umask())
        scratch.replace(path)
        scratch = None
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise Refused(f"{path}: cannot be written ({reason}); nothing was left there") from error
    finally:
        if scratch is not None:
            scratch.unlink(missing_ok=True)


def expand(given: Iterable[Path]) -> list[Path]:
    """Paths with patterns (``*``, ``?``, ``[...]``, ``**``) replaced by what they match, sorted.

    Raises:
        Refused: a pattern matches nothing.
    """
    out: list[Path] = []
    for path in given:
        if path.exists() or not glob.has_magic(str(path)):
            out.append(path)
            continue
        found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - its start is a pattern
        inside = [p for p in map(Path, found) if p.is_file()]
        if not inside:
            raise Refused(f"{path}: matches no file; check the pattern, and quote it: '{path}'")
        out += inside
    return list(dict.fromkeys(out))


def under(path: Path, pattern: str) -> list[Path]:
    """A file as it is; the files in a folder, at any depth, whose names match, sorted.

    Raises:
        Refused: the folder holds none.
    """
    if not path.is_dir():
        return [path]
    inside = sorted(p for p in path.rglob(pattern) if p.is_file() and p.name[0] != ".")
    if not inside:
        raise Refused(f"{path}: is a directory that holds no {pattern} file; give the files")
    return inside


def sha256(path: Path) -> str:
    """Hash of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _umask() -> int:
    # The only portable way to read it; mkstemp makes files private, results are not secrets.
    mask = os.umask(0)
    os.umask(mask)
    return mask
