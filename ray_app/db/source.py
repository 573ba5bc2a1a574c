"""Reading the platform's tables as they are: catalogue checks, key ranges, pages.

Names from a spec become SQL only through SQLAlchemy columns reflected from the catalogue, so an
identifier that the database does not know cannot reach a statement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    MetaData,
    Select,
    SmallInteger,
    Table,
    Text,
    and_,
    cast,
    func,
    inspect,
    literal,
    select,
)
from sqlalchemy import types as sqltypes
from sqlalchemy.exc import NoSuchTableError

from ray_app.db.recent import RecentRows
from ray_app.errors import InvalidTableSpec, UnknownTable
from ray_app.spaces import VectorType
from ray_app.tables import TableSpec

#: Rows fetched at once; bounds memory when rows are large.
FETCH_ROWS: Final = 64
#: The label of a row's hash among its columns.
_ROW_HASH: Final = "rowbeam_row_hash"


@dataclass(frozen=True)
class KeyRange:
    """The keys in (lo, hi], as text; None is open. ``expected`` rows were there when it was cut."""

    lo: str | None
    hi: str | None
    expected: int


@dataclass(frozen=True)
class Recipe:
    """What an index makes its texts and payload of; rows are hashed by it, in Postgres.

    Of two rows with one hash by one recipe the same is made.
    """

    columns: tuple[str, ...]
    #: Differs between recipes that make something else of the same columns.
    salt: str


@dataclass(frozen=True)
class SourceRow:
    """One active row of a tenant: its key as text, and the columns a spec names."""

    record_id: str
    values: dict[str, Any]
    #: By the recipe it was read for, 32 hex digits; None when it was read for none.
    row_hash: str | None = None


class SourceTable:
    """One platform table of one database, seen through its spec.

    Counting and reading share one predicate: the tenant's rows, active ones only.
    """

    def __init__(self, spec: TableSpec, table: Table) -> None:
        self.spec = spec
        self._table = table
        self._key: Column[Any] = table.c[spec.primary_key]

    @classmethod
    def reflect(cls, engine: Engine, spec: TableSpec) -> SourceTable:
        """Check ``spec`` against the catalogue.

        Raises:
            UnknownTable: the database has no such table.
            InvalidTableSpec: a needed column is missing or of the wrong type, or the key is not unique.
        """
        inspector = inspect(engine)
        try:
            found = {item["name"]: item["type"] for item in inspector.get_columns(spec.name, spec.db_schema)}
        except NoSuchTableError:
            raise UnknownTable(
                f"The database has no table {spec.db_schema}.{spec.name}.",
                hint="Check the spec's name and db_schema, and that Rowbeam's user may read it.",
            ) from None
        _check_columns(spec, found)
        _check_unique(spec, inspector)
        wanted = {spec.primary_key, spec.tenant_column, *spec.payload}
        wanted |= {column for rule in spec.text.values() for column in rule.columns}
        wanted |= {name for name in (spec.active_column, spec.updated_column) if name}
        columns = [Column(name, kind) for name, kind in found.items() if name in wanted]
        return cls(spec, Table(spec.name, MetaData(), *columns, schema=spec.db_schema))

    @property
    def columns(self) -> Mapping[str, sqltypes.TypeEngine[Any]]:
        """Types of the columns the spec names, as far as the table has them."""
        return {column.name: column.type for column in self._table.c}

    def payload_fields(self) -> list[str]:
        """The payload columns that this table really has."""
        return [name for name in self.spec.payload if name in self._table.c]

    def has_text(self, vector_type: VectorType) -> bool:
        """Whether the table has any of the columns that make this text. Raises UnknownVectorType."""
        return any(name in self._table.c for name in self.spec.text_rule(vector_type).columns)

    def check_text(self, vector_type: VectorType) -> None:
        """Raises InvalidTableSpec when the table has none of the columns that make this text."""
        if not self.has_text(vector_type):
            columns = ", ".join(self.spec.text_rule(vector_type).columns)
            raise InvalidTableSpec(
                f"Table {self.spec.name} has none of the columns of its {vector_type} text: {columns}.",
                hint="Give the spec a text rule that fits.",
            )

    def count(self, connection: Connection, client_id: int) -> int:
        """Active rows of the tenant."""
        return int(
            connection.scalar(select(func.count()).select_from(self._table).where(self._mine(client_id))) or 0
        )

    def greatest_client_id(self, connection: Connection) -> int:
        """The greatest client id in the table, active or not; 0 when it is empty."""
        return int(connection.scalar(select(func.max(self._table.c[self.spec.tenant_column]))) or 0)

    def cut(self, connection: Connection, client_id: int, size: int) -> list[KeyRange]:
        """Ranges of ``size`` rows that together cover all keys; no rows, no ranges."""
        numbered = (
            select(
                cast(self._key, Text).label("key"),
                func.row_number().over(order_by=self._key).label("place"),
            )
            .where(self._mine(client_id))
            .subquery()
        )
        edges = connection.scalars(
            select(numbered.c.key).where(numbered.c.place % size == 0).order_by(numbered.c.place)
        ).all()
        rows = self.count(connection, client_id)
        if rows == 0:
            return []
        if edges and rows % size == 0:
            edges = edges[:-1]  # the last range stays open, for rows that arrive meanwhile
        bounds: list[str | None] = [None, *edges, None]
        return [
            KeyRange(lo, hi, min(size, max(rows - place * size, 0)))
            for place, (lo, hi) in enumerate(pairwise(bounds))
        ]

    def read(
        self,
        connection: Connection,
        client_id: int,
        lo: str | None,
        hi: str | None,
        recipe: Recipe | None = None,
    ) -> Iterator[SourceRow]:
        """The tenant's active rows with keys in (lo, hi], by key, a few in memory at a time."""
        query = self._select(recipe).where(self._mine(client_id), *self._between(lo, hi)).order_by(self._key)
        yield from self._rows(connection, query)

    def read_ids(
        self, connection: Connection, client_id: int, ids: Sequence[str], recipe: Recipe | None = None
    ) -> Iterator[SourceRow]:
        """The tenant's active rows among ``ids``, by key."""
        mine = and_(self._mine(client_id), self._key.in_(self._keys(ids)))
        query = self._select(recipe).where(mine).order_by(self._key)
        yield from self._rows(connection, query)

    def hashes(
        self,
        connection: Connection,
        client_id: int,
        lo: str | None,
        hi: str | None,
        recipe: Recipe,
        limit: int,
    ) -> list[tuple[str, str]]:
        """(record id, row hash) of the tenant's first ``limit`` active rows with keys in (lo, hi], by key."""
        query = (
            select(cast(self._key, Text), self._row_hash(recipe))
            .where(self._mine(client_id), *self._between(lo, hi))
            .order_by(self._key)
            .limit(limit)
        )
        return [(record, digest) for record, digest in connection.execute(query).all()]

    def present(self, connection: Connection, client_id: int, ids: Sequence[str]) -> set[str]:
        """Which of ``ids`` are active rows of the tenant."""
        query = select(cast(self._key, Text)).where(self._mine(client_id), self._key.in_(self._keys(ids)))
        return set(connection.scalars(query))

    def recent(self) -> RecentRows | None:
        """What finds rows by the time of their change; None when they do not tell it."""
        column = self._table.c.get(self.spec.updated_column or "")
        timed = column is not None and isinstance(column.type, sqltypes.DateTime)
        return RecentRows(self.spec, self._table) if timed else None

    def clock(self, connection: Connection) -> int:
        """The source database's clock, in microseconds since 1970."""
        return int(connection.scalar(select(func.extract("epoch", func.clock_timestamp()) * 1_000_000)) or 0)

    def _mine(self, client_id: int) -> ColumnElement[bool]:
        tenant = self._table.c[self.spec.tenant_column] == client_id
        if self.spec.active_column is None:
            return tenant
        return and_(tenant, self._table.c[self.spec.active_column].is_(True))

    def _between(self, lo: str | None, hi: str | None) -> list[ColumnElement[bool]]:
        bounds = []
        if lo is not None:
            bounds.append(self._key > self._as_key(lo))
        if hi is not None:
            bounds.append(self._key <= self._as_key(hi))
        return bounds

    def _as_key(self, value: str) -> ColumnElement[Any]:
        return cast(literal(value, Text), self._key.type)

    def _keys(self, ids: Sequence[str]) -> Select[Any]:
        # unnest of one array parameter: any number of ids is one statement to plan and cache.
        return select(cast(func.unnest(literal(list(ids), sqltypes.ARRAY(Text))), self._key.type))

    def _select(self, recipe: Recipe | None) -> Select[Any]:
        return select(self._table, *([self._row_hash(recipe).label(_ROW_HASH)] if recipe else []))

    def _row_hash(self, recipe: Recipe) -> ColumnElement[str]:
        # As a record's text every type has one form, in which different values differ.
        columns = [self._table.c[name] for name in recipe.columns if name in self._table.c]
        salt = "\n".join([recipe.salt, *(column.name for column in columns)])
        hashed: ColumnElement[str] = func.md5(literal(salt, Text) + cast(func.row(*columns), Text))
        return hashed

    def _rows(self, connection: Connection, query: Select[Any]) -> Iterator[SourceRow]:
        key = self.spec.primary_key
        streaming = connection.execution_options(stream_results=True, max_row_buffer=FETCH_ROWS)
        with streaming.execute(query) as result:
            for row in result.mappings():
                values = dict(row)
                row_hash = values.pop(_ROW_HASH, None)
                yield SourceRow(str(values[key]), values, row_hash)


