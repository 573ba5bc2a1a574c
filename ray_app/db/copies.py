"""Ledger rows of whole records, read for a copy and written again for another index of the same space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, insert, select

from ray_app.db.audits import IndexPlace, among
from ray_app.db.ledger import of_index
from ray_app.db.schema import qdrant_vectors


@dataclass(frozen=True)
class LedgerCopy:
    """A row of ``qdrant_vectors`` without its index; fields as the columns."""

    record_id: str
    chunk: int
    point_id: UUID
    content_hash: str
    text_hash: bytes | None
    row_hash: bytes | None
    data_hash: str
    version: int
    updated_at: int | None
    snippet: str
    provider: str
    model: str
    embedded_at: datetime


_FIELDS = tuple(LedgerCopy.__dataclass_fields__)


def rows_of(connection: Connection, place: IndexPlace, record_ids: Sequence[str]) -> list[LedgerCopy]:
    """The rows of these records, by record in byte order and chunk."""
    vectors = qdrant_vectors.c
    query = (
        select(*(vectors[name] for name in _FIELDS))
        .where(of_index(*place), among(record_ids))
        .order_by(vectors.record_id, vectors.chunk)
    )
    return [LedgerCopy(*row) for row in connection.execute(query)]


def known_records(connection: Connection, place: IndexPlace, record_ids: Sequence[str]) -> set[str]:
    """Which of these records have rows."""
    query = select(qdrant_vectors.c.record_id).distinct().where(of_index(*place), among(record_ids))
    return set(connection.scalars(query))


def add_rows(connection: Connection, place: IndexPlace, rows: Sequence[LedgerCopy]) -> None:
    """Add rows of records that have none."""
    if not rows:
        return
    names = ("incarnation", "table_name", "vector_type", "space_id")
    index = dict(zip(names, place, strict=True))
    connection.execute(insert(qdrant_vectors), [{**index, **asdict(row)} for row in rows])
