"""The vocabulary of the house: what flows from a source to a product.

Nothing here imports numpy, xarray or torch at run time, so a command that only lists tasks stays
light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import xarray as xr
    from torch import Tensor

Record: TypeAlias = dict[str, "xr.DataArray"]
Outputs: TypeAlias = dict[str, "np.ndarray"]
Span: TypeAlias = tuple["np.datetime64", "np.datetime64"]


class Refused(Exception):  # noqa: N818 - a refusal is not always an error of ours
    """An input, a weight file or an option that cannot be used.

    The message is one line: what was refused, where, and what to do about it.
    """


class NoData(Refused):
    """Nothing in the span asked for; the message names that span and what the source holds."""


@dataclass(frozen=True)
class Variable:
    """One quantity of the shared vocabulary.

    Attributes:
        name: the field's own name for it (``L``, ``MLT``, ``e4_0``, ``SYM-H``).
        units: units as written in ``attrs["units"]``.
        long_name: what it is, in words.
        cadence: nominal sampling step in seconds; None where it has none.
        shape: trailing shape of one sample, () for a scalar.
        required: False for a quantity that is used when present.
    """

    name: str
    units: str
    long_name: str = ""
    cadence: float | None = None
    shape: tuple[int, ...] = ()
    required: bool = True


@dataclass(frozen=True)
class Column:
    """One column of a task's events, as a catalogue stores it.

    Attributes:
        name: as in the events' table.
        kind: ``time`` (UTC, to the millisecond), ``number``, ``count`` (whole) or ``text``.
        units: of a number.
        long_name: what it is, in words.
        group: the catalogue is divided by it; every unit has one value, in ``series.attrs``.
    """

    name: str
    kind: Literal["time", "number", "count", "text"]
    units: str = ""
    long_name: str = ""
    group: bool = False


class Source(Protocol):
    """Where records come from.

    A source over more than one span needs may also have ``narrow(start, stop)``: a source that
    fetches the same over that span, and holds no more files or values than that takes. Units of an
    archive are sent to workers, and known by their content, in that form.
    """

    def fetch(
        self, variables: Sequence[Variable], start: np.datetime64, stop: np.datetime64
    ) -> Record:
        """Read ``variables`` over [start, stop) UTC.

        Returns:
            One ``DataArray`` a variable, dims (time, *shape), each at its own cadence,
            ``attrs["units"]`` set.

        Raises:
            NoData: nothing lies in the span.
            Refused: the source is damaged or lacks a variable.
        """
        ...


@dataclass(frozen=True)
class Job:
    """One unit of a run: a span of one source and the stem its products are named by.

    Jobs that follow each other with the same stem are appended to one product.
    ``files`` are what provenance hashes.
    """

    stem: str
    source: Source
    start: np.datetime64
    stop: np.datetime64
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """An input that a batch had to leave out, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Opening:
    """What a set of inputs turns into: jobs in order, and the inputs that could not be used."""

    jobs: tuple[Job, ...]
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class Windows:
    """The rows that a network sees.

    Attributes:
        x: network inputs by argument name, rows first: (rows, ...). Overlapping windows are strided
            views of one array, never copies.
        time: (rows,) datetime64[ns], the instant each row speaks for.
        valid: (rows,) bool, False where a row must not be used (it spans a gap, inputs missing).
        groups: (rows,) labels that must not straddle a split (orbit, event, station, storm).
        y: targets by name, rows first; None where the truth is unknown.
        extra: what decoding needs and the network does not see. Names that begin with ``true``
            are withheld from models when they are judged, and so are the columns of a table that
            its ``attrs["true"]`` names.
    """

    x: dict[str, Tensor]
    time: np.ndarray
    valid: np.ndarray
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    y: dict[str, Tensor] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True)
class Product:
    """What a user takes home.

    Attributes:
        series: the continuous product with CF attributes.
        events: the discrete product, None for a task that has none.
        provenance: what it was made from.
        tables: further tables by name, each written as ``<name>.csv``.
    """

    series: xr.Dataset
    events: pd.DataFrame | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """A record beside the rows made from it, for judging."""

    record: Record
    windows: Windows


@dataclass(frozen=True)
class Features:
    """What rows look like, in the field's own quantities: for hand-made models and for ranges.

    Attributes:
        names: of the columns (``e4_0``, ``Kp 24 h``).
        values: (rows, columns) float, NaN where missing.
    """

    names: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class Fold:
    """One train/test division of an evaluation.

    Attributes:
        name: what the test part is (a year, a station, ``held-out``).
        test: scenes that are scored; models see them without their truth.
        train: rows that baselines, and a refitted network, may learn from.
        validation: rows that choose the epoch of a refitted network; part of the training side.
        refit: train the network on ``train``; otherwise the given weights are judged.
        data: what the data are, in words, for the score table (say "simulated" if they are).
        split: how the parts were divided, in words.
        keys: names in ``Windows.groups`` that must not be on both sides; at least one.
        embargo: no row learnt from may lie this close in time to a row tested; None where the two
            sides share no clock (simulated scenes of other seeds).
        exchange: name in ``Windows.groups`` within which a null may exchange labels; all rows if
            empty.
        aside: scored by itself and left out of the whole (a stress test).
        leaks: why this division leaks, for one made to show what leaking hides. It proves nothing.
        null: what destroyed the truth, for a fold made as a null. It is scored apart.
    """

    name: str
    test: tuple[Scene, ...]
    train: tuple[Windows, ...] = ()
    validation: tuple[Windows, ...] = ()
    refit: bool = False
    data: str = ""
    split: str = ""
    keys: tuple[str, ...] = ()
    embargo: np.timedelta64 | None = None
    exchange: str = ""
    aside: bool = False
    leaks: str = ""
    null: str = ""
