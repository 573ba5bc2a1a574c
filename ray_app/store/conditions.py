"""A user's filter conditions: checked, and compiled to clauses on the columns under ``d``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

from ray_app.errors import InputError, InvalidFilter
from ray_app.store import payload
from ray_app.store.filters import AllOf, AnyOf, Bounds, Clause, Match
from ray_app.store.port import Condition

#: Values of one "in", and clauses of one filter: within the limits the server collections are made with.
MAX_VALUES: Final = 1000
MAX_CLAUSES: Final = 200
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BOUNDS: Final = ("gt", "gte", "lt", "lte")
_INT64: Final = range(-(2**63), 2**63)


def check_field(name: str) -> str:
    """The payload path of a user's column.

    Raises:
        InvalidFilter: the name is not letters, digits and underscores. Dots and brackets are paths
            to the engine.
    """
    if not isinstance(name, str) or not _FIELD.fullmatch(name):
        raise InvalidFilter(
            f"{name!r} is not a payload column that can be filtered on.",
            hint="Names are letters, digits and underscores, not starting with a digit.",
        )
    return f"{payload.DATA}.{name}"


def compile_conditions(conditions: Sequence[Condition]) -> AllOf | None:
    """The user's conditions as one nested clause; None when there are none.

    Numbers compare as numbers (3 equals 3.0), as they do in Postgres. A list column meets a
    condition when one of its elements does.

    Raises:
        InvalidFilter: an unknown operator, a field name or a value that cannot be compared.
    """
    clauses = tuple(_compile(condition) for condition in conditions)
    if sum(map(_size, clauses)) > MAX_CLAUSES:
        raise InvalidFilter(f"The filter has more than {MAX_CLAUSES} conditions.", hint="Use fewer values.")
    return AllOf(clauses) if clauses else None


def _compile(condition: Condition) -> Clause:
    key = check_field(condition.field)
    if condition.op == "eq":
        return _equal(key, condition.value)
    if condition.op == "in":
        return _one_of(key, condition.value)
    if condition.op in _BOUNDS:
        return Bounds(key, ((condition.op, _bound(key, condition.value)),))
    raise InvalidFilter(f"{condition.op!r} is not a filter operator.", hint="Use eq, in, gt, gte, lt or lte.")


def _equal(key: str, value: Any) -> Clause:
    if isinstance(value, bool):
        return Match(key, (value,))
    if isinstance(value, str):
        return Match(key, (payload.clean_text(value),))
    if isinstance(value, int) and abs(value) > payload.MAX_VERSION:
        if value not in _INT64:
            raise InvalidFilter(f"{_shown(key)}: integers past 64 bits cannot be compared.")
        return Match(key, (value,))
    if isinstance(value, int | float):
        number = _finite(key, value)
        return Bounds(key, (("gte", number), ("lte", number)))
    raise InvalidFilter(
        f"{_shown(key)} cannot equal a {type(value).__name__}.",
        hint='Compare with text, a number or a boolean; use "in" for a list.',
    )


def _one_of(key: str, values: Any) -> Clause:
    if not isinstance(values, list | tuple | set | frozenset) or not 1 <= len(values) <= MAX_VALUES:
        raise InvalidFilter(f'{_shown(key)}: "in" needs a list of 1 to {MAX_VALUES} values.')
    texts = tuple(payload.clean_text(value) for value in values if isinstance(value, str))
    others = tuple(_equal(key, value) for value in values if not isinstance(value, str))
    clauses: tuple[Clause, ...] = (*((Match(key, texts),) if texts else ()), *others)
    return clauses[0] if len(clauses) == 1 else AnyOf(clauses)


def _bound(key: str, value: Any) -> float | str:
    if isinstance(value, str | date):
        try:
            return _rfc3339(datetime.fromisoformat(value) if isinstance(value, str) else value)
        except (ValueError, OverflowError):
            raise InvalidFilter(
                f"{_shown(key)}: text has no order here, and {str(value)!r} is not an ISO 8601 time.",
                hint="Bounds are numbers or times such as 2026-11-23T10:00:00Z.",
            ) from None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(key, value)
    raise InvalidFilter(f"{_shown(key)} cannot be bounded by a {type(value).__name__}.")


def _rfc3339(value: date) -> str:
    """In UTC; a time without a zone is UTC already, as the engine reads stored ones."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()


def _finite(key: str, value: float) -> float:
    if not math.isfinite(value) or (isinstance(value, int) and abs(value) > payload.MAX_VERSION):
        raise InvalidFilter(f"{_shown(key)}: {value} cannot be compared exactly.", hint="Stay below 2**53.")
    return float(value)


def _size(clause: Clause) -> int:
    return sum(map(_size, clause.clauses)) if isinstance(clause, AllOf | AnyOf) else 1


def _shown(key: str) -> str:
    return key.removeprefix(f"{payload.DATA}.")


def check_fields(names: Sequence[str]) -> list[str]:
    """The payload paths of columns.

    Raises:
        InputError: a column could never be filtered on.
    """
    try:
        return [check_field(name) for name in names]
    except InvalidFilter as error:
        raise InputError(error.message, hint=f"Leave it out of the table's payload. {error.hint}") from None
