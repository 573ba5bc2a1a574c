"""One index looked at from three sides: its table's rows, its ledger rows, its points.

First whatever is cheap and may be wrong: rows whose hash the ledger does not know, ledger records
without a row, ranges of points whose digests differ. Then each suspect is judged by itself, under the
lock that its writers take, so that no write in flight is taken for drift.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DataError

from ray_app.db import audits, ledger
from ray_app.db.casting import cast_id
from ray_app.db.records import lock_records
from ray_app.db.source import SourceRow
from ray_app.diff import Diff
from ray_app.identity import point_id
from ray_app.reading import HASHED_ROWS, SWEEP_RECORDS, RangeReader
from ray_app.reconciling.drift import Cause, Verdict, judge, slice_bits, slice_bounds, slice_of
from ray_app.store.port import Digest, IndexKey, StoredPoint, VectorStore
from ray_app.tenants import TenantScope
from ray_app.workspace import IndexReader, Workspace

T = TypeVar("T")
#: Suspects judged under one set of locks.
JUDGED: Final = 200
_NOTHING: Final = Digest(0, 0)


@dataclass
class Findings:
    """What one task found."""

    rows: int = 0
    stored: int = 0
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    #: Points under an id that is not their record's.
    misplaced: list[UUID] = field(default_factory=list)


Task = Callable[[], Findings]


def pieces(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items`` in order, ``size`` at a time."""
    return (items[at : at + size] for at in range(0, len(items), size))


