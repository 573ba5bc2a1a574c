"""Putting the outbox in place, taking it away, and saying how it stands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from ray_app.db import outbox
from ray_app.db.source import SourceTable
from ray_app.errors import ConfigError, InvalidTableSpec, UnknownTable
from ray_app.outbox.statements import CREATE, CREATE_SCHEMA, DROP, Watched, grants
from ray_app.syncing.reports import OutboxStatus, OutboxTable
from ray_app.workspace import Workspace

#: SQLSTATE insufficient_privilege.
_NO_PRIVILEGE: Final = "42501"
#: Making a trigger waits for the table's writers and keeps others waiting meanwhile: no longer than this.
_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '5s'"
_FAMILY: Final = text(
    """
    SELECT class.relkind, class.relkind = 'p' OR class.relispartition OR EXISTS (
        SELECT FROM pg_inherits WHERE inhrelid = class.oid OR inhparent = class.oid
    ) AS by_row
    FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = class.relnamespace
    WHERE space.nspname = :schema AND class.relname = :name
    """
)
_ALL_TRIGGERS: Final = text(
    """
    SELECT quote_ident(tgname) AS name, tgrelid::regclass::text AS target FROM pg_trigger
    WHERE tgname LIKE 'rowbeam\\_outbox\\_%' AND NOT tgisinternal AND tgparentid = 0 ORDER BY 2, 1
    """
)
_ALL_FUNCTIONS: Final = text(
    """
    SELECT oid::regprocedure::text FROM pg_proc
    WHERE pronamespace = to_regnamespace('rowbeam') AND proname LIKE 'outbox\\_%'
        AND prorettype = 'trigger'::regtype
    """
)
_FINGERPRINT: Final = text("SELECT obj_description(to_regprocedure(:function), 'pg_proc')")
_TRIGGERS: Final = text(
    """
    SELECT count(*) FROM pg_trigger
    WHERE tgrelid = to_regclass(:target) AND tgname LIKE 'rowbeam\\_outbox\\_%' AND tgenabled <> 'D'
    """
)


def watched_tables(workspace: Workspace, tables: Iterable[str] | None) -> list[Watched]:
    """The tables whose changes are to be noted: those asked for, or the vector-enabled ones there are.

    Raises:
        UnknownTable, InvalidTableSpec: one that was asked for is not there or cannot have triggers.
    """
    asked = None if tables is None else list(tables)
    found = []
    for spec in workspace.tables.select(asked):
        try:
            source = workspace.source_table(spec.name)
        except UnknownTable:
            if asked is not None:
                raise
            continue
        with workspace.source.connect() as connection:
            found.append(_watched(connection, source))
    return found


def _watched(connection: Connection, source: SourceTable) -> Watched:
    spec = source.spec
    kind, by_row = connection.execute(_FAMILY, {"schema": spec.db_schema, "name": spec.name}).one()
    if kind not in ("r", "p"):
        raise InvalidTableSpec(
            f"{spec.db_schema}.{spec.name} is a view or a foreign table: its changes cannot be noted.",
            hint="Leave it to rowbeam sync.",
        )
    named = {column for rule in spec.text.values() for column in rule.columns} | set(spec.payload)
    named |= {spec.active_column} if spec.active_column else set()
    keys = {spec.primary_key, spec.tenant_column}
    columns = sorted(name for name in source.columns if name in named | keys)
    return Watched(spec.name, spec.db_schema, spec.primary_key, spec.tenant_column, columns, bool(by_row))


def install(workspace: Workspace, tables: Iterable[str] | None = None) -> OutboxStatus:
    """Note every change of these tables from now on. Idempotent: what is up to date is not touched.

    Each table is done in a transaction of its own, which waits a few seconds at most for its writers.

    Raises:
        UnknownTable, InvalidTableSpec: as ``watched_tables``.
        ConfigError: Rowbeam's role may not do it.
        DatabaseUnavailable: a writer held a table too long; the tables before it are done.
    """
    watched = watched_tables(workspace, tables)
    if not outbox.is_there(workspace.source):
        with workspace.source.connect() as connection:
            schema = "" if _has_schema(connection) else CREATE_SCHEMA
        _execute(workspace.source, schema + CREATE)
    for table in watched:
        if _state(workspace.source, table) != "installed":
            _execute(workspace.source, table.install())
    return status(workspace)


def uninstall(workspace: Workspace, tables: Iterable[str] | None = None) -> OutboxStatus:
    """Note changes of these tables no more; without names of any, and drop the outbox too. Idempotent.

    Raises: as ``install``.
    """
    if tables is not None:
        for table in watched_tables(workspace, tables):
            if _state(workspace.source, table) != "absent":
                _execute(workspace.source, table.uninstall())
        return status(workspace)
    # What is there, not what the specs of now would make.
    with workspace.source.connect() as connection:
        triggers = connection.execute(_ALL_TRIGGERS).all()
        functions = connection.scalars(_ALL_FUNCTIONS).all() if triggers or _has_schema(connection) else []
    for table, group in groupby(triggers, key=lambda row: row.target):
        drops = [f"DROP TRIGGER IF EXISTS {row.name} ON {table};" for row in group]
        _execute(workspace.source, "\n".join(drops))
    for function in functions:
        _execute(workspace.source, f"DROP FUNCTION IF EXISTS {function};")
    if outbox.is_there(workspace.source):
        _execute(workspace.source, DROP)
    return status(workspace)


def _has_schema(connection: Connection) -> bool:
    return connection.scalar(text("SELECT to_regnamespace('rowbeam')")) is not None


def script(workspace: Workspace, tables: Iterable[str] | None = None) -> str:
    """What ``install`` would run, for somebody with the privileges, and what Rowbeam's role needs then."""
    watched = watched_tables(workspace, tables)
    with workspace.source.connect() as connection:
        role = str(connection.scalar(text("SELECT current_user")))
    parts = [
        "BEGIN;",
        CREATE_SCHEMA,
        CREATE.strip(),
        *(table.install() for table in watched),
        grants(role),
        "COMMIT;",
    ]
    return "\n\n".join(parts) + "\n"


