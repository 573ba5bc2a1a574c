"""Answers as typed values. Fields this client does not know are passed over, so newer servers can be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from ray_app.client.errors import BadAnswer
from ray_app.client.steps import Operation, Patience, Request, call_json

T = TypeVar("T")

#: Made when first used, for making one takes milliseconds.
_ADAPTERS: Final[dict[type[Any], TypeAdapter[Any]]] = {}


def read(kind: type[T], answer: object) -> T:
    """``answer`` as a dataclass.

    Raises:
        BadAnswer: a field is missing or of another kind.
    """
    try:
        value: T = _adapter(kind).validate_python(answer)
    except ValidationError as error:
        places = sorted({".".join(str(step) for step in problem["loc"]) for problem in error.errors()})
    else:
        return value
    # Outside of the handler: the error it came from quotes the answer, which may hold a new key.
    raise BadAnswer(
        f"The answer cannot be read as {kind.__name__}: {', '.join(places)}.",
        hint="Is the client older than the server?",
    )


def ask(patience: Patience, kind: type[T], request: Request) -> Operation[T]:
    """Send ``request`` and read the answer. Raises as ``call_json`` and ``read``."""
    answer = yield from call_json(patience, request)
    return read(kind, answer)


def ask_list(patience: Patience, kind: type[T], name: str, request: Request) -> Operation[list[T]]:
    """Send ``request`` and read the list that is the answer's field ``name``."""
    answer: Mapping[str, Any] = yield from call_json(patience, request)
    items = answer.get(name)
    if not isinstance(items, list):
        raise BadAnswer(f"The answer has no list {name!r}.")
    return [read(kind, item) for item in items]


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