class IndexSurvey:
    """The tasks that survey one index, each small, to be run in any order and on several threads."""

    def __init__(
        self, workspace: Workspace, store: VectorStore, scope: TenantScope, reader: IndexReader
    ) -> None:
        self._workspace = workspace
        self._store = store
        self.scope = scope
        self._reader = reader
        self._ranges = RangeReader(reader, workspace.source, workspace.ledger, outage_budget=0)
        index = reader.index
        self.key = IndexKey(index.table, str(index.vector_type), index.space)
        self.place = (scope.incarnation, index.table, str(index.vector_type), index.space.space_id)
        with workspace.ledger.connect() as connection:
            self.ledger_points = ledger.point_count(connection, *self.place)
        self._bits = slice_bits(self.ledger_points)

    def over(self, store: VectorStore) -> IndexSurvey:
        """The same survey over a store that was opened since."""
        other = copy.copy(self)
        other._store = store
        return other

    def tasks(self) -> Iterator[Task]:
        """Reads little by itself: the borders of ranges, and the ledger's digests."""
        with self._workspace.source.connect() as connection:
            ranges = self._reader.source.cut(connection, self._reader.tenant.client_id, HASHED_ROWS)
        for part in ranges:
            yield partial(self._rows, part.lo, part.hi)
        with self._workspace.ledger.connect() as connection:
            edges, records = ledger.record_edges(connection, *self.place, SWEEP_RECORDS)
            digests = audits.slice_digests(connection, self.place, self._bits)
        if records:
            for lo, hi in pairwise([None, *edges, None]):
                yield partial(self._gone, lo, hi)
        for number in range(1 << self._bits):
            yield partial(self._points, number, digests.get(number, _NOTHING))

    def judge(self, record_ids: Sequence[str], seen: Sequence[tuple[str, int]] = ()) -> dict[str, Verdict]:
        """What is wrong with which of these records, under their locks; ``seen`` are chunks in the store."""
        with self._workspace.ledger.begin() as connection:
            lock_records(connection, self.scope.incarnation, self.key.table, record_ids)
            return self.judge_locked(connection, record_ids, seen)

    def judge_locked(
        self, connection: Connection, record_ids: Sequence[str], seen: Sequence[tuple[str, int]] = ()
    ) -> dict[str, Verdict]:
        """As ``judge``, in a transaction that holds the locks."""
        diffs: dict[str, Diff] = {}
        for rows in self._rows_of(record_ids):
            known, dead = self._ranges.lookup(rows)
            diffs |= {row.record_id: self._ranges.compare([row], known, dead) for row in rows}
        entries = audits.points_of(connection, self.place, record_ids)
        keys = {(entry.record_id, entry.chunk) for entry in entries} | set(seen)
        keys |= {(record, 0) for record in record_ids}
        points = self._store.points_of(self.scope, self.key, sorted(keys))
        verdicts = {}
        for record in record_ids:
            verdict = judge(
                diffs.get(record),
                [point for point in entries if point.record_id == record],
                [point for point in points if point.record_id == record],
            )
            if verdict is not None:
                verdicts[record] = verdict
        return verdicts

    def _rows_of(self, record_ids: Sequence[str]) -> list[list[SourceRow]]:
        """Of ids that come from points, some may not even be of the key's type."""
        try:
            return list(self._ranges.rows_of(record_ids))
        except DataError:
            source = self._reader.source
            usable = [
                record for record in record_ids if cast_id(self._workspace.source, source, record) == record
            ]
            return list(self._ranges.rows_of(usable)) if usable else []

    def _rows(self, lo: str | None, hi: str | None) -> Findings:
        findings, more = Findings(), lo
        while True:
            page, more = self._ranges.hashes(more, hi)
            findings.rows += len(page)
            unknown = [record for record, recognised in page if not recognised]
            self._keep(findings, self._unlike(unknown), Cause.ROW)
            if more is None:
                return findings

    def _unlike(self, record_ids: Sequence[str]) -> list[str]:
        """Those whose row the ledger does not have as it is; a row may be unknown and unchanged."""
        unlike: list[str] = []
        for rows in self._ranges.rows_of(record_ids) if record_ids else ():
            diff = self._ranges.compare(rows, *self._ranges.lookup(rows))
            unlike += [change.record_id for change in diff.changes]
            unlike += [change.record_id for change in diff.refreshes]
            unlike += diff.emptied
        return unlike

    def _gone(self, lo: str | None, hi: str | None) -> Findings:
        findings, more = Findings(), lo
        while True:
            gone, _, last = self._ranges.gone(more, hi)
            self._keep(findings, list(gone), Cause.GONE)
            if last is None:
                return findings
            more = last

    def _points(self, number: int, expected: Digest) -> Findings:
        lo, hi = slice_bounds(number, self._bits)
        if (found := self._store.digest(self.scope, self.key, lo, hi)) == expected:
            return Findings(stored=found.points)
        stored = self._store.points_between(self.scope, self.key, lo, hi)
        with self._workspace.ledger.connect() as connection:
            known = {point.point_id: point for point in audits.points_between(connection, self.place, lo, hi)}
        findings = Findings(stored=len(stored))
        findings.misplaced = [point.point_id for point in stored if point.point_id != self._id_of(point)]
        own = [point for point in stored if point.point_id == self._id_of(point)]
        unlike = [
            (point.record_id, point.chunk)
            for point in own
            if (entry := known.get(point.point_id)) is None
            or (entry.content_hash, entry.version) != (point.content_hash, point.version)
        ]
        there = {point.point_id for point in own}
        lost = [entry.record_id for entry in known.values() if entry.point_id not in there]
        self._keep(findings, [*(record for record, _ in unlike), *lost], Cause.STORE, unlike, number)
        return findings

    def _keep(
        self,
        findings: Findings,
        suspects: Sequence[str],
        cause: Cause,
        seen: Sequence[tuple[str, int]] = (),
        number: int | None = None,
    ) -> None:
        """Judge the suspects, and keep what this task is the one to count."""
        for records in pieces(list(dict.fromkeys(suspects)), JUDGED):
            among = set(records)
            chunks = [key for key in seen if key[0] in among]
            for record, verdict in self.judge(records, chunks).items():
                if verdict.cause is cause and (number is None or self._counts(record, verdict, number)):
                    findings.verdicts[record] = verdict

    def _counts(self, record: str, verdict: Verdict, number: int) -> bool:
        """Of the slices that a record's differing chunks are in, one counts it: that of the first."""
        first = verdict.chunks[0] if verdict.chunks else 0
        return slice_of(self._point_id(record, first), self._bits) == number

    def _id_of(self, point: StoredPoint) -> UUID:
        return self._point_id(point.record_id, point.chunk)

    def _point_id(self, record: str, chunk: int) -> UUID:
        where = (self.scope.incarnation, self.key.table, self.key.vector_type)
        return point_id(self.scope.secret, *where, record, chunk)
