"""Records that could not be embedded, kept until they can, with what was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert

from ray_app.db.schema import dead_letters, indexes
from ray_app.parts import Part
from ray_app.reports import DeadLetter

_OPEN = "open"


def waits() -> ColumnElement[bool]:
    """Whether a letter is open, and of its index as it is pinned: not of a generation in another space."""
    letters = dead_letters.c
    elsewhere = (
        exists()
        .where(
            indexes.c.incarnation == letters.incarnation,
            indexes.c.table_name == letters.table_name,
            indexes.c.vector_type == letters.vector_type,
            indexes.c.space_id != letters.space_id,
        )
        .correlate(dead_letters)
    )
    return and_(letters.state == _OPEN, ~elsewhere)


def open_hashes(
    connection: Connection,
    incarnation: UUID,
    table: str,
    vector_type: str,
    space_id: str,
    record_ids: Sequence[str],
) -> dict[str, str]:
    """Content hash of each of these records that waits as a dead letter."""
    letters = dead_letters.c
    query = select(letters.record_id, letters.content_hash).where(
        letters.incarnation == incarnation,
        letters.table_name == table,
        letters.vector_type == vector_type,
        letters.space_id == space_id,
        letters.state == _OPEN,
        letters.record_id == func.any(list(record_ids)),
    )
    return {row.record_id: row.content_hash for row in connection.execute(query)}


def record_faults(connection: Connection, incarnation: UUID, part: Part) -> None:
    """Make or renew the dead letters of the part's faults."""
    if not part.faults:
        return
    statement = insert(dead_letters)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["incarnation", "table_name", "vector_type", "space_id", "record_id"],
            set_={
                "content_hash": statement.excluded.content_hash,
                "job_id": statement.excluded.job_id,
                "stage": statement.excluded.stage,
                "error_class": statement.excluded.error_class,
                "message": statement.excluded.message,
                "state": _OPEN,
                "attempts": dead_letters.c.attempts + 1,
                "last_at": func.now(),
            },
        ),
        [
            {
                "incarnation": incarnation,
                "table_name": part.table,
                "vector_type": part.vector_type,
                "space_id": part.space_id,
                "record_id": fault.record_id,
                "content_hash": fault.content_hash,
                "job_id": part.key.job_id,
                "stage": fault.stage,
                "error_class": fault.error_class,
                "message": fault.message,
            }
            for fault in part.faults
        ],
    )


def resolve(connection: Connection, incarnation: UUID, part: Part) -> None:
    """A record that was embedded, or is gone, is no dead letter any more."""
    settled = list({*part.record_ids, *(record for record, chunk in part.drops if chunk == 0)})
    if not settled:
        return
    letters = dead_letters.c
    connection.execute(
        delete(dead_letters).where(
            letters.incarnation == incarnation,
            letters.table_name == part.table,
            letters.vector_type == part.vector_type,
            letters.space_id == part.space_id,
            letters.record_id == func.any(settled),
        )
    )


def count_open(connection: Connection, incarnation: UUID, table: str, vector_type: str, space_id: str) -> int:
    """Open dead letters of one index in one space."""
    letters = dead_letters.c
    query = select(func.count()).where(
        letters.incarnation == incarnation,
        letters.table_name == table,
        letters.vector_type == vector_type,
        letters.space_id == space_id,
        letters.state == _OPEN,
    )
    return int(connection.scalar(query) or 0)


def forget_all(
    connection: Connection, incarnation: UUID, table: str, vector_type: str, space_id: str
) -> None:
    """Drop the dead letters of one index in one space, so that its records are tried again."""
    letters = dead_letters.c
    connection.execute(
        delete(dead_letters).where(
            letters.incarnation == incarnation,
            letters.table_name == table,
            letters.vector_type == vector_type,
            letters.space_id == space_id,
        )
    )


def list_open(engine: Engine, incarnation: UUID, limit: int | None = None) -> list[DeadLetter]:
    """Open dead letters of the tenant's indexes, oldest first; the first ``limit`` of them."""
    letters = dead_letters.c
    query = (
        select(dead_letters)
        .where(letters.incarnation == incarnation, waits())
        .order_by(letters.first_at, letters.id)
        .limit(limit)
    )
    with engine.connect() as connection:
        return [
            DeadLetter(
                table=row.table_name,
                vector_type=row.vector_type,
                record_id=row.record_id,
                stage=row.stage,
                error_class=row.error_class,
                message=row.message,
                attempts=row.attempts,
                state=row.state,
                first_at=row.first_at,
                last_at=row.last_at,
            )
            for row in connection.execute(query)
        ]
