"""The ledger of single records: their locks, their states, and the times of those that stay as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Connection, Text, delete, func, literal, select, update

from ray_app.db.locks import lock_key
from ray_app.db.schema import dead_letters, qdrant_vectors

#: Locks of one table's records; more let more pushes pass each other, fewer make one push cheaper.
STRIPES: Final = 64


@dataclass(frozen=True)
class StoredRecord:
    """A record's vectors of one type in one space, by the ledger."""

    vector_type: str
    space_id: str
    model: str
    provider: str
    chunks: int
    embedded_at: datetime
    #: The embedded row's own time, microseconds since 1970, when it had one.
    updated_at: int | None


def lock_records(connection: Connection, incarnation: UUID, table: str, record_ids: Iterable[str]) -> None:
    """Until the transaction ends, nobody else who asks for this changes these records' vectors.

    Taken in one order, so that two who want several of them cannot wait for each other.
    """
    keys = sorted({_stripe(incarnation, table, record) for record in record_ids})
    locked = func.unnest(literal(keys, ARRAY(BigInteger))).column_valued("stripe")
    connection.execute(select(func.count(func.pg_advisory_xact_lock(locked))))


def _stripe(incarnation: UUID, table: str, record_id: str) -> int:
    stripe = hashlib.blake2b(record_id.encode(), digest_size=8).digest()[0] % STRIPES
    name = f"rowbeam:records:{incarnation}:{stripe}:{table}"
    return lock_key(name)


def newer_records(
    connection: Connection,
    incarnation: UUID,
    table: str,
    vector_type: str,
    space_id: str,
    record_ids: Iterable[str],
    version: int,
) -> set[str]:
    """Which of these records have vectors of one type that are of a later version."""
    vectors = qdrant_vectors.c
    query = (
        select(vectors.record_id)
        .distinct()
        .where(
            vectors.incarnation == incarnation,
            vectors.table_name == table,
            vectors.vector_type == vector_type,
            vectors.space_id == space_id,
            vectors.record_id == func.any(list(record_ids)),
            vectors.version > version,
        )
    )
    return set(connection.scalars(query))


def advance_times(
    connection: Connection,
    incarnation: UUID,
    table: str,
    vector_type: str,
    space_id: str,
    times: Mapping[str, int],
    version: int,
) -> None:
    """Note that records whose vectors stay were seen at ``version``, and their rows' own times."""
    if not times:
        return
    records = literal(list(times), ARRAY(Text))
    values = literal(list(times.values()), ARRAY(BigInteger))
    newer = func.unnest(records, values).table_valued("record_id", "updated_at").render_derived()
    vectors = qdrant_vectors.c
    connection.execute(
        update(qdrant_vectors)
        .where(
            vectors.incarnation == incarnation,
            vectors.table_name == table,
            vectors.vector_type == vector_type,
            vectors.space_id == space_id,
            vectors.record_id == newer.c.record_id,
        )
        .values(updated_at=newer.c.updated_at, version=version)
    )


def stored_records(
    connection: Connection, incarnation: UUID, table: str, record_id: str
) -> list[StoredRecord]:
    """The record's vectors of every type and space it has any of."""
    vectors = qdrant_vectors.c
    query = (
        select(
            vectors.vector_type,
            vectors.space_id,
            func.max(vectors.model),
            func.max(vectors.provider),
            func.count(),
            func.max(vectors.embedded_at),
            func.max(vectors.updated_at),
        )
        .where(
            vectors.incarnation == incarnation,
            vectors.table_name == table,
            vectors.record_id == record_id,
        )
        .group_by(vectors.vector_type, vectors.space_id)
        .order_by(vectors.vector_type, vectors.space_id)
    )
    return [StoredRecord(*row) for row in connection.execute(query)]


def dead_reasons(
    connection: Connection, incarnation: UUID, table: str, record_ids: Sequence[str]
) -> dict[tuple[str, str, str], str]:
    """Why records wait as dead letters, by (vector type, space id, record id)."""
    letters = dead_letters.c
    query = select(letters.vector_type, letters.space_id, letters.record_id, letters.message).where(
        letters.incarnation == incarnation,
        letters.table_name == table,
        letters.state == "open",
        letters.record_id == func.any(list(record_ids)),
    )
    return {(row.vector_type, row.space_id, row.record_id): row.message for row in connection.execute(query)}


def forget_letters(
    connection: Connection,
    incarnation: UUID,
    table: str,
    vector_type: str,
    space_id: str,
    record_ids: Sequence[str],
) -> None:
    """Drop the dead letters that these records have in the space."""
    letters = dead_letters.c
    connection.execute(
        delete(dead_letters).where(
            letters.incarnation == incarnation,
            letters.table_name == table,
            letters.vector_type == vector_type,
            letters.space_id == space_id,
            letters.record_id == func.any(list(record_ids)),
        )
    )
