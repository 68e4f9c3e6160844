"""The ``terrella`` command: the same verbs for every task.

Help imports neither torch nor xarray: tasks are listed by folder, and a verb's work is imported
when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from terrella import registry
from terrella.archive.choices import Scale
from terrella.flags import with_flags
from terrella.task import Judging
from terrella.types import Refused

NO_ANSWER: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def _by_task(verb: str) -> type[TyperGroup]:
    """A group whose subcommands are the tasks: ``terrella VERB TASK``."""

    class Group(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return registry.names()

        def get_command(self, ctx: Any, name: str) -> Any:
            return _command(verb, name) if name in registry.names() else None

    return Group


class _Main(TyperGroup):
    """The verbs of the house, and ``terrella TASK VERB`` for tasks with verbs of their own."""

    def get_command(self, ctx: Any, name: str) -> Any:
        return super().get_command(ctx, name) or _own_verbs(name)


app = typer.Typer(
    cls=_Main,
    context_settings=NO_ANSWER,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # plain: drawing boxes would take longer than all else
    help="""Products from raw geospace data with trained networks.

    Start with `terrella demo`, then `terrella run precipitation FILE.nc --out out/`.
    A task may have verbs of its own: `terrella TASK --help`.""",
)


def _group(verb: str, summary: str) -> None:
    app.add_typer(
        typer.Typer(cls=_by_task(verb), help=summary, no_args_is_help=True,
                    context_settings=NO_ANSWER),
        name=verb,
    )  # fmt: skip


_group("run", "Turn files into products.")
_group("train", "Train a network from a recipe file.")
_group("evaluate", "Score a network beside its baselines.")
_group("simulate", "Write a simulated scene with its truth.")


def _command(verb: str, name: str) -> Any:
    from terrella import learning, verbs

    task = registry.get(name)
    if verb == "run":
        inner = with_flags(verbs.run(task), Scale, "scale", "Archives and clusters")
        function = with_flags(
            inner, task.options, "options", f"What {name} may choose", optional=True
        )
    elif verb == "evaluate":
        inner = with_flags(
            learning.evaluate(task),
            task.options,
            "options",
            f"What {name} may choose",
            optional=True,
        )
        inner = with_flags(inner, task.evaluation, "evaluation", "What it is judged on")
        function = with_flags(inner, Judging, "judging", "How it is judged")
    elif verb == "simulate":
        function = with_flags(verbs.simulate(task), task.scene, "scene", "The scene")
    else:
        function = learning.train(task)
    return _click(function, name)


def _click(function: Callable[..., Any], name: str) -> Any:
    one = typer.Typer(add_completion=False, pretty_exceptions_enable=False,
                      rich_markup_mode="rich")  # fmt: skip
    one.command(name=name, context_settings=NO_ANSWER)(function)
    return typer.main.get_command(one)


def _own_verbs(name: str) -> Any:
    if name not in registry.names():
        return None
    task = registry.get(name)
    group = typer.Typer(
        help=task.summary, no_args_is_help=True, context_settings=NO_ANSWER,
        pretty_exceptions_enable=False, rich_markup_mode="rich",
    )  # fmt: skip
    for verb, function in task.commands.items():
        group.command(name=verb)(getattr(function, "target", function))
    group.callback()(lambda: None)  # a group of one stays a group
    return typer.main.get_command(group)


@app.command()
def demo(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK ...]", help="all if none is named")
    ] = None,
    out: Annotated[str, typer.Option(help="folder for figures and the report")] = "out/demo",
) -> None:
    """Run tasks on simulated scenes, offline.

    Each scene is simulated, written, read back, run with the packaged weights and drawn.

    Example: `terrella demo precipitation --out out/`
    """
    from terrella import verbs

    verbs.demo(tasks or registry.names(), out)


@app.command()
def bench(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK ...]", help="all if none is named")
    ] = None,
    out: Annotated[str, typer.Option(help="folder for bench.json and evaluations")] = "out/bench",
    speed: Annotated[bool, typer.Option(help="measure throughput, start-up and memory")] = True,
    skill: Annotated[bool, typer.Option(help="evaluate briefly on simulated data")] = True,
    results: Annotated[str, typer.Option(help="page to write (docs/results.md)")] = "",
    readme: Annotated[str, typer.Option(help="page whose table of results to renew")] = "",
) -> None:
    """Measure speed, memory and skill of every task on simulated data; one table, and JSON.

    Example: `terrella bench precipitation geoflux --no-skill`
    """
    from terrella import verbs

    verbs.bench(tasks or registry.names(), out, speed, skill, results, readme)


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(metavar="[TASK]", help="show its card")] = None,
) -> None:
    """List tasks, or print one's card.

    A card tells inputs, options, weights, DOI, licence and traps.
    """
    from terrella import verbs

    verbs.show_tasks(name)


@app.command()
def catalogue(
    store: Annotated[str, typer.Argument(help="folder that `run ... --workers` made")],
    out: Annotated[str, typer.Option(help="file: .csv, .json, .hapi or .vot")] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="label=REP,CSS or L=4:6 or time=2013-01-01/2013-02-01")
    ] = None,
) -> None:
    """Count the events of a store, or write them to a file.

    Ranges hold their start and not their end. Without --out it counts.

    Example: `terrella catalogue STORE --where label=REP --where L=4:6 --out rep.csv`
    """
    from terrella import open_catalogue
    from terrella.archive.catalogue import parse

    found = open_catalogue(store, **parse(where or []))
    print(found.write(out) if out else f"{found.count()} events in {found.units} units")


weights = typer.Typer(
    help="List, show, import, fetch, export weights.",
    no_args_is_help=True,
    context_settings=NO_ANSWER,
)
app.add_typer(weights, name="weights")


@weights.command("list")
def weights_list(
    task: Annotated[str | None, typer.Argument(help="of this task only")] = None,
) -> None:
    """List packaged and imported weights."""
    from terrella import verbs

    verbs.list_weights([task] if task else registry.names())


@weights.command("show")
def weights_show(task: str, name: Annotated[str, typer.Argument()] = "default") -> None:
    """Print the card of weights: data, split, scores with intervals, hash, licence, DOI."""
    from terrella import verbs

    verbs.show_weights(task, name)


@weights.command("import")
def weights_import(
    task: str,
    paths: Annotated[list[str], typer.Argument(help="the published file or files")],
    name: Annotated[str, typer.Option(help="what --weights will call it")],
) -> None:
    """Convert published weights into this machine's weight folder.

    Example: `terrella weights import precipitation capannolo2022_weights.npz --name capannolo2022`
    """
    from terrella import verbs

    verbs.import_weights(task, paths, name)


@weights.command("certify")
def weights_certify(
    task: str,
    name: Annotated[str, typer.Argument(help="weight file, or name of imported weights")],
    certificate: Annotated[str, typer.Argument(help="certificate.json of `terrella evaluate`")],
) -> None:
    """Write what an evaluation showed, be it yes or no, into the card of weights.

    Every product of those weights then carries the verdict. A certificate of other weights, of
    another recipe, or from a split that leaks is refused.

    Example: `terrella weights certify precursor build/w.safetensors out/certificate.json`
    """
    from terrella import learning

    learning.certify_weights(task, name, certificate)


@weights.command("fetch")
def weights_fetch(
    task: str,
    name: str,
    url: Annotated[str, typer.Option(help="where from; the card's if not given")] = "",
    sha256: Annotated[str, typer.Option(help="hash it must have; the card's if not given")] = "",
) -> None:
    """Download weights whose card names a URL and a hash; any other bytes are refused."""
    from terrella import verbs

    verbs.fetch_weights(task, name, url, sha256)


@weights.command("export")
def weights_export(task: str, name: str, out: Annotated[str, typer.Option(help="folder")]) -> None:
    """Copy weights and their card to a folder."""
    from terrella import verbs

    verbs.export_weights(task, name, out)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a refusal is one line on stderr and exit 1."""
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="terrella", standalone_mode=True)
        sys.exit(code or 0)
    except Refused as refusal:
        _fail(str(refusal))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")


def _fail(line: str) -> None:
    print(f"terrella: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(1)
