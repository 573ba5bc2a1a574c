"""The generations of an index in the ledger: which one is written, and what has to follow it.

Whoever writes points of an index passes the gate of its generation: a shared advisory lock until the
transaction ends. Changing the binding takes that gate exclusively, so a writer finds the binding it
was admitted for until it has committed. An advisory lock and not a row lock: its queue is fair, so writers
that come one after the other cannot keep the switch waiting for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Table,
    and_,
    delete,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert

from ray_app.db.indexes import PinnedIndex, list_indexes
from ray_app.db.locks import lock_key
from ray_app.db.schema import index_changes, index_migrations, indexes, jobs, spaces, tenant_moves
from ray_app.errors import IndexMoved
from ray_app.migrating.states import Stage
from ray_app.moving.states import Stage as MoveStage
from ray_app.spaces import EmbeddingSpace, VectorType

#: Changes noted in one statement.
_NOTED: Final = 5_000


@dataclass(frozen=True)
class Generation:
    """One index in one space, by its ledger key."""

    incarnation: UUID
    table: str
    vector_type: str
    space_id: str

    @property
    def gate(self) -> int:
        """The key of its advisory lock."""
        name = f"rowbeam:gate:{self.incarnation}:{self.space_id}:{self.vector_type}:{self.table}"
        return lock_key(name)

    @classmethod
    def of(cls, incarnation: UUID, index: PinnedIndex) -> Generation:
        return cls(incarnation, index.table, str(index.vector_type), index.space.space_id)


@dataclass(frozen=True)
class Standing:
    """The generation beside a pinned one."""

    space: EmbeddingSpace
    stage: Stage


@dataclass(frozen=True)
class Beside:
    """What has to learn of what is written to a pinned generation."""

    #: The index's second generation.
    standing: Standing | None = None
    #: Whether the tenant's points are being copied to another place.
    moving: bool = False

    @property
    def follows(self) -> bool:
        """Whether records that are written have to be noted, to be followed."""
        return self.moving or (self.standing is not None and self.standing.stage.written)


@dataclass(frozen=True)
class MigrationRow:
    """The second generation of an index."""

    table: str
    vector_type: VectorType
    space: EmbeddingSpace
    stage: Stage
    job_id: str | None
    report: dict[str, Any] | None
    created_at: datetime
    switched_at: datetime | None
    keep_until: datetime | None


def pass_gates(connection: Connection, generations: Iterable[Generation]) -> None:
    """Wait until nobody changes the binding of these, and keep it until the transaction ends.

    Before any other lock is taken: one who waits here must hold nothing that the switch needs.
    """
    _lock(connection, generations, func.pg_advisory_xact_lock_shared)


def close_gates(connection: Connection, generations: Iterable[Generation]) -> None:
    """Wait until nobody writes these, and let nobody until the transaction ends."""
    _lock(connection, generations, func.pg_advisory_xact_lock)


def _lock(connection: Connection, generations: Iterable[Generation], lock: Any) -> None:
    # Taken in one order, so that two who want several of them cannot wait for each other.
    keys = sorted(generation.gate for generation in generations)
    wanted = func.unnest(literal(keys, ARRAY(BigInteger))).column_valued("gate")
    connection.execute(select(func.count(lock(wanted))))


def admit(connection: Connection, generation: Generation) -> Beside:
    """After its gate: check that the generation is written; answers what has to learn of it.

    Raises:
        IndexMoved: the index is bound to another space by now, or the generation was given up.
    """
    g = generation
    row = connection.execute(
        select(
            indexes.c.space_id.label("pinned"),
            index_migrations.c.space_id,
            index_migrations.c.stage,
            spaces.c.spec,
            tenant_moves.c.stage.label("move"),
        )
        .select_from(indexes)
        .outerjoin(
            index_migrations,
            (index_migrations.c.incarnation == indexes.c.incarnation)
            & (index_migrations.c.table_name == indexes.c.table_name)
            & (index_migrations.c.vector_type == indexes.c.vector_type),
        )
        .outerjoin(spaces, spaces.c.space_id == index_migrations.c.space_id)
        .outerjoin(tenant_moves, tenant_moves.c.incarnation == indexes.c.incarnation)
        .where(
            indexes.c.incarnation == g.incarnation,
            indexes.c.table_name == g.table,
            indexes.c.vector_type == g.vector_type,
        )
    ).one_or_none()
    if row is not None and row.pinned == g.space_id:
        standing = Standing(EmbeddingSpace.from_json(row.spec), Stage(row.stage)) if row.spec else None
        return Beside(standing, row.move is not None and MoveStage(row.move).followed)
    if row is None or row.space_id != g.space_id or not Stage(row.stage).written:
        raise IndexMoved(
            f"The {g.vector_type} index of table {g.table} is in another space by now.",
            hint="Try again: what is written next goes to the space it is in.",
        )
    return Beside()


def note_changes(connection: Connection, generation: Generation, record_ids: Iterable[str]) -> None:
    """Note records that were written to the pinned generation, or taken out of it."""
    rows = [
        {
            "incarnation": generation.incarnation,
            "table_name": generation.table,
            "vector_type": generation.vector_type,
            "record_id": record,
            "stamp": func.gen_random_uuid(),
        }
        for record in sorted(record_ids)
    ]
    for start in range(0, len(rows), _NOTED):
        statement = insert(index_changes).values(rows[start : start + _NOTED])
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=list(index_changes.primary_key),
                set_={"stamp": statement.excluded.stamp},
            )
        )


@dataclass(frozen=True)
class NotedChange:
    record_id: str
    stamp: UUID


def noted_changes(
    connection: Connection, incarnation: UUID, table: str, vector_type: str, limit: int
) -> list[NotedChange]:
    """Up to ``limit`` records that the second generation, or the other place, has yet to follow."""
    changes = index_changes.c
    query = (
        select(changes.record_id, changes.stamp)
        .where(of_index(index_changes, incarnation, table, vector_type))
        .order_by(changes.record_id)
        .limit(limit)
    )
    return [NotedChange(*row) for row in connection.execute(query)]


def count_changes(connection: Connection, incarnation: UUID, table: str, vector_type: str) -> int:
    """How many records the second generation, or the other place, has yet to follow."""
    query = select(func.count()).where(of_index(index_changes, incarnation, table, vector_type))
    return int(connection.scalar(query) or 0)


def forget_changes(
    connection: Connection,
    incarnation: UUID,
    table: str,
    vector_type: str,
    done: Sequence[NotedChange] | None = None,
) -> None:
    """Drop the notes that were followed, unless they were renewed meanwhile; all of them for None."""
    statement = delete(index_changes).where(of_index(index_changes, incarnation, table, vector_type))
    if done is not None:
        seen = [(change.record_id, change.stamp) for change in done]
        statement = statement.where(tuple_(index_changes.c.record_id, index_changes.c.stamp).in_(seen))
    connection.execute(statement)


def of_index(table: Table, incarnation: UUID, name: str, vector_type: str) -> ColumnElement[bool]:
    """Whether a row of ``table`` belongs to the index, whatever its space."""
    columns = table.c
    return and_(
        columns.incarnation == incarnation, columns.table_name == name, columns.vector_type == vector_type
    )


def list_migrations(
    connection: Connection, incarnation: UUID, *, lock: bool = False
) -> dict[tuple[str, VectorType], MigrationRow]:
    """The tenant's second generations by (table, vector type); their rows locked with ``lock``."""
    query = (
        select(index_migrations, spaces.c.spec)
        .join_from(index_migrations, spaces)
        .where(index_migrations.c.incarnation == incarnation)
        .order_by(index_migrations.c.table_name, index_migrations.c.vector_type)
    )
    rows = connection.execute(query.with_for_update(of=index_migrations) if lock else query).all()
    found = [
        MigrationRow(
            *(row.table_name, VectorType(row.vector_type), EmbeddingSpace.from_json(row.spec)),
            *(Stage(row.stage), row.job_id, row.report),
            *(row.created_at, row.switched_at, row.keep_until),
        )
        for row in rows
    ]
    return {(row.table, row.vector_type): row for row in found}


def indexes_of_job(
    engine: Engine, job_id: str, incarnation: UUID
) -> dict[tuple[str, VectorType], PinnedIndex]:
    """The indexes as the job writes them: pinned, or in the space that it builds for a migration.

    Raises:
        IndexMoved: the migration was given up, or has ended.
    """
    pinned = list_indexes(engine, incarnation)
    with engine.connect() as connection:
        request = connection.execute(select(jobs.c.request).where(jobs.c.job_id == job_id)).scalar_one()
        space_id = request.get("space_id")
        if space_id is None:
            return pinned
        found = list_migrations(connection, incarnation)
    written = {
        where: replace(pinned[where], space=row.space)
        for where, row in found.items()
        if row.space.space_id == space_id and row.stage.written and where in pinned
    }
    wanted = {(table, kind) for table in request["tables"] for kind in request["vector_types"]}
    if wanted - written.keys():
        raise IndexMoved("The change of model that this job worked for has ended or was given up.")
    return written
