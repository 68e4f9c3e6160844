"""What the verbs of the command do, for any task."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from terrella import registry
from terrella.archive.choices import Scale, wants_store
from terrella.task import Model, Task
from terrella.types import Job, Opening, Product, Refusal, Refused

TOLD = 0.01  # share of novel instants that a user is told of

Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT ...", help="files, folders, or 'quoted/**/*' patterns"),
]
MaybeInputs = Annotated[
    list[Path] | None, typer.Argument(metavar="[INPUT ...]", help="files; simulated scenes if none")
]
Out = Annotated[Path, typer.Option(help="folder for results")]
WeightsOption = Annotated[str, typer.Option(help="a name, or a .safetensors file with its card")]


def say(line: str) -> None:
    """Tell the user something that is not a result."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(line, markup=False)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show warnings as single lines, each once."""
    seen: set[str] = set()

    def show(message: Any, *_: Any, **__: Any) -> None:
        if str(message) not in seen:
            seen.add(str(message))
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


def progress(items: list[Any], what: str) -> Iterable[Any]:
    """A bar on a terminal, nothing in a pipe."""
    if len(items) < 2 or not sys.stderr.isatty():
        return items
    from rich.progress import track

    return track(items, what, console=Console(stderr=True))


def run(task: Task) -> Callable[..., None]:
    """``terrella run TASK``."""

    def command(
        inputs: Inputs,
        out: Out,
        weights: WeightsOption = "default",
        start: Annotated[str, typer.Option(help="first instant, ISO 8601 UTC")] = "",
        stop: Annotated[str, typer.Option(help="the instant after the last")] = "",
        plot: Annotated[bool, typer.Option(help="draw figures")] = True,
        options: dict[str, Any] | None = None,
        scale: Any = None,
    ) -> None:
        from terrella import files
        from terrella.weights import load

        with warnings_as_lines():
            if wants_store(scale, out):
                fill(task, inputs, out, weights, (start, stop), options or {}, scale)
                return
            model = load(task.name, weights)
            chosen = model.options(**(options or {}))
            opened = cut(task.open(files.expand(inputs), chosen), start, stop)
            finish(task, model, chosen, opened, out, plot)

    command.__doc__ = f"""{task.summary}.

    Example: `terrella run {task.name} FILE ... --out out/`

    An archive: `terrella run {task.name} 'archive/**/*' --out STORE --workers 4`"""
    return command


def fill(
    task: Task, inputs: list[Path], out: Path, weights: str, span: tuple[str, str],
    chosen: dict[str, Any], scale: Scale,
) -> None:  # fmt: skip
    """Bring a store up to date with an archive: only what is missing or changed is done."""
    from terrella import files
    from terrella.archive import cluster

    cluster.need()
    given = files.expand(inputs)
    if scale.workers > 1 and not (scale.scheduler or scale.dry_run):
        cluster.prepare()
    from terrella.archive import runner
    from terrella.sources.base import instant
    from terrella.weights import load, locate

    model = load(task.name, weights)
    options = model.options(**chosen)
    lo, hi = (
        instant(t, f"--{n}") if t else None for n, t in zip(("start", "stop"), span, strict=True)
    )
    opened = task.open(given, options)
    path = locate(task.name, weights)
    runner.run(model, path, options, opened, (lo, hi), out, scale, say)


def finish(
    task: Task, model: Model, options: Any, opened: Opening, out: Path, plot: bool
) -> list[Product]:
    """Run every job, write its products, and say what was left out.

    Raises:
        Refused: any input was refused; what could be made has been made.
    """
    from terrella import product as products
    from terrella import run as run_job

    refused = list(opened.refused)
    made: list[str] = []
    novelty: list[dict[str, Any]] = []
    last: list[Product] = []  # of the last stem
    pieces = Counter(job.stem for job in opened.jobs)
    steps = iter(progress(list(opened.jobs), f"{task.name}"))
    for stem, jobs in groupby(steps, key=lambda job: job.stem):
        # One job is written as it is; more of one stem grow one file along time.
        with products.Stream(
            out, stem, task.name, grows=pieces[stem] > 1, own_folder=len(pieces) > 1
        ) as stream:
            for job in jobs:
                try:
                    result = run_job(model, job.source, job.start, job.stop, options)
                    attrs = products.history(task.name, dataclasses.asdict(model.card))
                    result = dataclasses.replace(result, series=result.series.assign_attrs(attrs))
                    stream.add(result)
                    last = [result]
                    novelty.append({"job": job.stem, "start": str(job.start),
                                    **result.provenance.get("novelty", {})})  # fmt: skip
                    _report(job, result)
                except Refused as refusal:
                    place = str(job.files[0]) if job.files else job.stem
                    refused.append(Refusal(place, str(refusal)))
            written = stream.close()
        if stream.pieces > 1:
            last = [products.read(written)]
        if plot and written:
            written = [*written, *task.plot(last[0], out / f"{stem}.{task.name}")]
        made += [str(p) for p in written]
    products.write_record(
        out,
        sys.argv,
        inputs=[p for job in opened.jobs for p in job.files],
        task=task.name,
        weights={"name": model.card.name, "sha256": model.card.sha256},
        verdict=model.card.verdict,
        options=dataclasses.asdict(options),
        novelty=novelty,
        made=made,
        refused=[dataclasses.asdict(r) for r in refused],
    )
    if refused:
        if len(refused) == 1:
            raise Refused(_with_place(refused[0]))
        for each in refused:
            say(f"refused: {' '.join(_with_place(each).split())}")
        raise Refused(f"{len(refused)} of {len(opened.jobs) + len(opened.refused)} inputs refused")
    if not opened.jobs:
        raise Refused("nothing to run: the inputs hold no data in the span asked for")
    return last


