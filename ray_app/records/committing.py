"""Writing what was embedded: points first, ledger second, in one transaction that keeps others out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from ray_app.db import clock, ledger, records
from ray_app.db.generations import Generation
from ray_app.encoding import item_fault
from ray_app.parts import Fault, Part, PartKey
from ray_app.records.planning import IndexUpsert, Known, Outcome, Verdict, Wanted, judge, look_up
from ray_app.records.rows import PushedRow
from ray_app.reports import Counts
from ray_app.serving.port import Served
from ray_app.store.port import VectorStore
from ray_app.tenants import TenantScope
from ray_app.workspace import Workspace
from ray_app.writing import enter, follow_part, store_points

#: No job wrote these.
_NO_PART = PartKey("", 0, 0, None, None)


@dataclass(frozen=True)
class Settled:
    """What became of a record in one index."""

    outcome: Outcome
    #: Why it is dead.
    reason: str | None = None
    #: Chunks embedded.
    chunks: int = 0


@dataclass
class IndexResult:
    """What became of one index's rows, by record."""

    settled: dict[str, Settled] = field(default_factory=dict)
    #: Rows whose vectors were changed by others after they were compared, and which have to be embedded now.
    overtaken: list[PushedRow] = field(default_factory=list)


def commit_upsert(
    workspace: Workspace,
    store: VectorStore,
    scope: TenantScope,
    upserts: Sequence[IndexUpsert],
    served: Sequence[Served | None],
) -> list[IndexResult]:
    """Write ``upserts``, all of one table; ``served[i]`` has the vectors of ``upserts[i].texts``.

    Rows are compared once more, under locks that every other push takes too: of two states of one row
    the newer is there in the end, however their calls overlapped. When this returns they are durable
    and found. When it raises, points may be written that the ledger does not know; calling again with the
    same rows makes the two agree.

    Raises:
        UnknownTenant: the tenant is being removed.
        IndexMoved: an index is in another space, or the tenant in another place, by now; nothing was written.
        StoreUnavailable, DatabaseUnavailable: nothing is in the ledger.
    """
    table = upserts[0].reader.index.table
    ids = sorted({row.record_id for upsert in upserts for row in upsert.rows})
    generations = [Generation.of(scope.incarnation, upsert.reader.index) for upsert in upserts]
    with workspace.ledger.begin() as connection:
        beside = enter(connection, scope, table, generations, ids)
        version = clock.next_version(connection)
        drafts = [
            _draft(connection, scope, upsert, answer, version)
            for upsert, answer in zip(upserts, served, strict=True)
        ]
        for upsert, draft in zip(upserts, drafts, strict=True):
            store_points(store, scope, upsert.reader.key, draft.part)
        for upsert, draft, others in zip(upserts, drafts, beside, strict=True):
            _record(connection, scope, upsert, draft)
            follow_part(connection, store, scope, others, draft.part)
    return [draft.result for draft in drafts]


@dataclass
class _Draft:
    """What is about to be written to one index."""

    part: Part
    vectors: list[int] = field(default_factory=list)
    #: Rows' own times of records whose vectors stay.
    times: dict[str, int] = field(default_factory=dict)
    #: Records that have vectors of the pushed text, or need none, and are dead letters no more.
    revived: list[str] = field(default_factory=list)
    result: IndexResult = field(default_factory=IndexResult)


def _draft(
    connection: Connection, scope: TenantScope, upsert: IndexUpsert, served: Served | None, version: int
) -> _Draft:
    reader, index = upsert.reader, upsert.reader.index
    known = look_up(connection, scope.incarnation, reader, upsert.rows)
    reasons = records.dead_reasons(connection, scope.incarnation, index.table, list(known.dead))
    provider = served.provider if served else ""
    part = Part(
        _NO_PART, index.table, index.vector_type, index.space.space_id, version, Counts(), provider=provider
    )
    draft = _Draft(part)
    for row in upsert.rows:
        record = row.record_id
        verdict = judge(reader, row, known.entries.get(record), known.dead.get(record))
        if verdict.change is not None:
            _add_change(draft, row, verdict, upsert.wanted.get(record), served)
            continue
        _add_rest(draft, row, verdict, known)
        reason = (
            reasons.get((index.vector_type, index.space.space_id, record))
            if verdict.outcome is Outcome.DEAD
            else None
        )
        draft.result.settled[record] = Settled(verdict.outcome, reason)
    if served is not None:
        draft.part = replace(part, vectors=served.embedded.vectors[draft.vectors])
    return draft


def _add_change(
    draft: _Draft, row: PushedRow, verdict: Verdict, wanted: Wanted | None, served: Served | None
) -> None:
    change, part, record = verdict.change, draft.part, row.record_id
    assert change is not None  # noqa: S101 - the caller's condition
    if wanted is None or served is None:
        draft.result.overtaken.append(row)
        return
    places = range(wanted.first, wanted.first + len(wanted.chunks))
    error = next((fault for at, fault in served.embedded.faults.items() if at in places), None)
    if error is not None:
        fault: Fault = item_fault(record, change.content_hash, error)
        part.faults.append(fault)
        draft.result.settled[record] = Settled(Outcome.DEAD, fault.message)
        if change.old_chunks and change.updated_at is not None:
            draft.times[record] = change.updated_at
        return
    for number, chunk in enumerate(wanted.chunks):
        part.record_ids.append(record)
        part.chunk_numbers.append(number)
        part.texts.append(chunk.text)
        part.hashes.append(change.content_hash)
        part.data.append(change.data)
        part.updated_at.append(change.updated_at)
    draft.vectors += places
    part.drops.extend((record, number) for number in range(len(places), change.old_chunks))
    draft.result.settled[record] = Settled(Outcome.EMBEDDED, chunks=len(places))


def _add_rest(draft: _Draft, row: PushedRow, verdict: Verdict, known: Known) -> None:
    record, entry = row.record_id, known.entries.get(row.record_id)
    draft.part.drops.extend((record, number) for number in range(verdict.drops))
    if verdict.refresh is not None:
        draft.part.refreshes.append(verdict.refresh)
    if verdict.outcome is Outcome.OLDER:
        return
    if verdict.outcome is not Outcome.DEAD and record in known.dead:
        draft.revived.append(record)
    if entry is not None and not verdict.drops and verdict.updated_at is not None:
        draft.times[record] = verdict.updated_at


def _record(connection: Connection, scope: TenantScope, upsert: IndexUpsert, draft: _Draft) -> None:
    index = upsert.reader.index
    where = (scope.incarnation, index.table, index.vector_type, index.space.space_id)
    ledger.write_part(connection, scope, index.space, draft.part, charge=False)
    records.advance_times(connection, *where, draft.times, draft.part.version)
    if draft.revived:
        records.forget_letters(connection, *where, draft.revived)