def status(workspace: Workspace) -> OutboxStatus:
    """How the outbox stands, table by table: the vector-enabled ones there are, and others that it notes."""
    states = []
    for spec in workspace.tables:
        try:
            (table,) = watched_tables(workspace, [spec.name])
        except (UnknownTable, InvalidTableSpec):
            continue
        state = _state(workspace.source, table)
        if spec.vector_enabled or state != "absent":
            states.append(OutboxTable(spec.name, state))
    if not outbox.is_there(workspace.source):
        return OutboxStatus(False, tuple(states))
    with workspace.source.connect() as connection:
        depth = outbox.depth(connection)
    return OutboxStatus(True, tuple(states), depth.entries, depth.oldest, depth.missed)


def _state(engine: Engine, table: Watched) -> str:
    with engine.connect() as connection:
        found = connection.scalar(_FINGERPRINT, {"function": f"{table.function}()"})
        triggers = connection.scalar(_TRIGGERS, {"target": table.target}) or 0
    if found is None and not triggers:
        return "absent"
    complete = triggers == (2 if table.by_row else 4)
    return "installed" if found == table.fingerprint and complete else "outdated"


def _execute(engine: Engine, statements: str) -> None:
    try:
        with engine.begin() as connection:
            connection.execute(text(_LOCK_TIMEOUT))
            # Several statements at once, and a percent sign in them means what it says.
            connection.execution_options(no_parameters=True).exec_driver_sql(statements)
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _NO_PRIVILEGE:
            raise
        raise ConfigError(
            "Rowbeam's role may not make the outbox: it needs CREATE in schema rowbeam and TRIGGER on them.",
            hint="Have a DBA run what rowbeam sync --install --sql prints.",
        ) from error
