"""What a worker does: one unit, from its files to its record in the store.

The same function runs in the command's own process and on a cluster. This module is what workers
import at their start, so it imports all that a unit needs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import sys
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet  # noqa: F401 - imported once, before workers are forked
import torch
from threadpoolctl import threadpool_limits

import terrella
from terrella import product as products
from terrella import registry
from terrella.archive.commit import commit
from terrella.archive.hashes import Reader, Stat
from terrella.archive.store import Broken, Store, read_json
from terrella.archive.units import Unit
from terrella.task import Model
from terrella.types import Refused


@dataclass(frozen=True)
class Order:
    """What all units of a run share.

    Attributes:
        store: folder of results.
        task, weights, sha256: what to run, the weight file and the hash it must have.
        recipe: of those weights.
        options: of the run.
        series: keep the continuous product.
        version: of terrella.
    """

    store: Path
    task: str
    weights: Path
    sha256: str
    recipe: Any
    options: Any
    series: bool = True
    version: str = terrella.__version__

    def made_with(self) -> dict[str, Any]:
        """All that results depend on besides the inputs, as plain values."""
        body = {
            "task": self.task,
            "weights": self.sha256,
            "recipe": dataclasses.asdict(self.recipe),
            "options": dataclasses.asdict(self.options),
            "series": self.series,
            "terrella": self.version,
        }
        text = json.dumps(body, sort_keys=True, default=str)
        plain: dict[str, Any] = json.loads(text)
        return {**plain, "identity": hashlib.sha256(text.encode()).hexdigest()}

    @property
    def identity(self) -> str:
        """Hash of ``made_with``."""
        found: str = self.made_with()["identity"]
        return found


@dataclass(frozen=True)
class Outcome:
    """What became of one unit.

    Attributes:
        key: of the unit.
        state: ``done``, ``same`` (nothing had changed), ``failed``, or ``broken``: the store cannot
            be written, or no unit can be done at all.
        why: reason of a failure, one line.
        events: in the unit.
        seen: hashes of the files that were read.
        warned: warnings, one line each.
        seconds: it took.
        cpu: seconds of processor time it took.
        peak: largest memory of the worker so far, bytes.
        worker: who did it.
    """

    key: str
    state: str
    why: str = ""
    events: int = 0
    seen: dict[str, tuple[Stat, str]] = field(default_factory=dict)
    warned: tuple[str, ...] = ()
    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    worker: str = ""


def make(unit: Unit, order: Order) -> Outcome:
    """Do one unit, unless its record says that nothing has changed.

    Nothing a unit holds can end the run: whatever goes wrong with it is told in the outcome.
    """
    begun, used = time.perf_counter(), time.process_time()
    reader = Reader()
    warned: tuple[str, ...] = ()
    events = 0
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state, events = _make(unit, order, reader)
        why = ""
        kept = [w for w in caught if issubclass(w.category, UserWarning)]
        warned = tuple(dict.fromkeys(" ".join(str(w.message).split()) for w in kept))
    except Broken as broken:
        state, why = "broken", str(broken)
    except Refused as refusal:
        state, why = "failed", " ".join(str(refusal).split())
    except Exception as error:  # a bug met in one of 58,000 units must not cost the others
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        state, why = "failed", f"{type(error).__name__}: {' '.join(str(error).split())} ({where})"
    return Outcome(
        unit.key, state, why, events, dict(reader.seen), warned,
        time.perf_counter() - begun, time.process_time() - used, peak(),
        f"{os.uname().nodename}:{os.getpid()}",
    )  # fmt: skip


def _make(unit: Unit, order: Order, reader: Reader) -> tuple[str, int]:
    if order.version != terrella.__version__:
        raise Broken(
            f"this worker has terrella {terrella.__version__}, the command {order.version}; "
            "install one version everywhere"
        )
    store = Store(order.store)
    digest = unit.digest(order.identity, reader)
    old = read_json(store.record_of(unit))
    if old and store.holds(old, digest):
        return "same", int(old["events"])
    model = model_of(order.task, order.weights, order.sha256)
    job = unit.job
    made = terrella.run(model, job.source, job.start, job.stop, order.options)
    if (name := reader.changed()) != "":
        raise Refused(f"{name}: changed while it was read; run again")
    attrs = products.history(order.task, dataclasses.asdict(model.card))
    series = made.series.assign_attrs(attrs)
    if not order.series:
        series = series.drop_vars(list(series.variables))
    about = {
        "digest": digest,
        "identity": order.identity,
        "stem": job.stem,
        "own": sorted(p.name for p in job.files),
        "inputs": [
            {"name": Path(n).name, "sha256": sha} for n, (_, sha) in sorted(reader.seen.items())
        ],
    }
    product = dataclasses.replace(made, series=series)
    done = commit(store, unit, product, registry.get(order.task).events, about)
    return "done", int(done["events"])


@lru_cache(maxsize=2)
def model_of(task: str, weights: Path, sha256: str) -> Model:
    """The model, loaded once a process.

    Raises:
        Broken: the weights are not here, or not those of the command: no unit can be done.
    """
    try:
        model = terrella.load(task, weights)
    except Refused as refusal:
        raise Broken(str(refusal)) from None
    if model.card.sha256 != sha256:
        raise Broken(f"{weights}: is not the weight file the command has")
    return model


def work(unit: Unit, order: Order) -> Outcome:
    """``make`` in a process of its own, on one thread.

    Where workers are profiled the thread is one the cluster does not know: a profiler keeps the
    frames it samples for a while, and with them open HDF5 objects; when those are closed shows in
    the bytes of a file.
    """
    import dask

    # xarray would otherwise ask the cluster for a lock on each file it writes.
    with dask.config.set(scheduler="synchronous"):
        if dask.config.get("distributed.worker.profile.enabled"):
            return _apart().submit(make, unit, order).result()
        _settle()
        return make(unit, order)


@lru_cache(maxsize=1)
def _apart() -> ThreadPoolExecutor:
    """Threads of a worker's own, kept from unit to unit with the memory they have."""
    return ThreadPoolExecutor(64, initializer=_settle)  # as many start as the worker has


def _settle() -> None:
    threadpool_limits(1)  # some libraries keep the number for each thread
    torch.set_num_threads(1)


def peak() -> int:
    """Largest resident memory of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would count the parent's memory before exec.
        for line in status.read_text("ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
