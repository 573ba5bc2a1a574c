"""``--filter`` arguments to search conditions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from ray_app.errors import InvalidFilter

if TYPE_CHECKING:
    from ray_app.store.port import Condition, Scalar

_FILTER: Final = re.compile(r"\s*([^\s<>=!]+)\s*(>=|<=|!=|=|<|>)(.*)", re.DOTALL)
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_RANGES: Final = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_HINT: Final = "Write field=value, or field>=value, >, <= or <; several filters must all hold."


def parse_filters(arguments: Iterable[str]) -> list[Condition]:
    """The conditions of ``field=value`` and ``field>=value`` arguments; all must hold.

    A command line does not say what type a value has. An unquoted number or ``true`` therefore
    equals both the number or boolean and the text that looks like it; ``field="5"`` with the
    quotes is the text alone. A bound is a number when it looks like one, else text (a time).

    Raises:
        InvalidFilter: an argument is of another form.
    """
    return [_parse(argument) for argument in arguments]


def _parse(argument: str) -> Condition:
    from ray_app.store.port import Condition

    found = _FILTER.fullmatch(argument)
    if found is None:
        raise InvalidFilter(f"{argument!r} is not a filter.", hint=_HINT)
    field, operator, value = found[1], found[2], found[3].strip()
    if operator == "!=":
        raise InvalidFilter(f"{argument!r} asks for what is not so, which filters cannot.", hint=_HINT)
    if not value:
        raise InvalidFilter(f"{argument!r} has no value.", hint=f'{_HINT} The empty text is field="".')
    typed = _typed(value)
    if operator == "=":
        text = _unquoted(value)
        return Condition(field, "eq", text) if typed is None else Condition(field, "in", [typed, value])
    if isinstance(typed, bool):
        raise InvalidFilter(f"{argument!r} compares by size with {value}.", hint="Use a number or a time.")
    return Condition(field, _RANGES[operator], _unquoted(value) if typed is None else typed)


def _typed(value: str) -> Scalar | None:
    """The number or boolean that ``value`` looks like, or None."""
    if value in ("true", "false"):
        return value == "true"
    number = _NUMBER.fullmatch(value)
    if number is None:
        return None
    return float(value) if number[1] or number[2] else int(value)


def _unquoted(value: str) -> str:
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value
