"""One record by its id: what is stored of it, and its removal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ray_app.db import ledger, records
from ray_app.db.casting import MAX_ID_CHARS, cast_id
from ray_app.db.generations import Generation
from ray_app.db.records import StoredRecord
from ray_app.errors import IndexMoved, InputError, UnknownRecord
from ray_app.metrics.counting import count_records
from ray_app.metrics.declared import ONLINE
from ray_app.parts import Part, PartKey
from ray_app.records.directory import IndexDirectory, key_of
from ray_app.reports import Counts
from ray_app.tenants import Tenant, TenantScope
from ray_app.writing import enter, follow_part, store_points


@dataclass(frozen=True)
class RecordState:
    """What is stored of a record in one index."""

    vector_type: str
    model: str
    space_id: str
    #: Who embedded it, and when; None while no text of it could be embedded.
    provider: str | None
    embedded_at: datetime | None
    #: Its points.
    chunks: int
    #: The embedded row's own time, microseconds since 1970, when it had one.
    updated_at: int | None
    #: Why its latest text could not be embedded, when it could not.
    dead_reason: str | None


def record_state(
    directory: IndexDirectory, tenant: Tenant, table: str, record_id: str
) -> tuple[str, list[RecordState]]:
    """The record's id as its table spells it, and its state in each index that knows it.

    Raises:
        UnknownTable, InvalidTableSpec: there is no such table.
        InputError: nothing can have that id.
        UnknownRecord: no index of the tenant knows it.
    """
    record = spelled_id(directory, table, record_id)
    indexes = directory.pinned(tenant, table)
    with directory.workspace.ledger.connect() as connection:
        stored = records.stored_records(connection, tenant.incarnation, table, record)
        reasons = records.dead_reasons(connection, tenant.incarnation, table, [record])
    by_index: dict[tuple[str, str], StoredRecord] = {
        (found.vector_type, found.space_id): found for found in stored
    }
    states = []
    for index in indexes:
        found = by_index.get((index.vector_type, index.space.space_id))
        reason = reasons.get((index.vector_type, index.space.space_id, record))
        if found is None and reason is None:
            continue
        states.append(
            RecordState(
                vector_type=index.vector_type,
                model=index.space.model,
                space_id=index.space.space_id,
                provider=found.provider if found else None,
                embedded_at=found.embedded_at if found else None,
                chunks=found.chunks if found else 0,
                updated_at=found.updated_at if found else None,
                dead_reason=reason,
            )
        )
    if not states:
        raise UnknownRecord(
            f"Nothing is stored of the record {record!r} of table {table}.",
            hint="It was never sent or backfilled, has no text, or was deleted.",
        )
    return record, states


def delete_record(
    directory: IndexDirectory, tenant: Tenant, scope: TenantScope, table: str, record_id: str
) -> tuple[str, int]:
    """Take a record out of all indexes of its table. Idempotent.

    Returns its id as its table spells it, and the number of points that the ledger had of it.

    Raises:
        UnknownTable, InvalidTableSpec: there is no such table.
        InputError: nothing can have that id.
        UnknownTenant: the tenant is being removed.
        StoreUnavailable, DatabaseUnavailable: it may be half gone; do it again.
    """
    record = spelled_id(directory, table, record_id)
    while True:
        # Each time it raises, somebody has changed a model or moved the tenant: seldom twice, never for ever.
        try:
            return record, _delete(directory, tenant, scope, table, record)
        except IndexMoved:
            scope = directory.workspace.registry.scope(tenant)


def _delete(directory: IndexDirectory, tenant: Tenant, scope: TenantScope, table: str, record: str) -> int:
    """Raises IndexMoved when an index is in another space, or the tenant elsewhere, than a moment ago."""
    indexes = directory.pinned(tenant, table)
    generations = [Generation.of(scope.incarnation, index) for index in indexes]
    deleted, records_gone = 0, 0
    with directory.workspace.ledger.begin() as connection:
        entered = enter(connection, scope, table, generations, [record])
        for index, beside in zip(indexes, entered, strict=True):
            where = (scope.incarnation, table, index.vector_type, index.space.space_id)
            entry = ledger.entries(connection, *where, [record]).get(record)
            chunks = entry.chunks if entry else 0
            # The first chunk even so: a call that was cut off may have left points behind.
            part = Part(
                PartKey("", 0, 0, None, None),
                *(table, index.vector_type, index.space.space_id),
                version=0,
                counts=Counts(),
                drops=[(record, number) for number in range(max(chunks, 1))],
            )
            store_points(directory.store, scope, key_of(index), part)
            ledger.write_part(connection, scope, index.space, part, charge=False)
            follow_part(connection, directory.store, scope, beside, part)
            deleted += chunks
            records_gone += entry is not None
    count_records(ONLINE, table, "", Counts(deleted=records_gone))
    return deleted


def spelled_id(directory: IndexDirectory, table: str, record_id: str, *, param: str = "record_id") -> str:
    """The id as the table would spell it; as given when its key column cannot hold it.

    Raises:
        UnknownTable, InvalidTableSpec: there is no such table.
        InputError: nothing can have that id.
    """
    source = directory.table(table)
    if not 0 < len(record_id) <= MAX_ID_CHARS or "\x00" in record_id or not _encodable(record_id):
        raise InputError(
            "The record id cannot be one.",
            hint=f"Ids are 1 to {MAX_ID_CHARS} characters of valid Unicode, without NUL.",
            param=param,
        )
    return cast_id(directory.workspace.source, source, record_id) or record_id


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
