"""From vectors to index and ledger, in the order that survives a crash.

First the points, acknowledged; then one ledger transaction. A crash between the two leaves points
the ledger does not know; the range is done again, and deterministic ids make that a rewrite.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine

from ray_app.db import ledger, ranges, records
from ray_app.db.fences import lock_placed
from ray_app.db.generations import Beside, Generation, Standing, admit, note_changes, pass_gates
from ray_app.metrics.counting import count_part
from ray_app.outage import ride_out
from ray_app.parts import Part
from ray_app.reports import Counts
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import IndexKey, PointBatch, PointMeta, VectorStore
from ray_app.tenants import TenantScope


@dataclass(frozen=True)
class Receipt:
    """What writing one part came to."""

    seq: int
    #: False when the part had been counted before.
    counted: bool
    counts: Counts
    provider: str
    tokens: int
    cost: Decimal
    errors: tuple[str, ...]

    def to_row(self) -> dict[str, Any]:
        """Plain columns for Ray Data."""
        row = asdict(self)
        return {**row, "cost": str(self.cost), "errors": list(self.errors)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Receipt:
        return cls(
            **{
                **row,
                "counts": Counts(**row["counts"]),
                "cost": Decimal(row["cost"]),
                "errors": tuple(row["errors"]),
            }
        )


class PartWriter:
    """Writes parts of one tenant. Dependencies that are down are waited for, within ``outage_budget``."""

    def __init__(self, scope: TenantScope, store: VectorStore, ledger_: Engine, outage_budget: float) -> None:
        self._scope = scope
        self._store = store
        self._ledger = ledger_
        self._budget = outage_budget

    def write(self, part: Part, space: EmbeddingSpace) -> Receipt:
        """Store a part and settle it.

        Raises:
            LostJob: another driver has the job; nothing was recorded.
            IndexMoved: the index is in another space, or the tenant in another place, by now; nothing was
                recorded.
            UnknownTenant: the tenant is being removed.
            StoreUnavailable, DatabaseUnavailable: still down after the budget.
        """
        counted = ride_out(
            lambda: self._settle(space, part), budget=self._budget, what="The ledger or the vector store"
        )
        if counted:
            count_part(part)
        return Receipt(
            seq=part.key.seq,
            counted=counted,
            counts=part.counts,
            provider=part.provider,
            tokens=part.tokens,
            cost=part.cost,
            errors=tuple(f"{part.table} {fault.record_id}: {fault.message}" for fault in part.faults),
        )

    def _settle(self, space: EmbeddingSpace, part: Part) -> bool:
        with self._ledger.begin() as connection:
            left, beside = self._store_points(connection, space, part)
            if not ranges.settle_part(connection, part):
                return False
            self._record(connection, space, left, beside)
            return True

    def apply(self, part: Part, space: EmbeddingSpace) -> None:
        """Store a part that belongs to no range of a job; its usage is charged to the job it names.

        Raises:
            IndexMoved: nobody may write this generation, or with this scope, any more.
            UnknownTenant, StoreUnavailable, DatabaseUnavailable: as ``write``.
        """

        def settle() -> None:
            with self._ledger.begin() as connection:
                left, beside = self._store_points(connection, space, part)
                self._record(connection, space, left, beside)

        ride_out(settle, budget=self._budget, what="The ledger or the vector store")
        count_part(part)

    def _store_points(self, connection: Connection, space: EmbeddingSpace, part: Part) -> tuple[Part, Beside]:
        """Write the points; answers what of the part was written, and what has to learn of it."""
        incarnation, ids = self._scope.incarnation, part.written_records
        (beside,) = enter(connection, self._scope, part.table, [generation_of(self._scope, part)], ids)
        newer = records.newer_records(
            connection, incarnation, part.table, part.vector_type, part.space_id, ids, part.version
        )
        # A push after the part was read knows better: also of chunks that it has made superfluous.
        left = part.without(newer) if newer else part
        store_points(self._store, self._scope, IndexKey(part.table, part.vector_type, space), left)
        return left, beside

    def _record(self, connection: Connection, space: EmbeddingSpace, part: Part, beside: Beside) -> None:
        ledger.write_part(connection, self._scope, space, part)
        follow_part(connection, self._store, self._scope, beside, part)


def enter(
    connection: Connection,
    scope: TenantScope,
    table: str,
    generations: Sequence[Generation],
    record_ids: Iterable[str],
) -> list[Beside]:
    """Take what who writes these records of a table holds until the transaction ends.

    Answers, for each of its ``generations`` that are written, what has to learn of it.

    Points of a tenant that is being removed or moved cannot land after its purge or the switch then, and no
    push can come between what is compared and what is written.

    Raises:
        IndexMoved: nobody may write one of the generations any more.
        TenantMoved: the tenant's vectors are in another place than ``scope`` has them.
        UnknownTenant: the tenant is being removed.
    """
    pass_gates(connection, generations)
    if ids := list(record_ids):
        records.lock_records(connection, scope.incarnation, table, ids)
    lock_placed(connection, scope)
    return [admit(connection, generation) for generation in generations]


def generation_of(scope: TenantScope, part: Part) -> Generation:
    """The generation of an index that the part is written to."""
    return Generation(scope.incarnation, part.table, part.vector_type, part.space_id)


def follow_part(
    connection: Connection, store: VectorStore, scope: TenantScope, beside: Beside, part: Part
) -> None:
    """What a part of a pinned generation means to what is beside it, in the caller's transaction.

    What is taken out is taken out of both generations: that costs no model call, and must not come back.
    What is written is noted where the other generation, or another place of the tenant, is being brought up
    to date, for it to follow.
    """
    if beside.standing is not None:
        _take_out_of(connection, store, scope, beside.standing, part)
    if beside.follows:
        note_changes(connection, generation_of(scope, part), part.written_records)


def _take_out_of(
    connection: Connection, store: VectorStore, scope: TenantScope, standing: Standing, part: Part
) -> None:
    gone = {record for record, chunk in part.drops if chunk == 0} - set(part.record_ids)
    if not gone:
        return
    other = replace(generation_of(scope, part), space_id=standing.space.space_id)
    key = (other.incarnation, other.table, other.vector_type, other.space_id)
    known = ledger.entries(connection, *key, sorted(gone))
    drops = [(record, chunk) for record, entry in known.items() for chunk in range(entry.chunks)]
    dropped = Part(
        part.key, part.table, part.vector_type, other.space_id, part.version, Counts(), drops=drops
    )
    store_points(store, scope, IndexKey(part.table, part.vector_type, standing.space), dropped)
    ledger.write_part(connection, scope, standing.space, dropped, charge=False)


def store_points(store: VectorStore, scope: TenantScope, index: IndexKey, part: Part) -> None:
    """Write the part's points, delete those it drops, and refresh payloads; durable when this returns.

    Raises:
        StoreUnavailable: not acknowledged; doing it again is safe.
    """
    if part.record_ids and part.vectors is not None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        metas = [
            PointMeta(record, chunk, text, digest, part.provider, now, data)
            for record, chunk, text, digest, data in zip(
                part.record_ids, part.chunk_numbers, part.texts, part.hashes, part.data, strict=True
            )
        ]
        vectors = np.ascontiguousarray(part.vectors, dtype=np.float32)
        store.upsert(scope, index, PointBatch(metas, vectors, part.version))
    if part.drops:
        store.delete(scope, index, part.drops)
    if part.refreshes:
        store.set_data(scope, index, part.refreshes, part.version)
