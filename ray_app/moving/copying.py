"""Making one index of a tenant the same in two places, a little at a time, while it is written.

Each step holds the move's row, so that steps follow one another whoever takes them: two processes that carry
out one move help each other. Whatever is compared record by record is held by the locks that its writers
take. A range of points is read whole only where the digests of the two places differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias, TypeVar
from uuid import UUID

from sqlalchemy import Connection, update

from ray_app.db import audits, generations, ledger
from ray_app.db.audits import LedgerPoint
from ray_app.db.fences import lock_placed
from ray_app.db.generations import Generation
from ray_app.db.indexes import PinnedIndex
from ray_app.db.moves import find_move
from ray_app.db.records import lock_records
from ray_app.db.schema import tenant_moves
from ray_app.errors import ConflictError, StoreUnavailable
from ray_app.identity import point_id
from ray_app.outage import ride_out
from ray_app.reconciling.drift import slice_bits, slice_bounds
from ray_app.reconciling.index_survey import pieces
from ray_app.records.directory import key_of
from ray_app.store.port import Digest, StoredPoint, VectorStore
from ray_app.tenants import TenantScope
from ray_app.workspace import Workspace

T = TypeVar("T")
#: Points copied at once, and records compared or followed at once, while their writers wait.
PAGE: Final = 250
RECORDS: Final = 100
#: Chunks of a record asked for at a time; few records have more.
_CHUNKS: Final = 8

#: A record and the number of one of its chunks.
Key: TypeAlias = tuple[str, int]
#: What makes two points the same.
Signature: TypeAlias = tuple[UUID, str, int, str]


@dataclass(frozen=True)
class Places:
    """Where a tenant's vectors are, and where they are being brought."""

    source: TenantScope
    target: TenantScope


@dataclass
class Looked:
    """What a look at one range, or at several, found."""

    points: int = 0
    #: Points copied, and points deleted in the target.
    copied: int = 0
    deleted: int = 0
    #: Records that differ though they were just made the same.
    differing: set[str] = field(default_factory=set)
    #: Records of which the ledger says something else than both places.
    unknown: set[str] = field(default_factory=set)
    #: Points of the source under an id that is not their record's; they are not copied.
    misplaced: int = 0

    def add(self, other: Looked) -> None:
        self.points += other.points
        self.copied += other.copied
        self.deleted += other.deleted
        self.differing |= other.differing
        self.unknown |= other.unknown
        self.misplaced += other.misplaced


@contextmanager
def step(workspace: Workspace, places: Places) -> Iterator[Connection]:
    """A transaction in which nobody else takes a step of the move, and the tenant stays where it is.

    Raises:
        ConflictError: the move was given up, or has ended.
        TenantMoved: it has switched.
        UnknownTenant: the tenant is being removed.
    """
    with workspace.ledger.begin() as connection:
        hold(connection, places)
        lock_placed(connection, places.source)
        yield connection


def hold(connection: Connection, places: Places) -> None:
    """Take the move's row. Raises ConflictError: the move was given up, or has ended."""
    move = find_move(connection, places.source.incarnation, lock=True)
    if move is None or not move.stage.followed or move.placement is not places.target.placement:
        raise ConflictError(
            "The move has ended, or was given up, meanwhile.", hint="rowbeam tenant move NAME --status"
        )


