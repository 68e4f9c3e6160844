"""An archive into a store: what is to be done, doing it, and the report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terrella.archive import cluster
from terrella.archive.choices import Scale
from terrella.archive.hashes import Hashes, Reader
from terrella.archive.progress import Progress, clock
from terrella.archive.store import Store, read_json, write_json
from terrella.archive.units import Unit, units_of
from terrella.types import Opening, Refusal, Refused

if TYPE_CHECKING:
    import numpy as np

    from terrella.archive.work import Order, Outcome
    from terrella.task import Model

Ends = tuple["np.datetime64 | None", "np.datetime64 | None"]
SHOWN = 20  # lines of a kind that the terminal gets; the report in the store has all


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes:
        units: those that the inputs make and that touch the span asked for.
        todo: those to be done, by key, and why.
        stale: recorded units whose inputs are there and make them no longer.
        other: recorded units of no input given.
        refused: inputs that make no unit.
        records: of all units in the store.
    """

    units: tuple[Unit, ...]
    todo: dict[str, str]
    stale: tuple[str, ...]
    other: tuple[str, ...]
    refused: tuple[Refusal, ...]
    records: dict[str, dict[str, Any]]


@dataclass
class Report:
    """What became of a run."""

    units: int
    refused: tuple[Refusal, ...]
    skipped: int = 0
    done: int = 0
    events: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    warned: dict[str, str] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    stopped: str = ""
    seconds: float = 0.0
    work_s: float = 0.0
    work_cpu_s: float = 0.0

    def line(self) -> str:
        """The summary."""
        bad = len(self.failed) + len(self.refused)
        rate = f", {self.done / self.seconds:.3g} units a second" if self.done else ""
        memory = max(self.peak.values(), default=0) / 2**20
        took = f"in {clock(self.seconds)}{rate}; at most {memory:.0f} MiB a worker"
        return (
            f"done {self.done}, skipped {self.skipped}, failed {bad} "
            f"of {self.units + len(self.refused)} units {took}; {self.events} events"
        )


def run(
    model: Model, weights: Path, options: Any, opened: Opening, span: Ends, out: Path,
    scale: Scale, say: Callable[[str], None],
) -> None:  # fmt: skip
    """Do what is missing or changed of an archive, and say what became of it.

    Args:
        model: for its task, recipe and card.
        weights: its file, where workers find it.
        options: of the run.
        opened: jobs and refused inputs.
        span: first instant and the one after the last: units that touch it are done, whole.
        out: the store.
        scale: workers, memory and what else the command chose.
        say: takes a line for the user.

    Raises:
        Refused: a unit failed, an input was refused, or the store cannot be written; all other
            units are done, or can be by running again.
    """
    from terrella.archive.work import Order

    order = Order(
        out.absolute(), model.task.name, weights.absolute(), model.card.sha256, model.recipe,
        options, scale.series,
    )  # fmt: skip
    units = units_of(opened.jobs, model.task.reach(model.recipe, options))
    store = Store(order.store)
    if scale.dry_run:
        store.check(order.made_with(), scale.renew)
        _tell(plan_of(units, opened, span, order, store), scale)
        return
    with store.locked():
        store.begin(order.made_with(), scale.renew)
        _run(plan_of(units, opened, span, order, store), order, store, scale, say)


def _run(plan: Plan, order: Order, store: Store, scale: Scale, say: Callable[[str], None]) -> None:
    begun, started = time.monotonic(), datetime.now(UTC)
    records = plan.records
    for key in (*plan.stale, *(plan.other if scale.prune else ())):
        store.drop(records.pop(key))
    if swept := store.sweep(records):
        say(f"removed {swept} files that an earlier run left unfinished")
    if plan.other and not scale.prune:
        say(f"{len(plan.other)} units in {store.path} are of no input given; --prune drops them")
    todo = [u for u in plan.units if u.key in plan.todo]
    report = Report(len(plan.units), plan.refused, skipped=len(plan.units) - len(todo))
    report.events = sum(records[u.key]["events"] for u in plan.units if u.key not in plan.todo)
    try:
        _work(todo, order, store, scale, report, say)
    except KeyboardInterrupt:
        report.stopped = "interrupted"
    except OSError as error:
        report.stopped = f"{error.filename or store.path}: {error.strerror or error}"
    report.seconds = time.monotonic() - begun
    _close(store, report, started, say)


def _work(
    todo: list[Unit],
    order: Order,
    store: Store,
    scale: Scale,
    report: Report,
    say: Callable[[str], None],
) -> None:
    hashes = Hashes(store.path / "hashes.tsv")
    with Progress(len(todo), say) as progress:
        for outcome in _outcomes(todo, order, scale):
            report.peak[outcome.worker] = max(report.peak.get(outcome.worker, 0), outcome.peak)
            report.work_s += outcome.seconds
            report.work_cpu_s += outcome.cpu
            if outcome.state == "broken":
                report.stopped = outcome.why
                return
            if outcome.state == "failed":
                report.failed[outcome.key] = outcome.why
                _forget(store, outcome.key)
            else:
                report.done += outcome.state == "done"
                report.skipped += outcome.state == "same"
                report.events += outcome.events
                hashes.learn(outcome.seen)
            for line in outcome.warned:
                # The first unit that says so, whatever the order in which workers end.
                report.warned[line] = min(outcome.key, report.warned.get(line, outcome.key))
            progress.step()