def _check_columns(spec: TableSpec, found: dict[str, Any]) -> None:
    for role, name in (("primary key", spec.primary_key), ("tenant column", spec.tenant_column)):
        if name not in found:
            raise InvalidTableSpec(
                f"Table {spec.name} has no column {name!r}, its spec's {role}.",
                hint=f"It has: {', '.join(found)}.",
            )
    kind = found[spec.primary_key]
    if not isinstance(kind, BigInteger | Integer | SmallInteger | sqltypes.String | sqltypes.Uuid):
        raise InvalidTableSpec(
            f"The key {spec.name}.{spec.primary_key} is of type {kind}.",
            hint="Use a bigint, text or uuid key.",
        )
    if not isinstance(found[spec.tenant_column], BigInteger | Integer | SmallInteger):
        raise InvalidTableSpec(f"The tenant column {spec.name}.{spec.tenant_column} is not an integer.")
    if spec.active_column is None:
        return
    if not isinstance(found.get(spec.active_column), sqltypes.Boolean):
        raise InvalidTableSpec(
            f"Table {spec.name} has no boolean column {spec.active_column!r}, its spec's active column.",
            hint='Set active_column = "" in rowbeam.toml when the table has none.',
        )


def _check_unique(spec: TableSpec, inspector: Any) -> None:
    """A key that can repeat inside a tenant would make two rows fight for one point."""
    allowed = {spec.primary_key, spec.tenant_column}
    keys = [inspector.get_pk_constraint(spec.name, spec.db_schema)["constrained_columns"]]
    keys += [item["column_names"] for item in inspector.get_unique_constraints(spec.name, spec.db_schema)]
    keys += [
        item["column_names"] for item in inspector.get_indexes(spec.name, spec.db_schema) if item["unique"]
    ]
    if not any(spec.primary_key in key and set(key) <= allowed for key in keys):
        raise InvalidTableSpec(
            f"Table {spec.name} has no primary key or unique index on {spec.primary_key!r}.",
            hint=f"Make ({spec.primary_key}) or ({spec.tenant_column}, {spec.primary_key}) unique, "
            "or name the right key in the spec.",
        )
