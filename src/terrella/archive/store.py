"""A store: results of many units on disk, each whole or not there.

    STORE/store.json                        what it was made with
    STORE/events/satellite=n18/year=2013/   Parquet, one file a unit that has events
    STORE/series/satellite=n18/year=2013/   NetCDF, one file a unit
    STORE/units/KEY.json                    the unit's record: its digest, inputs and files
    STORE/runs/                             reports, with times; nothing else holds any
    STORE/hashes.tsv                        hashes of inputs already read

A unit is there if its record is. The record is written last, by a rename, and names its files by
size and hash; a file's name holds the digest, so what replaces a unit never touches what it
replaces. Whatever no record names is left over from a kill and is swept at the next run.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrella import files
from terrella.archive.units import Unit
from terrella.types import Refused

FORMAT = 1
DATA = ("events", "series", "tables")


class Broken(Exception):  # noqa: N818 - a Refused of the store, not of an input
    """The store cannot be written: the run must stop."""


@dataclass(frozen=True)
class Store:
    """A folder of results.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def head(self) -> Path:
        """What it was made with."""
        return self.path / "store.json"

    def made_with(self) -> dict[str, Any]:
        """The head's content, empty if there is no store.

        Raises:
            Refused: the head is damaged, or of a later format.
        """
        try:
            body: dict[str, Any] = json.loads(self.head.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise Refused(f"{self.head}: cannot be read ({error})") from None
        if body.get("format") != FORMAT:
            raise Refused(f"{self.head}: is of format {body.get('format')}, not {FORMAT}")
        return body

    def check(self, body: dict[str, Any], renew: bool) -> bool:
        """See that the folder is new, or a store made with the same.

        Args:
            body: task, weights, options ... that all units share.
            renew: take over a store that was made with other weights, options or version.

        Returns:
            Whether its head must be written.

        Raises:
            Refused: it holds something else.
        """
        old = self.made_with()
        if not old and self.path.is_dir() and any(p.name[0] != "." for p in self.path.iterdir()):
            raise Refused(f"{self.path}: is not empty and is no store; give another --out")
        if old and old["task"] != body["task"]:
            raise Refused(
                f"{self.path}: holds {old['task']}, not {body['task']}; give another --out"
            )
        differ = [k for k in body if old and old.get(k) != body[k] and k != "identity"]
        if differ and not renew:
            words = ", ".join(differ)
            raise Refused(
                f"{self.path}: was made with other {words}; give another --out, or --renew to make "
                "it again"
            )
        return bool(differ) or not old

    def begin(self, body: dict[str, Any], renew: bool) -> None:
        """Make the store, or go on with it; arguments and refusals as of ``check``.

        Raises:
            Refused: it cannot be written.
        """
        if self.check(body, renew):
            write_json(self.head, {"format": FORMAT, **body})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store for one command.

        Raises:
            Refused: another command holds it, or the folder cannot be written.
        """
        lock = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise Refused(f"{self.path}: cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise Refused(f"{self.path}: another command is at work on this store") from None
        except OSError as error:
            os.close(handle)
            raise Refused(f"{self.path}: cannot be locked ({error.strerror})") from None
        try:
            yield
        finally:
            os.close(handle)

    def records(self) -> dict[str, dict[str, Any]]:
        """Records of all units by key; one that cannot be read counts as absent."""
        found = {}
        for path in sorted(self.path.glob("units/*.json")):
            if path.name[0] != "." and (body := read_json(path)):
                found[path.stem] = body
        return found

    def record_of(self, unit: Unit) -> Path:
        """Where a unit's record lies."""
        return self.path / "units" / f"{unit.key}.json"

    def holds(self, record: dict[str, Any] | None, digest: str) -> bool:
        """Whether a unit is done: its record has this digest, and its files are there whole."""
        return record is not None and record["digest"] == digest and self.whole(record)

    def whole(self, record: dict[str, Any]) -> bool:
        """Whether all files of a record are there with their sizes."""
        try:
            return all(
                (self.path / name).stat().st_size == about["size"]
                for name, about in record["files"].items()
            )
        except OSError:
            return False

    def drop(self, record: dict[str, Any]) -> None:
        """Take a unit out: its record first, so that it is never there in part."""
        (self.path / record["record"]).unlink(missing_ok=True)
        for name in record["files"]:
            (self.path / name).unlink(missing_ok=True)

    def sweep(self, records: dict[str, dict[str, Any]]) -> int:
        """Remove what kills left over: scratch files, and files that no record names.

        Returns:
            How many there were.
        """
        named = {self.path / n for record in records.values() for n in record["files"]}
        count = 0
        for top in (*DATA, "units", "runs"):
            for folder, _, names in os.walk(self.path / top):
                for path in (Path(folder) / n for n in names):
                    if path.name[0] == "." or (top in DATA and path not in named):
                        path.unlink(missing_ok=True)
                        count += 1
        for path in self.path.glob(".store*"):
            path.unlink(missing_ok=True)
        return count


def read_json(path: Path) -> dict[str, Any]:
    """A record, or nothing if it is absent or damaged."""
    try:
        body = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def write_json(path: Path, body: dict[str, Any]) -> None:
    """Write a record, whole or not at all."""
    with files.whole(path) as scratch:
        scratch.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", "utf-8")
