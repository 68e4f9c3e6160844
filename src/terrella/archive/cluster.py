"""Units on many workers: a cluster of processes here, or one that is given by its address."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.forkserver
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from terrella.archive.choices import Scale
from terrella.types import Refused

if TYPE_CHECKING:
    from dask.distributed import Client

    from terrella.archive.units import Unit
    from terrella.archive.work import Order, Outcome

PATIENCE = 5  # workers that may die under a unit before it is given up
REACH = "30s"  # to wait for a scheduler
AHEAD = 2  # units a worker has been given: the next is there when one ends, and no more
SETTINGS = {
    "distributed.scheduler.allowed-failures": PATIENCE,
    # A worker that needs more than its share is stopped and its unit tried again; one that waits
    # for memory nobody will free would wait for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.multiprocessing-method": "forkserver",
    # It looks at the stack a hundred times a second, which costs a third of a unit.
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.admin.tick.limit": "1h",
}


def need() -> None:
    """See that what a store takes is installed.

    Raises:
        Refused: it is not; says what to install.
    """
    try:
        import distributed  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise Refused(
            f"a store needs {error.name}, which is not installed: pip install 'terrella[scale]'"
        ) from None


def prepare() -> None:
    """Start the process that workers are forked from, which imports what they need once.

    It starts in the background: the command sorts its inputs meanwhile.
    """
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["terrella.archive.work", "distributed.nanny"])
    before = dict(os.environ)
    try:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = "1"  # libraries read it when they are imported, there
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def outcomes(units: Sequence[Unit], order: Order, scale: Scale) -> Iterator[Outcome]:
    """Outcomes of units as they come, in no order; few are ever under way."""
    from dask.distributed import as_completed

    from terrella.archive.work import work

    name = uuid.uuid4().hex[:8]
    waiting = iter(enumerate(units))
    flying: dict[str, Unit] = {}
    with _client(scale, len(units)) as client:
        done = as_completed()

        def feed() -> None:
            while len(flying) < AHEAD * max(_threads(client), 1):
                found = next(waiting, None)
                if found is None:
                    return
                key = f"terrella-{name}-{found[0]}"
                flying[key] = found[1]
                done.add(client.submit(work, found[1], order, key=key, pure=False))

        feed()
        for future in done:
            unit = flying.pop(future.key)
            yield _outcome(future, unit)
            future.release()
            feed()


def _outcome(future: Any, unit: Unit) -> Outcome:
    from dask.distributed import KilledWorker

    from terrella.archive.work import Outcome

    if future.status == "finished":
        result: Outcome = future.result()
        return result
    if future.status in ("cancelled", "lost"):
        return Outcome(unit.key, "broken", "the cluster was lost")
    error = future.exception()
    if isinstance(error, KilledWorker):
        return Outcome(
            unit.key, "failed",
            f"{PATIENCE + 1} workers died under it, of too little memory or by a signal; try more "
            "--memory",
        )  # fmt: skip
    return Outcome(unit.key, "broken", f"a worker cannot work: {type(error).__name__}: {error}")


def _threads(client: Client) -> int:
    return sum(client.nthreads().values()) if client.status == "running" else 0


@contextmanager
def _client(scale: Scale, most: int) -> Iterator[Client]:
    import dask
    from dask.distributed import Client, LocalCluster

    with dask.config.set(SETTINGS):
        if scale.scheduler:
            try:
                client = Client(scale.scheduler, timeout=REACH)
            except (OSError, ValueError) as error:
                why = " ".join(str(error).split())
                raise Refused(f"--scheduler {scale.scheduler}: cannot be reached ({why})") from None
            with client:
                yield client
            return
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        with (
            tempfile.TemporaryDirectory(prefix="terrella-") as scratch,
            LocalCluster(
                n_workers=min(scale.workers, most), threads_per_worker=1, processes=True,
                memory_limit=scale.memory, dashboard_address="127.0.0.1:0", local_directory=scratch,
                silence_logs=logging.CRITICAL, host="127.0.0.1",
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            yield client
