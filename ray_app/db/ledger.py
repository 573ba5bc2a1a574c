"""What is embedded: the ``qdrant_vectors`` rows, read and written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Integer,
    Text,
    and_,
    case,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from ray_app.db import dead_letters, schema, usage
from ray_app.db.clock import AHEAD
from ray_app.db.schema import qdrant_vectors
from ray_app.diff import LedgerEntry
from ray_app.identity import point_id
from ray_app.parts import Part
from ray_app.spaces import EmbeddingSpace
from ray_app.tenants import TenantScope
from ray_app.text import SNIPPET_CHARS, data_hash, text_hash


def of_index(incarnation: UUID, table: str, vector_type: str, space_id: str) -> ColumnElement[bool]:
    """Whether a row of ``qdrant_vectors`` belongs to the index, in that space."""
    vectors = qdrant_vectors.c
    return and_(
        vectors.incarnation == incarnation,
        vectors.table_name == table,
        vectors.vector_type == vector_type,
        vectors.space_id == space_id,
    )


def entries(
    connection: Connection,
    incarnation: UUID,
    table: str,
    vector_type: str,
    space_id: str,
    record_ids: Sequence[str],
) -> dict[str, LedgerEntry]:
    """What the ledger knows of these records.

    A row's own time that lies in the future is left out: a clock was wrong when it was set, and no later
    state of the row is to count as older for it.
    """
    vectors = qdrant_vectors.c
    newest = func.max(vectors.updated_at)
    now = func.extract("epoch", func.clock_timestamp() + AHEAD) * 1_000_000

    def agreed(column: ColumnElement[str]) -> ColumnElement[str]:
        return case((func.min(column) == func.max(column), func.min(column)))

    query = (
        select(
            vectors.record_id,
            agreed(vectors.content_hash),
            agreed(vectors.data_hash),
            func.count(),
            case((newest <= now, newest)),
        )
        .where(
            of_index(incarnation, table, vector_type, space_id),
            vectors.record_id == func.any(list(record_ids)),
        )
        .group_by(vectors.record_id)
    )
    return {record: LedgerEntry(*known) for record, *known in connection.execute(query)}


def record_page(
    connection: Connection,
    incarnation: UUID,
    table: str,
    vector_type: str,
    space_id: str,
    lo: str | None,
    hi: str | None,
    limit: int,
) -> dict[str, int]:
    """Up to ``limit`` records of the ledger with ids in (lo, hi], in byte order, and their chunks."""
    record = qdrant_vectors.c.record_id
    query = (
        select(record, func.count().label("chunks"))
        .where(of_index(incarnation, table, vector_type, space_id))
        .group_by(record)
        .order_by(record)
        .limit(limit)
    )
    if lo is not None:
        query = query.where(record > lo)
    if hi is not None:
        query = query.where(record <= hi)
    return {row.record_id: row.chunks for row in connection.execute(query)}


def record_edges(
    connection: Connection, incarnation: UUID, table: str, vector_type: str, space_id: str, size: int
) -> tuple[list[str], int]:
    """Every ``size``-th record id of the index in byte order, and how many records there are."""
    numbered = (
        select(
            qdrant_vectors.c.record_id,
            func.row_number().over(order_by=qdrant_vectors.c.record_id).label("place"),
        )
        .where(of_index(incarnation, table, vector_type, space_id), qdrant_vectors.c.chunk == 0)
        .subquery()
    )
    edges = connection.scalars(
        select(numbered.c.record_id).where(numbered.c.place % size == 0).order_by(numbered.c.place)
    ).all()
    total = connection.scalar(select(func.count()).select_from(numbered)) or 0
    return list(edges), int(total)


def record_count(
    connection: Connection, incarnation: UUID, table: str, vector_type: str, space_id: str
) -> int:
    """Records of the index that have vectors."""
    query = select(func.count()).where(
        of_index(incarnation, table, vector_type, space_id), qdrant_vectors.c.chunk == 0
    )
    return int(connection.scalar(query) or 0)


def sample_records(
    connection: Connection, incarnation: UUID, table: str, vector_type: str, space_id: str, size: int
) -> list[str]:
    """Up to ``size`` records of the index from all over it, the same ones every time."""
    query = (
        select(qdrant_vectors.c.record_id)
        .where(of_index(incarnation, table, vector_type, space_id), qdrant_vectors.c.chunk == 0)
        .order_by(func.md5(qdrant_vectors.c.record_id))
        .limit(size)
    )
    return list(connection.scalars(query))


def point_count(
    connection: Connection, incarnation: UUID, table: str, vector_type: str, space_id: str
) -> int:
    """Points of the index, by the ledger."""
    query = select(func.count()).where(of_index(incarnation, table, vector_type, space_id))
    return int(connection.scalar(query) or 0)


def write_part(
    connection: Connection, scope: TenantScope, space: EmbeddingSpace, part: Part, *, charge: bool = True
) -> None:
    """Record an acknowledged part, in the caller's transaction: vectors, faults and, to ``charge``, usage."""
    _upsert_vectors(connection, scope, space, part)
    _delete_vectors(connection, scope.incarnation, part)
    _refresh_data(connection, scope.incarnation, part)
    dead_letters.record_faults(connection, scope.incarnation, part)
    dead_letters.resolve(connection, scope.incarnation, part)
    if charge and (part.tokens or part.vectors is not None):
        usage.add_part(connection, scope.incarnation, space, part)


