"""Loading a JSON-lines file into a platform table: one transaction, every line checked first.

The file is read twice. The first pass checks each line and learns which fields there are; the
second copies the rows into a temporary table, where Postgres itself judges whether a value fits
its column. Only then does one statement move them over, so a bad last line leaves the table as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import psycopg
from psycopg import errors as pg
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    DefaultClause,
    Engine,
    MetaData,
    Table,
    UniqueConstraint,
    func,
    literal,
    literal_column,
    select,
)
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from ray_app.db.source import SourceTable
from ray_app.errors import ConfigError, DatabaseUnavailable, InvalidRecord, RowbeamError
from ray_app.jsonl import fault, read_jsonl
from ray_app.reports import LoadReport
from ray_app.tables import TableSpec

#: A file's name for a text goes to the first of these columns, when the table has none of that name.
ALIASES: Final[Mapping[str, tuple[str, ...]]] = {"body": ("description", "content")}
_STAGE: Final = "rowbeam_load"
#: How Postgres says where a COPY failed. A server that speaks another language gives no line.
_PLACE: Final = re.compile(rf"\bCOPY {_STAGE}, line (\d+)(?:, column ([^:]+))?")


def load_jsonl(engine: Engine, path: Path, *, client_id: int, spec: TableSpec) -> LoadReport:
    """Insert the rows of a ``.jsonl`` or ``.jsonl.gz`` file into the table of ``spec``; all or nothing.

    Rows belong to ``client_id``, whatever the file says. A row whose key the tenant has already is
    replaced in the fields that the file has, so loading a file again changes nothing. A field
    that is missing or null takes its column's default. Fields without a column are left out and
    reported; ``body`` goes to ``description`` or ``content`` where there is no such column.
    Memory does not grow with the file.

    Raises:
        InvalidRecord: the file or one of its lines, which is named, cannot be loaded.
        UnknownTable, InvalidTableSpec: the table is not there, or its key cannot tell rows apart.
        ConfigError: the database user may not write the table.
        DatabaseUnavailable: Postgres cannot be reached.
    """
    table = _reflect(engine, spec)
    survey = _survey(path, spec, table)
    if survey.rows == 0:
        return LoadReport(spec.name, 0)
    with _faults_named(path, spec), engine.begin() as connection:
        stage = _create_stage(connection, table, survey.columns, spec.primary_key)
        _copy(connection, stage, path, table)
        counted = connection.execution_options(preserve_rowcount=True)
        moved = counted.execute(_upsert(stage, table, spec, client_id)).rowcount
        if moved < survey.rows:
            raise InvalidRecord(
                f"{path.name}: {survey.rows - moved} of its ids are another tenant's. Nothing was loaded.",
                hint=f"Ids of {spec.name} are unique over all tenants; give these rows others.",
            )
    return LoadReport(spec.name, survey.rows, survey.ignored)


@dataclass(frozen=True)
class _Survey:
    """What the first pass learnt."""

    rows: int
    #: The table's columns that the file fills; the tenant's is not among them.
    columns: Sequence[Column[Any]]
    #: Fields of the file that the table has no column for.
    ignored: tuple[str, ...]


def _reflect(engine: Engine, spec: TableSpec) -> Table:
    SourceTable.reflect(engine, spec)  # one set of rules for what a platform table must have
    return Table(spec.name, MetaData(), schema=spec.db_schema, autoload_with=engine, resolve_fks=False)


def _survey(path: Path, spec: TableSpec, table: Table) -> _Survey:
    """Check every line against the table, as far as that needs no database."""
    settable = {column.name: column for column in table.c if column.computed is None}
    needed = dict.fromkeys([spec.primary_key, *(name for name in settable if _is_required(table.c[name]))])
    needed.pop(spec.tenant_column, None)
    rows, seen = 0, dict[str, None]()
    for number, record in read_jsonl(path):
        fields = _named(record, table)
        fields.pop(spec.tenant_column, None)
        for name in needed:
            if fields.get(name) is None or (name == spec.primary_key and fields[name] == ""):
                raise fault(path, number, f"it has no {name!r}, which every row of {spec.name} needs.")
        for name, value in fields.items():
            if name in settable and not _fits(settable[name], value):
                raise _misfit(path, number, settable[name])
        seen.update(dict.fromkeys(fields))
        rows += 1
    columns = [settable[name] for name in seen if name in settable]
    return _Survey(rows, columns, tuple(sorted(name for name in seen if name not in settable)))


def _is_required(column: Column[Any]) -> bool:
    return not column.nullable and column.server_default is None and column.identity is None


def _named(record: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """The record's fields, an alias under the name of its column."""
    fields = dict(record)
    for alias, targets in ALIASES.items():
        target = next((name for name in targets if name in table.c), None)
        if alias in fields and alias not in table.c and target is not None and target not in fields:
            fields[target] = fields.pop(alias)
    return fields


def _fits(column: Column[Any], value: Any) -> bool:
    """False for what Postgres would store as a text that only looks right, such as {a,b} for a list."""
    if value is None or isinstance(column.type, sqltypes.JSON):
        return True
    is_list = isinstance(column.type, ARRAY)
    if isinstance(value, list):
        return is_list and not any(isinstance(item, list | dict) for item in value)
    if isinstance(value, bool):
        return isinstance(column.type, Boolean)
    return not is_list and not isinstance(value, dict)


