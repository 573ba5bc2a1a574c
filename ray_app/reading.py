"""From a key range to parts: read pages, leave out what has not changed, cut texts into chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine

from ray_app.db import clock, dead_letters, ledger, recognition, records
from ray_app.db.ranges import RangeSpec
from ray_app.db.source import SourceRow
from ray_app.diff import Diff, LedgerEntry, Sighting
from ray_app.outage import ride_out
from ray_app.parts import Part, PartKey
from ray_app.reports import Counts
from ray_app.workspace import IndexReader

T = TypeVar("T")
#: Rows of one part at most; a range usually has fewer.
PART_ROWS: Final = 500
#: Characters of row values in one part, about; a part of huge rows is ended early.
PART_CHARS: Final = 4_000_000
#: Ledger records looked up at once by a sweep.
SWEEP_RECORDS: Final = 2_000
#: Rows recognised by their hashes at once.
HASHED_ROWS: Final = 5_000
#: The key of a part that no job reads.
NO_JOB: Final = PartKey("", 0, 0, None, None)


@dataclass(frozen=True)
class Page:
    """Rows of (lo, hi], up to ``hi`` (None: to the range's own end), read at ``version``."""

    rows: list[SourceRow]
    version: int
    hi: str | None
    last: bool


class RangeReader:
    """Reads the ranges of one index. Every page is a short transaction; none stays open while a
    slow encoder holds the pipeline up."""

    def __init__(self, index: IndexReader, source: Engine, ledger_: Engine, outage_budget: float) -> None:
        self._index = index
        self._source = source
        self._ledger = ledger_
        self._budget = outage_budget
        #: The index in the ledger: incarnation, table, vector type, space.
        self._where = (
            *(index.tenant.incarnation, index.index.table),
            *(str(index.index.vector_type), index.index.space.space_id),
        )

    def read(self, job_id: str, run: int, work: RangeSpec) -> Iterator[Part]:
        """The parts of a range, in order; they chain from its lower to its upper bound."""
        read_next = {"rows": self._next_rows, "sweep": self._next_gone, "ids": self._next_ids}[work.kind]
        lo = work.lo
        while True:
            part, last = read_next(work, PartKey(job_id, run, work.seq, lo, work.hi))
            yield part
            if last:
                return
            lo = part.key.hi

    def _next_rows(self, work: RangeSpec, key: PartKey) -> tuple[Part, bool]:
        page = self._ride_out(partial(self.page, key.lo, key.hi))
        hi = work.hi if page.last else page.hi
        return self._changes(page, replace(key, hi=hi)), page.last

    def _next_ids(self, work: RangeSpec, key: PartKey) -> tuple[Part, bool]:
        # A redrive: these failed before, and are to be tried again as they are.
        page = self._ride_out(partial(self._fetch, work.keys or ()))
        return self._changes(page, key, retry_dead=True), True

    def changed(self, key: PartKey, ids: Sequence[str]) -> Part:
        """What these records need, dead letters tried again; those without a row lose what they have."""
        return self._with_gone(key, ids, retry_dead=True, strays=True)[0]

    def part_of(self, ids: Sequence[str], *, strays: bool = False) -> tuple[Part, list[Sighting], set[str]]:
        """As ``changed`` for no job, and dead letters wait for another text.

        Without ``strays`` nothing is deleted of a record that is gone and that the ledger does not know.
        Returns the part, the unchanged rows, which can be recognised by their hashes from now on, and the
        records whose row is gone or not active.

        Raises:
            DatabaseUnavailable: Postgres cannot be reached.
        """
        part, diff, gone = self._with_gone(NO_JOB, ids, retry_dead=False, strays=strays)
        return part, diff.sightings, gone

    def _with_gone(
        self, key: PartKey, ids: Sequence[str], *, retry_dead: bool, strays: bool
    ) -> tuple[Part, Diff, set[str]]:
        page = self._ride_out(partial(self._fetch, ids))
        part, diff = self._compared(page, key, retry_dead=retry_dead)
        gone = set(ids) - {row.record_id for row in page.rows}
        with self._ledger.connect() as connection:
            known = ledger.entries(connection, *self._where, sorted(gone))
        # The first chunk of a stray: a part that was cut off may have left points behind.
        chunks = {record: known[record].chunks if record in known else int(strays) for record in sorted(gone)}
        drops = [(record, chunk) for record, count in chunks.items() for chunk in range(count)]
        counts = part.counts + Counts(read=len(known), deleted=len(known))
        return replace(part, drops=[*part.drops, *drops], counts=counts), diff, gone

    def _fetch(self, ids: Sequence[str]) -> Page:
        version = self._version()
        with self._source.connect() as connection:
            client, recipe = self._index.tenant.client_id, self._index.comparer.recipe
            rows = list(self._index.source.read_ids(connection, client, ids, recipe))
        return Page(rows, version, None, last=True)

    def _next_gone(self, work: RangeSpec, key: PartKey) -> tuple[Part, bool]:
        gone, version, last = self._ride_out(partial(self.gone, key.lo, key.hi))
        drops = [(record, chunk) for record, chunks in gone.items() for chunk in range(chunks)]
        counts = Counts(read=len(gone), deleted=len(gone))
        hi = work.hi if last is None else last
        return self._part(replace(key, hi=hi), version, counts, drops=drops), last is None

    def _version(self) -> int:
        """Of the rows that are read after this."""
        with self._ledger.connect() as connection:
            return clock.next_version(connection)

    def _ride_out(self, call: Callable[[], T]) -> T:
        return ride_out(call, budget=self._budget, what="Reading")

    def _part(self, key: PartKey, version: int, counts: Counts, **columns: Any) -> Part:
        index = self._index.index
        return Part(key, index.table, index.vector_type, index.space.space_id, version, counts, **columns)

    def page(self, lo: str | None, hi: str | None) -> Page:
        """The first rows with keys in (lo, hi], as many as one part takes."""
        source, rows, size = self._index.source, [], 0
        version = self._version()
        with self._source.connect() as connection:
            recipe = self._index.comparer.recipe
            for row in source.read(connection, self._index.tenant.client_id, lo, hi, recipe):
                rows.append(row)
                size += _chars(row)
                if len(rows) == PART_ROWS or size >= PART_CHARS:
                    return Page(rows, version, row.record_id, last=False)
        return Page(rows, version, None, last=True)

    def hashes(self, lo: str | None, hi: str | None) -> tuple[list[tuple[str, bool]], str | None]:
        """The first rows with keys in (lo, hi], each with whether the ledger recognises it as it is.

        Returns them with the last one's key, None when there are no more. A recognised row is unchanged:
        what its record has was made of a row with the same hash.
        """
        size = HASHED_ROWS
        with self._source.connect() as connection:
            client, recipe = self._index.tenant.client_id, self._index.comparer.recipe
            page = self._index.source.hashes(connection, client, lo, hi, recipe, size)
        with self._ledger.connect() as connection:
            known = recognition.row_hashes(connection, *self._where, [record for record, _ in page])
        rows = [(record, known.get(record) == digest) for record, digest in page]
        return rows, page[-1][0] if len(page) == size else None

    def rows_of(self, ids: Sequence[str]) -> Iterator[list[SourceRow]]:
        """The rows of ``ids`` that are still there, by key, as many at a time as one part takes."""
        rows, size = [], 0
        with self._source.connect() as connection:
            client, recipe = self._index.tenant.client_id, self._index.comparer.recipe
            for row in self._index.source.read_ids(connection, client, ids, recipe):
                rows.append(row)
                size += _chars(row)
                if len(rows) == PART_ROWS or size >= PART_CHARS:
                    yield rows
                    rows, size = [], 0
        if rows:
            yield rows

    def records(self) -> int:
        """Records of the index that have vectors, by the ledger."""
        with self._ledger.connect() as connection:
            return ledger.record_count(connection, *self._where)

    def recognise(self, connection: Connection, sightings: Sequence[Sighting]) -> None:
        """Let these rows be recognised from now on, in the caller's transaction of the ledger."""
        index, incarnation = self._index.index, self._index.tenant.incarnation
        if sightings:
            records.lock_records(connection, incarnation, index.table, [item.record_id for item in sightings])
            recognition.note_rows(connection, *self._where, sightings)

    def lookup(self, rows: list[SourceRow]) -> tuple[dict[str, LedgerEntry], dict[str, str]]:
        """What the ledger knows of these rows: their vectors, and their open dead letters' hashes."""
        where = self._where
        ids = [row.record_id for row in rows]
        with self._ledger.connect() as connection:
            return ledger.entries(connection, *where, ids), dead_letters.open_hashes(connection, *where, ids)

    def compare(self, rows: list[SourceRow], known: dict[str, LedgerEntry], dead: dict[str, str]) -> Diff:
        """What the rows need, given what ``lookup`` answered for them."""
        return self._index.comparer.compare(rows, known, dead)

    def _changes(self, page: Page, key: PartKey, *, retry_dead: bool = False) -> Part:
        return self._compared(page, key, retry_dead=retry_dead)[0]

    def _compared(self, page: Page, key: PartKey, *, retry_dead: bool = False) -> tuple[Part, Diff]:
        known, dead = self._ride_out(partial(self.lookup, page.rows))
        diff = self.compare(page.rows, known, {} if retry_dead else dead)
        columns: dict[str, list[Any]] = {
            name: []
            for name in (
                *("record_ids", "chunk_numbers", "texts", "hashes"),
                *("data", "updated_at", "row_hashes"),
            )
        }
        drops = [(record, chunk) for record, chunks in diff.emptied.items() for chunk in range(chunks)]
        pieces = self._index.chunker.chunk([change.text for change in diff.changes])
        for change, chunks in zip(diff.changes, pieces, strict=True):
            for number, chunk in enumerate(chunks):
                row = (
                    *(change.record_id, number, chunk.text),
                    *(change.content_hash, change.data, change.updated_at, change.row_hash),
                )
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
            drops += [(change.record_id, number) for number in range(len(chunks), change.old_chunks)]
        tokens = sum(chunk.tokens for chunks in pieces for chunk in chunks)
        columns |= {"drops": drops, "refreshes": diff.refreshes}
        return self._part(key, page.version, diff.counts, estimated_tokens=tokens, **columns), diff

    def gone(self, lo: str | None, hi: str | None) -> tuple[dict[str, int], int, str | None]:
        """Records of one ledger page in (lo, hi] whose row is gone or inactive, with their chunks.

        Returns them with a version and the page's last record id, None when the page was the last.
        """
        with self._ledger.connect() as connection:
            version = clock.next_version(connection)
            page = ledger.record_page(connection, *self._where, lo, hi, SWEEP_RECORDS)
        with self._source.connect() as connection:
            there = self._index.source.present(connection, self._index.tenant.client_id, list(page))
        last = next(reversed(page)) if len(page) == SWEEP_RECORDS else None
        if last == hi:
            last = None  # full, and the range's end
        return {record: chunks for record, chunks in page.items() if record not in there}, version, last


def _chars(row: SourceRow) -> int:
    return sum(len(value) for value in row.values.values() if isinstance(value, str))
