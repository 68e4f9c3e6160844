"""Hashes of input files, remembered while a file's size and times stay what they were.

An archive of terabytes is read once, not at every run. The memory is a plain text that only grows
while a command runs; a line cut short by a kill is passed over, and the file may be deleted at any
time: then all inputs are read again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from terrella import files

Stat = tuple[int, int, int]
Seen = Mapping[str, tuple[Stat, str]]
FRESH = 2_000_000_000  # ns: a file younger than this may change again within one tick of its clock


def stat_of(path: Path) -> Stat:
    """Size, time of modification and time of change (ns): they differ after any ordinary write."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Hashes:
    """Hashes known from earlier runs.

    Args:
        path: where they are kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, tuple[Stat, str]] = {}
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        for line in text.splitlines():
            parts = line.split("\t")
            if len(parts) == 5 and len(parts[3]) == 64 and all(p.isdigit() for p in parts[:3]):
                size, changed, noted, sha256, name = parts
                self._known[name] = ((int(size), int(changed), int(noted)), sha256)

    def get(self, path: Path) -> str | None:
        """The hash, or None where the file is new, changed or gone."""
        known = self._known.get(str(path.absolute()))
        try:
            return known[1] if known and known[0] == stat_of(path) else None
        except OSError:
            return None

    def learn(self, seen: Seen) -> None:
        """Remember hashes, on disk too.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        old = time.time_ns() - FRESH
        new = {
            name: (stat, sha256)
            for name, (stat, sha256) in seen.items()
            if max(stat[1:]) < old
            and self._known.get(name) != (stat, sha256)
            and not set("\t\n") & set(name)
        }
        self._known.update(new)
        lines = [f"{a}\t{b}\t{c}\t{sha}\t{name}\n" for name, ((a, b, c), sha) in new.items()]
        if lines:
            with self.path.open("a", encoding="utf-8") as stream:
                # A line that a kill cut short must not swallow this one.
                stream.write(("" if _ends_line(self.path) else "\n") + "".join(lines))


class Reader:
    """Hashes files as they are asked for, each once, and notes what it saw."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[Stat, str]] = {}

    def __call__(self, path: Path) -> str:
        """SHA-256 of the file's bytes.

        Raises:
            OSError: it cannot be read.
        """
        name = str(path.absolute())
        if name not in self.seen:
            stat = stat_of(path)  # before the bytes: a write meanwhile must show
            self.seen[name] = (stat, files.sha256(path))
        return self.seen[name][1]

    def changed(self) -> str:
        """A file that is not what it was when it was hashed; "" if there is none."""
        for name, (stat, _) in self.seen.items():
            if stat_of(Path(name)) != stat:
                return name
        return ""


def _ends_line(path: Path) -> bool:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(size - 1, 0))
        return size == 0 or stream.read(1) == b"\n"
