"""Task, Model and run: one way through the house for every system."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from terrella.types import Column, Features, Outputs, Product, Source, Variable, Windows

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from terrella.weights import Card


@dataclass(frozen=True)
class Late:
    """A callable named by ``module:attribute`` and imported at its first call.

    Task tables are made of these, so that listing tasks or asking for help imports neither torch
    nor xarray.
    """

    path: str

    @cached_property
    def target(self) -> Callable[..., Any]:
        """The callable itself."""
        module, _, name = self.path.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.target(*args, **kwargs)


def late(path: str) -> Late:
    """Name a callable as ``package.module:attribute`` without importing it."""
    return Late(path)


def option(default: Any, help: str, **extra: Any) -> Any:
    """A dataclass field that is also a command-line flag and a TOML key."""
    return field(default=default, metadata={"help": help, **extra})


@dataclass(frozen=True)
class Plain:
    """A group of no settings."""


@dataclass(frozen=True)
class Metric:
    """One score: how it is computed and how it is read.

    Attributes:
        of: ``(table, weight) -> float``; weight is how often each row of ``judge``'s table counts.
        better: whether more or less of it is better.
        floor: what a guess without any input reaches anyway (0 for a correlation).
        units: of the value.
    """

    of: Callable[..., float]
    better: Literal["more", "less"] = "more"
    floor: float | None = None
    units: str = "1"

    def __call__(self, table: Any, weight: Any) -> float:
        return self.of(table, weight)


@dataclass(frozen=True)
class Baseline:
    """Something a network must beat.

    Attributes:
        kind: ``trivial`` looks at nothing but the past of the target, ``metadata`` at nothing but
            when and where (the shortcut audit), ``classical`` is a strong model on hand features,
            ``published`` another's rule or weights.
        fit: ``(train windows, recipe) -> predictor``, and that maps windows to outputs. Raises
            ``NoData`` where it cannot be had (weights not imported): it is then left out, and the
            certificate says so.
    """

    kind: Literal["trivial", "metadata", "classical", "published"]
    fit: Callable[..., Callable[[Windows], Outputs]]


@dataclass(frozen=True)
class Judging:
    """How any evaluation is carried out."""

    draws: int = option(500, "bootstrap draws of whole blocks")
    rolls: int = option(39, "times the outputs are rolled against the truth, as a null")
    nulls: int = option(0, "networks trained on shuffled labels, as a null (plans that train)")
    bootstrap: int = option(0, "seed of bootstrap and nulls")


@dataclass(frozen=True)
class Task:
    """One system as a value: everything the house needs to run, train and judge it.

    Attributes:
        name: the folder's name.
        summary: one line for the list of tasks.
        inputs: variables a run asks its source for.
        targets: names in ``Windows.y``.
        recipe: frozen dataclass of everything the weights depend on (features, window, network).
        options: frozen dataclass of what a run may choose; becomes flags and TOML keys.
        evaluation: frozen dataclass of what ``evaluate`` may choose; becomes flags.
        open: ``(paths, options) -> Opening``.
        reach: ``(recipe, options) -> (before, after)``, how far beyond its span a job must read.
        prepare: ``(record, recipe, options) -> Windows``; training and running share it.
        network: ``(recipe) -> nn.Module`` whose ``forward(**x)`` gives a dict of tensors. Scaling
            lives in its buffers: ``fit_scale(x)``, if it has one, is called once before training,
            ``settle(validation)`` once after it (calibration on rows not learnt from).
        loss: ``(outputs, y, weight) -> Tensor``.
        decode: ``(outputs, windows, record, span, recipe, options) -> Product``.
        plot: ``(product, path) -> list[Path]``, figures beside ``path`` (a stem without suffix).
        simulate: ``(seed, hours, **settings) -> Record`` with its truth.
        export: ``(record, path) -> list[Path]``, a scene in the task's native file format.
        training: ``(paths, config, recipe, options) -> (train, validation)`` lists of Windows.
        plan: ``(paths, evaluation, recipe, options) -> Iterable[Fold]``.
        judge: ``(outputs, scene, recipe, options) -> DataFrame``, rows with a ``block`` column.
        metrics: by name, how scores are computed and read.
        primary: names of the metrics that the verdict is about.
        baselines: by name, what the network must beat, scored on the same rows.
        features: ``(windows) -> Features``, what a row looks like in the field's quantities.
        attainable: ``(scene, recipe) -> outputs`` that nobody can beat, where a simulation knows.
        figures: ``(evaluation) -> {name: figure}``, drawn beside the certificate's own.
        predict: ``(network, windows) -> outputs``; None for the plain loop over rows.
        sample: ``(windows, rng) -> (rows, weight)`` for training; None for all valid rows.
        importers: ``(paths) -> (state, recipe, card fields)`` for published formats.
        commands: verbs of its own, ``terrella TASK VERB``.
        demo: settings of ``simulate`` for ``terrella demo``.
        quick: settings of ``evaluation`` for ``terrella bench``, a minute or two.
        scene: frozen dataclass of further settings of ``simulate``; becomes flags.
        hours: usual length of a simulated scene.
        events: columns of the events' table whose kind an archive must know; ``open`` must give
            jobs whose sources can be sent to another process.
    """

    name: str
    summary: str
    inputs: tuple[Variable, ...]
    targets: tuple[str, ...]
    recipe: type
    options: type
    evaluation: type
    open: Callable[..., Any]
    reach: Callable[..., Any]
    prepare: Callable[..., Any]
    network: Callable[..., Any]
    loss: Callable[..., Any]
    decode: Callable[..., Any]
    plot: Callable[..., Any]
    simulate: Callable[..., Any]
    export: Callable[..., Any]
    training: Callable[..., Any]
    plan: Callable[..., Any]
    judge: Callable[..., Any]
    metrics: Mapping[str, Metric]
    primary: tuple[str, ...]
    baselines: Mapping[str, Baseline]
    features: Callable[..., Features]
    attainable: Callable[..., Outputs] | None = None
    figures: Callable[..., Mapping[str, Any]] | None = None
    predict: Callable[..., Any] | None = None
    sample: Callable[..., Any] | None = None
    importers: Callable[..., Any] | None = None
    commands: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    demo: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    scene: type = Plain
    hours: float = 24.0
    events: tuple[Column, ...] = ()


@dataclass(frozen=True)
class Model:
    """A task with a network and the card its weights came with."""

    task: Task
    network: nn.Module
    recipe: Any
    card: Card

    def options(self, **chosen: Any) -> Any:
        """Run options: the task's defaults, then what these weights ask for, then ``chosen``."""
        return self.task.options(**{**self.card.options, **chosen})


def run(
    model: Model,
    source: Source,
    start: np.datetime64,
    stop: np.datetime64,
    options: Any = None,
) -> Product:
    """Turn [start, stop) of a source into a product.

    Args:
        model: from ``terrella.load``.
        source: anything with ``fetch``.
        start: first instant, UTC.
        stop: the instant after the last, UTC.
        options: the task's options; those the weights ask for if None.

    Raises:
        Refused: the input cannot be used; one line that says why.
    """
    from terrella.novelty import mark
    from terrella.predict import predict

    task, recipe = model.task, model.recipe
    options = model.options() if options is None else options
    before, after = task.reach(recipe, options)
    record = source.fetch(task.inputs, start - before, stop + after)
    windows = task.prepare(record, recipe, options)
    outputs = (task.predict or predict)(model.network, windows)
    product: Product = task.decode(outputs, windows, record, (start, stop), recipe, options)
    return mark(product, model, windows)
