"""The ledger as reconciling reads it: digests of ranges of points, and points one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Text, cast, delete, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from ray_app.db.ledger import of_index
from ray_app.db.schema import qdrant_vectors
from ray_app.store.port import Digest

#: An index in the ledger: incarnation, table, vector type, space.
IndexPlace: TypeAlias = tuple[UUID, str, str, str]
_UNSIGNED: Final = 2**64 - 1


@dataclass(frozen=True)
class LedgerPoint:
    """What the ledger says of one point."""

    record_id: str
    chunk: int
    point_id: UUID
    content_hash: str
    version: int
    data_hash: str


def slice_digests(connection: Connection, place: IndexPlace, bits: int) -> dict[int, Digest]:
    """Digests of the index's points by the first ``bits`` (16 at the most) bits of their ids.

    The same sum as ``store.auditing.point_digest``; one pass over the index.
    """
    lead: ColumnElement[int] = literal_column("('x' || left(point_id::text, 4))::bit(16)::int")
    each: ColumnElement[int] = literal_column(
        "('x' || left(md5(point_id::text || '|' || content_hash || '|' || version), 16))::bit(64)::bigint"
    )
    number = lead.op(">>")(16 - bits)
    query = select(number, func.count(), func.bit_xor(each)).where(of_index(*place)).group_by(number)
    return {
        int(key): Digest(int(count), int(total) & _UNSIGNED)
        for key, count, total in connection.execute(query)
    }


def points_between(connection: Connection, place: IndexPlace, lo: UUID, hi: UUID) -> list[LedgerPoint]:
    """The index's points with ids from ``lo`` to ``hi``, both included."""
    vectors = qdrant_vectors.c
    return _points(connection, of_index(*place) & vectors.point_id.between(lo, hi))


def points_of(connection: Connection, place: IndexPlace, record_ids: Sequence[str]) -> list[LedgerPoint]:
    """The points of these records."""
    return _points(connection, of_index(*place) & among(record_ids))


def spoil(connection: Connection, place: IndexPlace, record_ids: Sequence[str]) -> None:
    """Let no hash of these records match any more, so that the next job embeds them.

    Their chunks stay counted: the job deletes those that the new text does not fill.
    """
    connection.execute(
        update(qdrant_vectors)
        .where(of_index(*place), among(record_ids))
        .values(content_hash="", data_hash="", text_hash=None, row_hash=None, updated_at=None)
    )


def forget(connection: Connection, place: IndexPlace, record_ids: Sequence[str]) -> None:
    """Delete the ledger's rows of these records."""
    connection.execute(delete(qdrant_vectors).where(of_index(*place), among(record_ids)))


def spaces_of(connection: Connection, incarnation: UUID) -> list[tuple[str, str, str, int]]:
    """Table, vector type and space of each set of points that the tenant has, and how many."""
    vectors = qdrant_vectors.c
    names = (vectors.table_name, vectors.vector_type, vectors.space_id)
    query = select(*names, func.count()).where(vectors.incarnation == incarnation).group_by(*names)
    return [(table, kind, space, int(count)) for table, kind, space, count in connection.execute(query)]


def forget_all(connection: Connection, place: IndexPlace) -> None:
    """Delete all of an index's rows in a space."""
    connection.execute(delete(qdrant_vectors).where(of_index(*place)))


def among(record_ids: Sequence[str]) -> ColumnElement[bool]:
    """Whether a row of ``qdrant_vectors`` is of one of these records."""
    return qdrant_vectors.c.record_id == func.any(cast(list(record_ids), ARRAY(Text)))


def _points(connection: Connection, where: ColumnElement[bool]) -> list[LedgerPoint]:
    vectors = qdrant_vectors.c
    query = select(
        *(vectors.record_id, vectors.chunk, vectors.point_id),
        *(vectors.content_hash, vectors.version, vectors.data_hash),
    ).where(where)
    return [LedgerPoint(*row) for row in connection.execute(query)]