def _misfit(path: Path, number: int, column: Column[Any]) -> InvalidRecord:
    return fault(path, number, f"the value of {column.name!r} does not fit its type, {column.type}.")


def _create_stage(
    connection: Connection, table: Table, columns: Sequence[Column[Any]], primary_key: str
) -> Table:
    """A temporary table of the same column types, with no constraint but that keys differ."""
    quote = connection.dialect.identifier_preparer
    names = ", ".join(quote.format_column(column) for column in columns)
    connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")  # for times without a zone
    empty = f"SELECT {names} FROM {quote.format_table(table)} WITH NO DATA"  # noqa: S608 - names are quoted
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_STAGE} ON COMMIT DROP AS {empty}")
    key = quote.format_column(table.c[primary_key])
    connection.exec_driver_sql(f"CREATE UNIQUE INDEX ON {_STAGE} ({key})")
    return Table(_STAGE, MetaData(), *(Column(column.name, column.type) for column in columns))


def _copy(connection: Connection, stage: Table, path: Path, table: Table) -> None:
    quote = connection.dialect.identifier_preparer
    names = ", ".join(quote.format_column(column) for column in stage.c)
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    try:
        with driver.cursor() as cursor, cursor.copy(f"COPY {_STAGE} ({names}) FROM STDIN") as copy:
            for _, record in read_jsonl(path):
                fields = _named(record, table)
                copy.write_row([_wire(fields.get(column.name), column.type) for column in stage.c])
    except psycopg.Error as error:
        raise _copy_fault(error, path, stage) from error


def _wire(value: Any, kind: sqltypes.TypeEngine[Any] | None = None) -> Any:
    """The value as COPY sends it: text, which Postgres reads by the column's type."""
    if value is None or (isinstance(value, str) and not isinstance(kind, sqltypes.JSON)):
        return value
    if isinstance(kind, sqltypes.JSON):
        return json.dumps(value, ensure_ascii=False, default=float)
    if isinstance(value, list):
        return [_wire(item) for item in value]
    return str(value)


def _copy_fault(error: psycopg.Error, path: Path, stage: Table) -> RowbeamError:
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailable("Postgres was lost while the file was being read. Nothing was loaded.")
    place = _PLACE.search(error.diag.context or "")
    if place is None:
        return InvalidRecord(f"{path.name}: Postgres refused a line ({type(error).__name__}).")
    # Postgres counts rows; the file may have blank lines between them.
    row = int(place[1])
    number, _ = next(islice(read_jsonl(path), row - 1, row))
    if isinstance(error, pg.UniqueViolation):
        return fault(path, number, "its key is that of an earlier line.")
    if place[2] in stage.c:
        return _misfit(path, number, stage.c[place[2]])
    return fault(path, number, f"Postgres refused it ({type(error).__name__}).")


def _upsert(stage: Table, table: Table, spec: TableSpec, client_id: int) -> Any:
    values = [_or_default(stage.c[column.name], table.c[column.name]) for column in stage.c]
    names = [column.name for column in stage.c]
    tenant = literal(client_id, BigInteger)
    statement = insert(table).from_select([spec.tenant_column, *names], select(tenant, *values))
    return statement.on_conflict_do_update(
        index_elements=_conflict_key(table, spec),
        set_={name: statement.excluded[name] for name in names},
        # Where ids are unique over all tenants, a file must not overwrite another tenant's row.
        where=table.c[spec.tenant_column] == client_id,
    )


def _or_default(value: ColumnElement[Any], target: Column[Any]) -> ColumnElement[Any]:
    default = target.server_default
    if not isinstance(default, DefaultClause):
        return value
    # The default's text is the catalogue's own expression.
    return func.coalesce(value, literal_column(str(default.arg)))


def _conflict_key(table: Table, spec: TableSpec) -> list[str]:
    """The unique key that tells the tenant's rows apart; the reflected spec has one of the two."""
    keys: list[Iterable[Column[Any]]] = [table.primary_key.columns]
    keys += [item.columns for item in table.constraints if isinstance(item, UniqueConstraint)]
    keys += [item.columns for item in table.indexes if item.unique]
    pair = {spec.tenant_column, spec.primary_key}
    if any({column.name for column in key} == pair for key in keys):
        return [spec.tenant_column, spec.primary_key]
    return [spec.primary_key]


@contextmanager
def _faults_named(path: Path, spec: TableSpec) -> Iterator[None]:
    """Tell the user's faults (rights, rules of the table) from ours, which keep SQLAlchemy's error."""
    try:
        yield
    except DBAPIError as error:
        cause = error.orig
        if isinstance(cause, pg.InsufficientPrivilege | pg.ReadOnlySqlTransaction):
            raise ConfigError(
                f"The database user may not load into {spec.name}.",
                hint="Grant it SELECT, INSERT and UPDATE on the table, and TEMPORARY on the database.",
            ) from error
        if isinstance(cause, pg.IntegrityError | pg.DataError | pg.RaiseException):
            # The primary message names the rule that was broken; the detail would repeat the row.
            raise InvalidRecord(f"{path.name}: {cause.diag.message_primary}. Nothing was loaded.") from error
        raise
