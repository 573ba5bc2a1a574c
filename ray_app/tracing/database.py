"""A span for each statement that SQLAlchemy sends."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from sqlalchemy import Engine, event

from ray_app.tracing.spans import current_ids, enabled, span

#: What is done, and the table it is done to first. Statements have no values in them, but may have the
#: platform's column names, so they stay here.
_OPERATION: Final = re.compile(r"\s*(\w+)")
_TABLE: Final = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+([\w.\"]+)", re.IGNORECASE)
_SPANS: Final = "rowbeam_spans"


def trace_statements(engine: Engine) -> None:
    """Trace what ``engine`` sends inside of a span, if this process traces: heartbeats are no traces."""
    if not enabled():
        return
    event.listen(engine, "before_cursor_execute", _before)
    event.listen(engine, "after_cursor_execute", _after)
    event.listen(engine, "handle_error", _failed)


def summary(statement: str) -> tuple[str, str]:
    """The operation and its table, each "" when it cannot be told."""
    operation, table = _OPERATION.match(statement), _TABLE.search(statement)
    return operation[1].upper() if operation else "", table[1].replace('"', "") if table else ""


def _before(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    del cursor, parameters, context, executemany
    if not current_ids()[0]:
        connection.info.setdefault(_SPANS, []).append(nullcontext())
        return
    operation, table = summary(statement)
    said = {"db.system.name": "postgresql", "db.operation.name": operation, "db.collection.name": table}
    open_span = span(f"{operation} {table}".strip(), kind="client", **said)
    open_span.__enter__()
    connection.info.setdefault(_SPANS, []).append(open_span)


def _after(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    del cursor, statement, parameters, context, executemany
    _pop(connection).__exit__(None, None, None)


def _failed(context: Any) -> None:
    if context.connection is None or not context.connection.info.get(_SPANS):
        return  # it failed before a statement was sent
    error = context.original_exception
    _pop(context.connection).__exit__(type(error), error, error.__traceback__)


def _pop(connection: Any) -> AbstractContextManager[None]:
    last: AbstractContextManager[None] = connection.info[_SPANS].pop()
    return last