class IndexCopier:
    """Makes one index the same in the target as it is in the source."""

    def __init__(self, workspace: Workspace, store: VectorStore, places: Places, index: PinnedIndex) -> None:
        self.index = index
        self._workspace = workspace
        self._store = store
        self._places = places
        self._key = key_of(index)
        self._where = (places.source.incarnation, index.table, str(index.vector_type))
        self._place = (*self._where, index.space.space_id)

    @property
    def gate(self) -> Generation:
        """What its writers pass."""
        return Generation(*self._place)

    def prepare(self) -> None:
        """Make what the index needs in the target. Idempotent."""
        fields = self._workspace.source_table(self.index.table).payload_fields()

        def make() -> None:
            with step(self._workspace, self._places):
                self._store.ensure_index(self._places.target, self._key, fields)

        self._ride_out(make)

    def look(self) -> Iterator[Looked]:
        """Make every range of points the same, one after the other; what became of each.

        A record that is written meanwhile may differ when this has passed it: it is noted, and followed.
        """
        with self._workspace.ledger.connect() as connection:
            bits = slice_bits(ledger.point_count(connection, *self._place))
            known = audits.slice_digests(connection, self._place, bits)
        for number in range(1 << bits):
            points = known.get(number, Digest(0, 0)).points
            yield self._ride_out(partial(self._look_at, *slice_bounds(number, bits), points))

    def _look_at(self, lo: UUID, hi: UUID, known: int) -> Looked:
        looked, suspects = Looked(), list[Key]()
        with step(self._workspace, self._places) as connection:
            mine = self._store.digest(self._places.source, self._key, lo, hi)
            theirs = self._store.digest(self._places.target, self._key, lo, hi)
            looked.points = mine.points
            if mine.points and not theirs.points:
                looked.copied = self._copy(lo, hi, mine.points)
                theirs = self._store.digest(self._places.target, self._key, lo, hi)
            if mine != theirs or theirs.points != known:
                suspects, looked.misplaced = self._suspects(connection, lo, hi)
            self._count(connection, looked.points)
        for part in pieces(list(dict.fromkeys(record for record, _ in suspects)), RECORDS):
            seen = [key for key in suspects if key[0] in set(part)]
            with step(self._workspace, self._places) as connection:
                looked.add(self.align(connection, part, seen))
        return looked

    def _count(self, connection: Connection, points: int) -> None:
        moves = tenant_moves.c
        connection.execute(
            update(tenant_moves)
            .where(moves.incarnation == self._places.source.incarnation)
            .values(done=moves.done + points)
        )

    def _copy(self, lo: UUID, hi: UUID, points: int) -> int:
        """Copy a range that the target has nothing of."""
        after = UUID(int=lo.int - 1) if lo.int else None
        copied, left = 0, points
        while left > 0:
            page = self._store.copies_after(self._places.source, self._key, after, min(PAGE, left))
            if not page:
                break
            own = [
                copy
                for copy in page
                if copy.point_id <= hi and copy.point_id == self._id_of(copy.record_id, copy.chunk)
            ]
            self._store.write_copies(self._places.target, self._key, own)
            copied, left, after = copied + len(own), left - len(page), page[-1].point_id
        return copied

    def _suspects(self, connection: Connection, lo: UUID, hi: UUID) -> tuple[list[Key], int]:
        """Points of a range that the two places, or they and the ledger, do not agree on, and how many of the
        source are misplaced."""
        listed = self._store.points_between(self._places.source, self._key, lo, hi)
        mine = [point for point in listed if point.point_id == self._id_of(point.record_id, point.chunk)]
        theirs = self._store.points_between(self._places.target, self._key, lo, hi)
        known = audits.points_between(connection, self._place, lo, hi)
        unlike = {_signature(point) for point in mine} ^ {_signature(point) for point in theirs}
        suspects = {_key(point) for point in (*mine, *theirs) if _signature(point) in unlike}
        suspects |= {_key(point) for point in mine} ^ {_key(point) for point in known}
        return sorted(suspects), len(listed) - len(mine)

    def align(self, connection: Connection, records: Sequence[str], seen: Iterable[Key] = ()) -> Looked:
        """Make these records the same in both places, in a step's transaction; it holds them until it ends.

        ``seen`` are points that may be there beside the chunks from 0 on.
        """
        lock_records(connection, self._places.source.incarnation, self.index.table, records)
        looked = Looked()
        mine = self._points(self._places.source, records, seen)
        theirs = self._points(self._places.target, records, seen)
        wanted = [key for key, point in mine.items() if theirs.get(key) != point]
        surplus = sorted(theirs.keys() - mine.keys())
        for part in pieces(wanted, PAGE):
            copies = self._store.copies_of(self._places.source, self._key, part)
            self._store.write_copies(self._places.target, self._key, copies)
        if surplus:
            self._store.delete(self._places.target, self._key, surplus)
        if wanted or surplus:
            theirs = self._points(self._places.target, records, seen)
        looked.copied, looked.deleted = len(wanted), len(surplus)
        looked.differing = {record for record, _ in _unlike(mine, theirs)}
        known = audits.points_of(connection, self._place, records)
        looked.unknown = {record for record, _ in {_key(point) for point in known} ^ theirs.keys()}
        return looked

    def behind(self) -> int:
        """Records yet to be followed."""
        with self._workspace.ledger.connect() as connection:
            return generations.count_changes(connection, *self._where)

    def follow(self) -> int:
        """Follow up to ``RECORDS`` records that were written; how many there were."""

        def follow() -> int:
            with step(self._workspace, self._places) as connection:
                return self.follow_in(connection)

        return self._ride_out(follow)

    def follow_in(self, connection: Connection) -> int:
        """As ``follow``, in a step's transaction. Raises StoreUnavailable: what was written is not there."""
        noted = generations.noted_changes(connection, *self._where, RECORDS)
        if noted:
            looked = self.align(connection, [change.record_id for change in noted])
            if looked.differing:
                raise StoreUnavailable(
                    f"{len(looked.differing)} records were copied and are not there.",
                    hint="Run rowbeam doctor, then this again.",
                )
            generations.forget_changes(connection, *self._where, noted)
        return len(noted)

    def _points(
        self, scope: TenantScope, records: Sequence[str], seen: Iterable[Key]
    ) -> dict[Key, Signature]:
        """The records' points in one place."""
        found: dict[Key, Signature] = {}
        keys = {*((record, chunk) for record in records for chunk in range(_CHUNKS)), *seen}
        first = _CHUNKS
        while keys:
            page = self._store.points_of(scope, self._key, sorted(keys))
            found |= {_key(point): _signature(point) for point in page}
            # Chunks are numbered without a gap: one that has the last of these may have more.
            more = {point.record_id for point in page if point.chunk == first - 1}
            keys = {(record, chunk) for record in more for chunk in range(first, first + _CHUNKS)}
            first += _CHUNKS
        return found

    def _ride_out(self, call: Callable[[], T]) -> T:
        """A step may be taken again: it is one transaction, and what it writes names its points."""
        budget = self._workspace.settings.outage_budget
        return ride_out(call, budget=budget, what="The ledger or the vector store")

    def _id_of(self, record: str, chunk: int) -> UUID:
        return point_id(self._places.source.secret, *self._where, record, chunk)


def _key(point: StoredPoint | LedgerPoint) -> Key:
    return point.record_id, point.chunk


def _signature(point: StoredPoint) -> Signature:
    return point.point_id, point.content_hash, point.version, point.data_hash


def _unlike(mine: dict[Key, Signature], theirs: dict[Key, Signature]) -> set[Key]:
    return {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
