"""What is wrong with a request's body or parameters, in one sentence that repeats none of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: Characters of a name that the caller made up and that is repeated to it.
_LONGEST_NAME: Final = 64


@dataclass(frozen=True)
class Problem:
    """The first thing that is wrong; ``param`` names it as ``records[3].id``."""

    message: str
    param: str | None
    code: str | None


def describe(found: Sequence[Mapping[str, Any]]) -> Problem:
    """The first of pydantic's error records as a problem."""
    first = found[0]
    kind, param = str(first["type"]), _path(first["loc"])
    if kind == "json_invalid":
        return Problem("The body is not valid JSON.", None, None)
    if param is None:
        return Problem(
            'The body must be a JSON object, sent with "content-type: application/json".', None, None
        )
    if kind == "missing":
        return Problem(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if kind == "extra_forbidden":
        return Problem(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
    code = "invalid_type" if kind.endswith(("_type", "_parsing")) else "invalid_value"
    # A validator's own sentence comes with a prefix; its text is ours and repeats no input.
    reason = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    return Problem(f"Invalid value for '{param}': {reason}.", param, code)


def _path(place: Sequence[str | int]) -> str | None:
    """``("body", "records", 3, "id")`` as ``records[3].id``; None for the body as a whole."""
    path = ""
    for step in place[1:]:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            name = step if len(step) <= _LONGEST_NAME else f"{step[:_LONGEST_NAME]}…"
            path += f".{name}" if path else name
    return path or None