def cut(opened: Opening, start: str, stop: str) -> Opening:
    """Keep the part of each job that lies in [start, stop)."""
    import numpy as np

    from terrella.sources.base import instant

    lo = instant(start, "--start") if start else None
    hi = instant(stop, "--stop") if stop else None
    if lo is not None and hi is not None and lo >= hi:
        raise Refused(f"--start {start} is not before --stop {stop}")
    jobs: list[Job] = []
    for job in opened.jobs:
        first = job.start if lo is None else np.maximum(job.start, lo)
        last = job.stop if hi is None else np.minimum(job.stop, hi)
        if first < last:
            jobs.append(dataclasses.replace(job, start=first, stop=last))
    if opened.jobs and not jobs:
        has = f"{opened.jobs[0].start} to {opened.jobs[-1].stop}"
        raise Refused(f"nothing between {start or '-'} and {stop or '-'}: the inputs have {has}")
    return dataclasses.replace(opened, jobs=tuple(jobs))


def simulate(task: Task) -> Callable[..., None]:
    """``terrella simulate TASK``."""

    def command(
        out: Annotated[Path, typer.Option(help="file (or stem) to write")],
        seed: Annotated[int, typer.Option(help="of everything random")] = 0,
        hours: Annotated[float, typer.Option(help="length of the scene", min=0.01)] = task.hours,
        scene: Any = None,
    ) -> None:
        """Write a simulated scene, with its truth, in the task's native file format."""
        settings = dataclasses.asdict(scene)
        for path in task.export(task.simulate(seed=seed, hours=hours, **settings), out):
            print(path)

    return command


def demo(names: list[str], out: str) -> None:
    """Simulate, export, read back, run and draw each task; one report."""
    from terrella.report import report
    from terrella.weights import load

    folder = Path(out)
    chapters = []
    with warnings_as_lines():
        for name in names:
            task = registry.get(name)
            say(f"{name}: simulating")
            scene = task.export(task.simulate(**task.demo), folder / name / "input" / "scene.nc")
            model = load(name)
            options = model.options()
            opened = task.open(scene, options)
            say(f"{name}: running with weights {model.card.name!r}")
            results = finish(task, model, options, opened, folder / name, plot=True)
            chapters.append((task, model.card, folder / name, results[-1]))
    print(report(chapters, folder))


def bench(names: list[str], out: str, speed: bool, skill: bool, results: str, readme: str) -> None:
    """Measure tasks; print one table, write JSON, and the pages asked for."""
    import json

    from terrella import bench as benches
    from terrella import files
    from terrella import results as pages

    folder = Path(out)
    found = benches.bench(names, folder, speed=speed, skill=skill, note=say)
    with files.whole(folder / "bench.json") as scratch:
        scratch.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(pages.measured(found))
    cards = pages.packaged()
    if results:
        with files.whole(Path(results)) as scratch:
            scratch.write_text(pages.page(cards, found), "utf-8")
        print(results)
    if readme:
        pages.into(Path(readme), pages.overview(cards))
        print(readme)
    print(folder / "bench.json")