def _outcomes(todo: Sequence[Unit], order: Order, scale: Scale) -> Iterator[Outcome]:
    """Here, one after the other, or on workers: each unit is done by the same function."""
    if not todo:
        return
    if scale.scheduler or scale.workers > 1:
        yield from cluster.outcomes(todo, order, scale)
        return
    from terrella.archive.work import make
    from terrella.threads import one_thread

    with one_thread():
        for unit in todo:
            yield make(unit, order)


def _forget(store: Store, key: str) -> None:
    # What was made from other bytes is no result of these: a fresh run would not have it either.
    if record := read_json(store.path / "units" / f"{key}.json"):
        store.drop(record)


def plan_of(units: list[Unit], opened: Opening, span: Ends, order: Order, store: Store) -> Plan:
    """Compare what the inputs make with what the store has."""
    records = store.records()
    hashes = Hashes(store.path / "hashes.tsv")
    identity, todo = order.identity, {}
    chosen = [
        u
        for u in units
        if (span[0] is None or u.job.stop > span[0]) and (span[1] is None or u.job.start < span[1])
    ]
    for unit in chosen:
        if why := _why(unit, records.get(unit.key), identity, store, hashes):
            todo[unit.key] = why
    planned = {u.key for u in units}
    refused = {Path(r.what).name for r in opened.refused}
    stems = {u.job.stem for u in units}
    stale: list[str] = []
    other: list[str] = []
    for key, record in records.items():
        if key in planned:
            continue
        # Its file is given and cannot be used, or the same stem is now cut in other pieces.
        gone = refused & set(record["own"]) or record["stem"] in stems
        (stale if gone else other).append(key)
    return Plan(tuple(chosen), todo, tuple(stale), tuple(other), opened.refused, records)


def _why(
    unit: Unit, record: dict[str, Any] | None, identity: str, store: Store, hashes: Hashes
) -> str:
    """Why a unit must be done; "" if it need not be."""
    if record is None:
        return "not done yet"
    if record["identity"] != identity:
        return "made with other weights, options or version"
    if not store.whole(record):
        return "its files are not whole"
    known = Reader()

    def sha256(path: Path) -> str:
        return hashes.get(path) or known(path)

    try:
        return "" if record["digest"] == unit.digest(identity, sha256) else "its inputs changed"
    except OSError as error:
        return f"its inputs cannot be read ({error.strerror})"


def _tell(plan: Plan, scale: Scale) -> None:
    """What a run would do, on stdout."""
    why: dict[str, list[str]] = {}
    for key, reason in plan.todo.items():
        why.setdefault(f"would do, {reason}", []).append(key)
    why["would leave out, refused"] = [r.why for r in plan.refused]
    why["would drop, its input makes it no longer"] = list(plan.stale)
    verb = "would drop" if scale.prune else "would keep"
    why[f"{verb}, of no input given"] = list(plan.other)
    for reason, names in why.items():
        for name in names[:SHOWN]:
            print(f"{reason}: {' '.join(name.split())}")
        if len(names) > SHOWN:
            print(f"{reason}: and {len(names) - SHOWN} more")
    print(
        f"would do {len(plan.todo)}, skip {len(plan.units) - len(plan.todo)}, leave out "
        f"{len(plan.refused)} of {len(plan.units) + len(plan.refused)} units"
    )


def _close(store: Store, report: Report, started: datetime, say: Callable[[str], None]) -> None:
    """Say and store what became of the run.

    Raises:
        Refused: not all went well.
    """
    for line, key in sorted(report.warned.items(), key=lambda x: (x[1], x[0]))[:SHOWN]:
        say(f"warning: {key}: {line}")
    if (more := len(report.warned) - SHOWN) > 0:
        say(f"warning: and {more} more, see the report")
    failed = sorted(report.failed.items())
    bad = [*(r.why for r in report.refused), *(f"{k}: {w}" for k, w in failed)]
    for line in bad[:SHOWN]:
        say(f"failed: {' '.join(line.split())}")
    if len(bad) > SHOWN:
        say(f"failed: and {len(bad) - SHOWN} more, see the report")
    print(report.line())
    path = store.path / "runs" / f"{started:%Y%m%dT%H%M%S}.{started.microsecond:06d}.json"
    try:
        write_json(path, {"started": started.isoformat(), **dataclasses.asdict(report)})
    except (Refused, OSError):
        report.stopped = report.stopped or f"{path}: cannot be written"
    if report.stopped:
        raise Refused(
            f"{report.stopped}; stopped after {report.done} units, all whole: run the same command "
            "again to go on"
        )
    if bad:
        raise Refused(f"{len(bad)} units failed; the others are in {store.path}, see {path.name}")
