"""Rows pushed as JSON, with the values their table would give them.

Postgres converts them itself, by the types of the table's columns: a text rendered from a pushed row
and its hash are then those of the same row read by a job, and so is the form of its key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, Integer, Select, column, func, literal, select
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from ray_app.db.source import SourceRow, SourceTable
from ray_app.errors import InvalidRecord

#: Characters of a record's id.
MAX_ID_CHARS: Final = 512
#: Lists and objects inside each other, in one column's value.
MAX_DEPTH: Final = 16
_PLACE: Final = "place"


def cast_rows(engine: Engine, source: SourceTable, rows: Sequence[Mapping[str, Any]]) -> list[SourceRow]:
    """Each of ``rows`` as the table would give it back, in order; fields it has no column for are left out.

    A time must be ISO 8601, and is UTC when it names no zone. NULs are dropped from texts, and half
    surrogate pairs replaced: Postgres stores neither.

    Raises:
        InvalidRecord: a row has no key, repeats one, or holds a value that does not fit its column. The
            error's ``param`` is ``records[<place>].<column>``.
        DatabaseUnavailable: Postgres cannot be reached.
    """
    kinds = _kinds(source)
    cleaned = [_clean_row(place, row, source, kinds) for place, row in enumerate(rows)]
    try:
        found = _cast(engine, kinds, cleaned)
    except DBAPIError as error:
        if not _is_misfit(error):
            raise
        raise _misfit(engine, kinds, cleaned, 0) from None
    return _keyed(found, source.spec.primary_key)


def cast_id(engine: Engine, source: SourceTable, record_id: str) -> str | None:
    """``record_id`` as the table would spell it; None when its key column cannot hold it."""
    key = source.spec.primary_key
    kinds = {key: source.columns[key]}
    try:
        return str(_cast(engine, kinds, [{key: record_id}])[0][key])
    except DBAPIError as error:
        if not _is_misfit(error):
            raise
        return None


def _kinds(source: SourceTable) -> dict[str, sqltypes.TypeEngine[Any]]:
    kinds: dict[str, sqltypes.TypeEngine[Any]] = {
        name: sqltypes.Text() if isinstance(kind, sqltypes.NullType) else kind
        for name, kind in source.columns.items()
    }
    updated = source.spec.updated_column
    if updated is not None and updated not in kinds:
        # A caller may know the row's time even where the table does not keep it.
        kinds[updated] = sqltypes.DateTime(timezone=True)
    return kinds


def _cast(
    engine: Engine, kinds: Mapping[str, sqltypes.TypeEngine[Any]], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    # Positions stand in for the names: SQL sees none that came from a caller.
    names = list(kinds)
    sent = [
        {_PLACE: place, **{f"c{names.index(name)}": value for name, value in row.items()}}
        for place, row in enumerate(rows)
    ]
    typed = [column(f"c{place}", kind) for place, kind in enumerate(kinds.values())]
    table = func.jsonb_to_recordset(literal(sent, JSONB)).table_valued(column(_PLACE, Integer), *typed)
    derived = table.render_derived(name="pushed", with_types=True)
    query: Select[Any] = select(*(derived.c[item.name] for item in typed)).order_by(derived.c[_PLACE])
    with engine.connect() as connection:
        return [dict(zip(names, row, strict=True)) for row in connection.execute(query)]


def _is_misfit(error: DBAPIError) -> bool:
    return isinstance(error.orig, psycopg.DataError | psycopg.IntegrityError)


def _misfit(
    engine: Engine,
    kinds: Mapping[str, sqltypes.TypeEngine[Any]],
    rows: Sequence[Mapping[str, Any]],
    first: int,
) -> InvalidRecord:
    """The error of the first row that Postgres refuses, found by halving; then of its column."""
    while len(rows) > 1:
        half = len(rows) // 2
        if _fits(engine, kinds, rows[:half]):
            first, rows = first + half, rows[half:]
        else:
            rows = rows[:half]
    for name in rows[0]:
        if not _fits(engine, kinds, [{name: rows[0][name]}]):
            return _invalid(first, name, f"does not fit its type, {kinds[name]}")
    return InvalidRecord("A row does not fit its table.", param=f"records[{first}]")


def _fits(
    engine: Engine, kinds: Mapping[str, sqltypes.TypeEngine[Any]], rows: Sequence[Mapping[str, Any]]
) -> bool:
    try:
        _cast(engine, kinds, rows)
    except DBAPIError as error:
        if not _is_misfit(error):
            raise
        return False
    return True


def _clean_row(
    place: int,
    row: Mapping[str, Any],
    source: SourceTable,
    kinds: Mapping[str, sqltypes.TypeEngine[Any]],
) -> dict[str, Any]:
    key = source.spec.primary_key
    if not _can_be_key(row.get(key)):
        raise InvalidRecord(
            f"Row {place} has no usable {key!r}, the key of {source.spec.name}.",
            hint="Every row needs one: a number or a text, as the table has it.",
            param=f"records[{place}].{key}",
        )
    return {name: _clean(place, name, row[name], kind) for name, kind in kinds.items() if name in row}


def _can_be_key(value: Any) -> bool:
    if isinstance(value, str):
        return value != "" and value == _clean_text(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _clean_text(text: str) -> str:
    return text.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _clean(place: int, name: str, value: Any, kind: sqltypes.TypeEngine[Any]) -> Any:
    if value is not None and isinstance(kind, sqltypes.DateTime | sqltypes.Date):
        return _time(place, name, value, kind)
    return _clean_value(place, name, value, MAX_DEPTH)


def _clean_value(place: int, name: str, value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _invalid(place, name, "is not a finite number")
    if isinstance(value, Mapping | list):
        if depth == 0:
            raise _invalid(place, name, f"is nested more than {MAX_DEPTH} deep")
        if isinstance(value, list):
            return [_clean_value(place, name, item, depth - 1) for item in value]
        return {
            _clean_text(inner): _clean_value(place, name, item, depth - 1) for inner, item in value.items()
        }
    return value


def _time(place: int, name: str, value: Any, kind: sqltypes.TypeEngine[Any]) -> str:
    # Postgres alone would take "now" and "infinity", and read a time without a zone in its own.
    try:
        if isinstance(kind, sqltypes.Date):
            return date.fromisoformat(value).isoformat()
        time = datetime.fromisoformat(value)
        aware = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise _invalid(place, name, "is not a time in ISO 8601, such as 2026-11-23T10:00:00Z") from None
    zoned = isinstance(kind, sqltypes.DateTime) and kind.timezone
    return (aware if zoned else aware.replace(tzinfo=None)).isoformat()


def _invalid(place: int, name: str, problem: str) -> InvalidRecord:
    return InvalidRecord(f"Row {place}: the value of {name!r} {problem}.", param=f"records[{place}].{name}")


def _keyed(found: Sequence[dict[str, Any]], key: str) -> list[SourceRow]:
    rows: dict[str, SourceRow] = {}
    for place, values in enumerate(found):
        record = str(values[key])
        if not 0 < len(record) <= MAX_ID_CHARS:
            raise _invalid(place, key, f"has not 1 to {MAX_ID_CHARS} characters")
        if record in rows:
            raise InvalidRecord(
                f"Row {place} is the second one with the {key} {record!r}.",
                hint="Send each record once in a request.",
                param=f"records[{place}].{key}",
            )
        rows[record] = SourceRow(record, values)
    return list(rows.values())