def _upsert_vectors(connection: Connection, scope: TenantScope, space: EmbeddingSpace, part: Part) -> None:
    now = datetime.now(UTC)
    rows = [
        {
            "incarnation": scope.incarnation,
            "table_name": part.table,
            "vector_type": part.vector_type,
            "record_id": record,
            "chunk": chunk,
            "point_id": point_id(
                scope.secret, scope.incarnation, part.table, part.vector_type, record, chunk
            ),
            "space_id": part.space_id,
            "content_hash": digest,
            "text_hash": text_hash(text, space),
            "row_hash": bytes.fromhex(row_hash) if row_hash is not None else None,
            "data_hash": data_hash(data),
            "version": part.version,
            "updated_at": updated_at,
            "snippet": text[:SNIPPET_CHARS],
            "provider": part.provider,
            "model": space.model,
            "embedded_at": now,
        }
        for record, chunk, digest, row_hash, text, data, updated_at in zip(
            part.record_ids,
            part.chunk_numbers,
            part.hashes,
            part.row_hashes or [None] * len(part.record_ids),
            part.texts,
            part.data,
            part.updated_at,
            strict=True,
        )
    ]
    if not rows:
        return
    statement = insert(qdrant_vectors)
    names = (
        *("content_hash", "text_hash", "row_hash", "data_hash", "version", "updated_at"),
        *("snippet", "provider", "model", "embedded_at"),
    )
    changed = {name: statement.excluded[name] for name in names}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=list(qdrant_vectors.primary_key),
            set_=changed,
            where=qdrant_vectors.c.version <= statement.excluded.version,
        ),
        rows,
    )


def _delete_vectors(connection: Connection, incarnation: UUID, part: Part) -> None:
    if not part.drops:
        return
    records = literal([record for record, _ in part.drops], ARRAY(Text))
    chunks = literal([chunk for _, chunk in part.drops], ARRAY(Integer))
    gone = func.unnest(records, chunks).table_valued("record_id", "chunk").render_derived()
    connection.execute(
        delete(qdrant_vectors).where(
            of_index(incarnation, part.table, part.vector_type, part.space_id),
            qdrant_vectors.c.record_id == gone.c.record_id,
            qdrant_vectors.c.chunk == gone.c.chunk,
        )
    )


def _refresh_data(connection: Connection, incarnation: UUID, part: Part) -> None:
    if not part.refreshes:
        return
    records = literal([change.record_id for change in part.refreshes], ARRAY(Text))
    digests = literal([data_hash(change.data) for change in part.refreshes], ARRAY(Text))
    fresh = func.unnest(records, digests).table_valued("record_id", "data_hash").render_derived()
    connection.execute(
        update(qdrant_vectors)
        .where(
            of_index(incarnation, part.table, part.vector_type, part.space_id),
            qdrant_vectors.c.record_id == fresh.c.record_id,
            qdrant_vectors.c.version <= part.version,
        )
        .values(data_hash=fresh.c.data_hash, version=part.version, row_hash=None)
    )


#: Tables with rows of a tenant, the registry's own row left out; referring ones first.
_TENANT_TABLES = (
    qdrant_vectors,
    schema.dead_letters,
    schema.index_changes,
    schema.index_migrations,
    schema.tenant_moves,
    schema.indexes,
    schema.usage,
    schema.api_keys,
    schema.job_locks,
    schema.jobs,
    schema.sync_marks,
    schema.sync_schedules,
)


def erase_tenant_rows(connection: Connection, incarnation: UUID) -> None:
    """Delete the tenant's ledger rows, all but the registry's and the record of its erasure."""
    for table in _TENANT_TABLES:
        connection.execute(delete(table).where(table.c.incarnation == incarnation))


def count_tenant_rows(connection: Connection, incarnation: UUID) -> dict[str, int]:
    """The tenant's ledger rows by table, those that ``erase_tenant_rows`` deletes."""
    return {
        table.name: connection.scalar(select(func.count()).where(table.c.incarnation == incarnation)) or 0
        for table in _TENANT_TABLES
    }
