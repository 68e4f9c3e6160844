"""Dataclasses as command-line flags: a task's options are written once."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer


def with_flags(
    function: Callable[..., Any], group: type, keyword: str, panel: str, *, optional: bool = False
) -> Callable[..., Any]:
    """Replace one keyword of a command by the fields of a dataclass.

    Args:
        function: a command that takes ``keyword``.
        group: frozen dataclass whose fields become flags; the field's metadata holds ``help``.
        keyword: the parameter that receives ``group(...)``, or a dict of what was given.
        panel: title of these flags in the help.
        optional: leave out flags that were not given, and pass a dict: the weights' card, or a
            file, decides the rest.

    Returns:
        A function whose signature typer can read.
    """
    hints = typing.get_type_hints(group)
    signature = inspect.signature(function, eval_str=True)
    # A name that another group has is told apart by this one's: --draws, --judging-draws.
    called = {f.name: f"{keyword}_{f.name}" if f.name in signature.parameters else f.name
              for f in dataclasses.fields(group)}  # fmt: skip
    extra = []
    for field in dataclasses.fields(group):
        kind = hints[field.name]
        flag = f"--{called[field.name].replace('_', '-')}"
        names = (f"{flag}/--no-{flag[2:]}",) if kind is bool else (flag,)
        default = None if optional else field.default
        text = field.metadata.get("help", "")
        if optional and field.default not in (None, ""):
            text = f"{text} [default: {field.default}]"
        note = typer.Option(*names, help=text, rich_help_panel=panel)
        extra.append(
            inspect.Parameter(
                called[field.name],
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[kind | None if optional else kind, note],
            )
        )

    def command(**given: Any) -> Any:
        chosen = {field: given.pop(name) for field, name in called.items()}
        if optional:
            chosen = {k: v for k, v in chosen.items() if v is not None}
        return function(**given, **{keyword: chosen if optional else group(**chosen)})

    kept = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for n, p in signature.parameters.items()
        if n != keyword
    ]
    parameters = [*kept, *extra]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__, command.__name__ = function.__doc__, function.__name__
    return command
