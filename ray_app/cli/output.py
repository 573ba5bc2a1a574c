"""What a command prints: one JSON document, or text for people; errors and progress go to standard error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final, TypeVar
from uuid import UUID

import typer

from ray_app.errors import RowbeamError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Value = TypeVar("Value")

#: Exit codes: done; the operation, a job or a check failed; the command line is wrong; a job stopped at its
#: budget; stopped by Ctrl-C.
OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
AT_BUDGET: Final = 3
INTERRUPTED: Final = 130

#: Columns of text when it does not go to a terminal, whose width would be known.
_PIPE_WIDTH: Final = 120
#: Control characters and marks that turn the direction of text: a row must not drive the terminal.
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")

#: The option every command has.
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def emit(
    value: Value, render: Callable[[Value], RenderableType], *, as_json: bool, name: str | None = None
) -> None:
    """Print ``value`` to standard output: as ``render`` shows it, or as JSON, a list under ``name``."""
    if as_json:
        data = to_json(value)
        emit_json({name: data} if name else data)
    else:
        show(render(value))


def emit_json(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(to_json(document), indent=2) + "\n")


def show(renderable: RenderableType) -> None:
    """Print text for people to standard output."""
    if sys.stdout.isatty():
        console().print(renderable)
        return
    # rich fills lines with blanks up to the width, which only a terminal needs.
    page = console()
    with page.capture() as captured:
        page.print(renderable)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def note(text: str, *, as_json: bool = False) -> None:
    """A line for people: beside the result, or on standard error where the result is JSON."""
    console(sys.stderr if as_json else sys.stdout).print(text, markup=False, soft_wrap=True)


def console(stream: IO[str] | None = None) -> Console:
    """A console on ``stream``, standard output unless told."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False)


def plain(text: str) -> str:
    """``text`` on one line, without what would move the cursor, colour or reorder a terminal."""
    return _CONTROLS.sub(" ", text).strip()


def to_json(value: Any) -> Any:
    """``value`` as JSON data: dataclasses by their fields and public properties, amounts as numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        names = [field.name for field in fields(value)]
        names += [name for name, member in vars(kind).items() if isinstance(member, property)]
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case Decimal():
            return float(value)
        case date():
            return value.isoformat()
        case UUID() | Path():
            return str(value)
        case _:
            return value


def show_error(error: RowbeamError, *, as_json: bool) -> None:
    """Print an error of our tree: red with its hint, or as the JSON document of the command."""
    extra = {"job_id": error.job_id} if hasattr(error, "job_id") else {}
    show_fault(type(error).__name__, error.message, error.hint, as_json=as_json, **extra)


def show_fault(kind: str, message: str, hint: str | None, *, as_json: bool, **extra: str) -> None:
    if as_json:
        emit_json({"error": {"type": kind, "message": message, "hint": hint, **extra}})
        return
    from rich.text import Text

    stderr = console(sys.stderr)
    stderr.print(Text.assemble(("Error: ", "bold red"), (_lines(message), "red")), soft_wrap=True)
    if hint:
        stderr.print(Text.assemble(("Hint: ", "bold"), _lines(hint)), soft_wrap=True)


def _lines(text: str) -> str:
    """Line ends stay; an error may list things."""
    return "\n".join(plain(line) for line in text.splitlines())
