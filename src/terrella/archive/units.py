"""Units of work: one job each, with a key, and a digest of everything its result depends on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from terrella.types import Job

Hasher = Callable[[Path], str]


@dataclass(frozen=True)
class Unit:
    """A natural chunk of an archive: a satellite-day, a probe's interval, a station's month.

    Attributes:
        key: names its files in a store; the same at every run over the same inputs.
        job: what to run; its source holds only what the span and its edges touch, so a unit is
            small however large the archive is.
    """

    key: str
    job: Job

    @property
    def year(self) -> int:
        """Year of the unit's middle: a day may begin a few milliseconds before midnight."""
        middle = self.job.start + (self.job.stop - self.job.start) // 2
        return int(middle.astype("datetime64[Y]").astype(int)) + 1970

    def paths(self) -> list[Path]:
        """Files that its source can read: its own and the neighbours its edges reach into."""
        return sorted(set(paths_in(self.job.source)))

    def digest(self, identity: str, sha256: Hasher) -> str:
        """Hash of all that the result depends on.

        Args:
            identity: of weights, options and version.
            sha256: hash of a file's bytes.
        """
        job = self.job
        seen = hashlib.sha256()
        for part in pieces((identity, job.stem, job.start, job.stop, job.source), sha256):
            seen.update(len(part).to_bytes(8, "little"))
            seen.update(part)
        return seen.hexdigest()


def units_of(jobs: Iterable[Job], reach: tuple[np.timedelta64, np.timedelta64]) -> list[Unit]:
    """Jobs as units, each with a source that is narrowed to its span and its edges.

    A source may have ``narrow(start, stop)``, which gives a source that fetches the same over that
    span and holds no more than that needs.
    """
    jobs = list(jobs)
    names = keys(jobs)
    made = []
    for key, job in zip(names, jobs, strict=True):
        narrow = getattr(job.source, "narrow", None)
        source = narrow(job.start - reach[0], job.stop + reach[1]) if narrow else job.source
        made.append(Unit(key, dataclasses.replace(job, source=source)))
    return made


def keys(jobs: list[Job]) -> list[str]:
    """A name for each job: its stem; with its start, then its file's path, where stems repeat."""
    names = [job.stem for job in jobs]
    often = Counter(names)
    names = [
        f"{name}.{_stamp(job.start)}" if often[name] > 1 else name
        for name, job in zip(names, jobs, strict=True)
    ]
    often = Counter(names)
    return [
        f"{name}.{hashlib.sha256(str(job.files).encode()).hexdigest()[:8]}"
        if often[name] > 1
        else name
        for name, job in zip(names, jobs, strict=True)
    ]


def _stamp(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).replace("-", "").replace(":", "")


def paths_in(value: Any) -> Iterator[Path]:
    """Every path in a source, however deep."""
    if isinstance(value, Path):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from paths_in(getattr(value, field.name))
    elif isinstance(value, tuple | list | set | frozenset):
        for each in value:
            yield from paths_in(each)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from paths_in(each)


def pieces(value: Any, sha256: Hasher) -> Iterator[bytes]:
    """A value as bytes that are equal only for equal values; a path counts by name and content.

    Raises:
        TypeError: a source holds something whose content cannot be told.
    """
    if isinstance(value, Path):
        yield f"{value.name} {sha256(value)}".encode()
    elif value is None or isinstance(value, bool | int | float | str | bytes):
        yield f"{type(value).__name__} {value!r}".encode()
    elif isinstance(value, np.datetime64):
        yield str(value.astype("datetime64[ns]")).encode()
    elif isinstance(value, xr.DataArray):
        yield from pieces((value.dims, value.to_numpy(), value.attrs), sha256)
        yield from pieces({str(k): v.to_numpy() for k, v in value.coords.items()}, sha256)
    elif isinstance(value, pd.DataFrame):
        yield from pieces([(str(n), value[n].to_numpy()) for n in value], sha256)
    elif isinstance(value, pd.Series):
        yield from pieces((value.index.to_numpy(), value.to_numpy()), sha256)
    elif isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        yield f"{array.dtype.str} {array.shape}".encode()
        yield repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield str(key).encode()
            yield from pieces(value[key], sha256)
    elif isinstance(value, tuple | list):
        yield str(len(value)).encode()
        for each in value:
            yield from pieces(each, sha256)
    elif isinstance(value, set | frozenset):
        yield from pieces(sorted(value, key=str), sha256)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        for field in dataclasses.fields(value):
            yield from pieces(getattr(value, field.name), sha256)
    else:
        raise TypeError(f"a {type(value).__name__} in a source cannot be told from another")