def show_tasks(name: str | None) -> None:
    """List tasks, or print one's card."""
    console = Console(highlight=False, soft_wrap=True)
    if name is None:
        table = Table("task", "summary", box=None)
        for known in registry.names():
            table.add_row(known, registry.get(known).summary)
        console.print(table)
        return
    task = registry.get(name)
    card = registry.card(name)
    console.print(f"{name}: {card.get('title', task.summary)}", style="bold", markup=False)
    for key in ("method", "doi", "input", "product", "licence"):
        if key in card:
            value = card[key]
            text = ", ".join(value) if isinstance(value, list) else value
            console.print(f"  {key}: {text}", markup=False)
    console.print("inputs", style="bold")
    for v in task.inputs:
        note = "" if v.required else " (used when present)"
        console.print(f"  {v.name} [{v.units}] {v.long_name}{note}", markup=False)
    console.print("options", style="bold")
    for field in dataclasses.fields(task.options):
        flag = field.name.replace("_", "-")
        help_ = field.metadata.get("help", "")
        console.print(f"  --{flag} (default {field.default}): {help_}", markup=False)
    traps = card.get("traps", {})
    if isinstance(traps, dict) and traps:
        console.print("traps", style="bold")
        for trap, text in traps.items():
            console.print(f"  {trap}: {text}", markup=False)
    console.print("weights", style="bold")
    list_weights([name])


def list_weights(names: list[str]) -> None:
    """One line a weight file."""
    from terrella.weights import cards

    table = Table("task", "name", "parameters", "sha256", "summary", box=None)
    for name in names:
        registry.get(name)
        for card in cards(name):
            count = f"{card.parameters:,}"
            table.add_row(card.task, card.name, count, card.sha256[:12], card.summary)
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def show_weights(task: str, name: str) -> None:
    """Print a card whole."""
    from terrella.weights import locate, read_card

    registry.get(task)
    path = locate(task, name)
    card = read_card(path)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{path}", markup=False)
    console.print(f"verdict: {card.verdict}", style="bold", markup=False)
    for key, value in dataclasses.asdict(card).items():
        if key not in ("scores", "inputs", "certificate") and value not in ("", None, (), {}):
            console.print(f"{key}: {value}", markup=False)
    for gain in card.certificate.get("gains", ()):
        lead = f", lead {gain['lead']}" if gain["lead"] != "" else ""
        console.print(
            f"gain in {gain['metric']}{lead}: {gain['value']:.4g} [{gain['lo']:.4g}, "
            f"{gain['hi']:.4g}] over {gain['baseline']} ({gain['kind']}), "
            f"{'shown' if gain['shown'] else 'not shown'}", markup=False,
        )  # fmt: skip
    for limit in card.certificate.get("limits", ()):
        console.print(f"limit: {limit}", markup=False)
    if card.scores:
        import pandas as pd

        from terrella import learning

        first = card.scores[0]
        learning.show_scores(pd.DataFrame(list(card.scores)), f"{first['data']}; {first['split']}")


def import_weights(task: str, paths: list[str], name: str) -> None:
    """Import published weights."""
    from terrella.weights import import_published

    print(import_published(task, [Path(p) for p in paths], name))


def fetch_weights(task: str, name: str, url: str, sha256: str) -> None:
    """Download weights."""
    from terrella.weights import fetch

    print(fetch(task, name, url, sha256))


def export_weights(task: str, name: str, out: str) -> None:
    """Copy a weight file and its card."""
    from terrella import files
    from terrella.weights import locate

    path = locate(task, name)
    for source in (path, path.with_suffix(".toml")):
        with files.whole(Path(out) / source.name) as scratch:
            shutil.copyfile(source, scratch)
        print(Path(out) / source.name)


def _with_place(refusal: Refusal) -> str:
    known = refusal.what in refusal.why or Path(refusal.what).name in refusal.why
    return refusal.why if known else f"{refusal.what}: {refusal.why}"


def _report(job: Job, result: Product) -> None:
    counts = ""
    if result.events is not None and "label" in result.events:
        found = result.events["label"].value_counts().sort_index()
        counts = ", ".join(f"{n} {k}" for k, n in found.items()) or "no events"
        if "flags" in result.events and len(result.events):
            counts += f" ({int(result.events['flags'].eq('').sum())} without flags)"
    print(f"{job.stem}: {counts or 'done'}{_unlike(result)}")


def _unlike(result: Product) -> str:
    """What a user is told of instants that the network was never shown the like of."""
    known = result.provenance.get("novelty", {})
    if known.get("share", 0.0) < TOLD:
        return ""
    beyond = known["beyond_range"]
    most = max(beyond, key=lambda k: beyond[k]) if beyond else ""
    why = f", most often by {most}" if most else ""
    return f"; {known['share']:.0%} of instants are unlike the training rows{why}"
