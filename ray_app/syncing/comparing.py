"""One index brought into step with its table: what may have changed is read, what is gone is dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ray_app.db.activity import read_activity
from ray_app.db.recent import ChangedRow, RecentRows
from ray_app.db.sync_marks import SavedMark, load_mark, save_mark
from ray_app.reading import RangeReader
from ray_app.reports import Counts
from ray_app.serving.port import Lane
from ray_app.syncing.applying import Applier
from ray_app.syncing.reports import Reading
from ray_app.syncing.rules import SyncRules
from ray_app.syncing.watermark import next_mark
from ray_app.tenants import TenantScope
from ray_app.workspace import IndexReader

#: Rows compared together.
PAGE: Final = 500
#: Records embedded here before a job does the rest: what a small model does in some seconds on two cores,
#: where a cluster has not even started.
MOST_EMBEDDED: Final = 1_000


@dataclass(frozen=True)
class Start:
    """What is known when a sync of an index begins."""

    reading: Reading
    #: Rows with an earlier time need not be read; None reads all.
    since: datetime | None
    #: To be saved when everything was seen.
    mark: SavedMark


@dataclass(frozen=True)
class Compared:
    """What a sync of an index came to."""

    start: Start
    counts: Counts
    #: False when there is too much to embed here: what was seen is in step, the rest has to be read by a job.
    complete: bool


class IndexSyncer:
    """Brings one index into step, with an applier of this process.

    The order makes it safe to be cut off anywhere: the clock and the open transactions are looked up before
    any row is read, and what they allow is saved after the last record was written.
    """

    def __init__(self, applier: Applier, reader: IndexReader, scope: TenantScope, rules: SyncRules) -> None:
        self._applier = applier
        self._reader = reader
        self._scope = scope
        self._rules = rules
        workspace = applier.workspace
        self._rows = RangeReader(reader, workspace.source, workspace.ledger, outage_budget=0)

    async def run(self, *, full: bool) -> Compared:
        """Read what has to be read, apply it, drop what is gone, and save how far this came.

        Raises:
            RowbeamError: as ``Applier.apply``; nothing is saved and the next sync reads the same again.
        """
        start = await self._applier.in_thread(self._begin, full)
        counts, spent = Counts(), 0
        async for ids in self._candidates(start):
            lane = Lane.BULK if len(ids) == PAGE else Lane.INTERACTIVE
            whole = start.reading is Reading.WHOLE
            applied = await self._applier.apply(self._reader, self._scope, ids, lane=lane, note=whole)
            counts += applied.counts
            spent += applied.counts.embedded
            if spent >= MOST_EMBEDDED:
                return Compared(start, counts, complete=False)
        counts += await self._sweep()
        await self.finish(start)
        return Compared(start, counts, complete=True)

    async def finish(self, start: Start) -> None:
        """Save that everything since ``start`` is in step."""
        await self._applier.in_thread(self._save, start)

    def _begin(self, full: bool) -> Start:
        workspace, tenant, index = self._applier.workspace, self._reader.tenant, self._reader.index
        with workspace.ledger.connect() as connection:
            saved = load_mark(connection, tenant.incarnation, index.table, index.vector_type)
        with workspace.source.connect() as connection:
            activity = read_activity(connection)
        mark = next_mark(activity, saved.mark if saved else None, self._rules.overlap)
        recipe = self._recipe()
        if saved is not None and not full and self._may_read_changes(saved, recipe, activity.clock):
            since = saved.mark.watermark
            return Start(Reading.CHANGES, since, SavedMark(mark, recipe, saved.full_at))
        return Start(Reading.WHOLE, None, SavedMark(mark, recipe, activity.clock))

    def _may_read_changes(self, saved: SavedMark, recipe: str, now: datetime) -> bool:
        age = now - saved.full_at
        return (
            saved.mark.watermark is not None
            and saved.recipe == recipe
            and self._reader.source.recent() is not None
            and timedelta(0) <= age < self._rules.full_every
            # Otherwise it was set back since, and what is written now may have times before the watermark.
            and saved.mark.read_at <= now
        )

    def _recipe(self) -> str:
        """What is made of rows; a column that appears in the table makes another."""
        recipe = self._reader.comparer.recipe
        there = sorted(name for name in recipe.columns if name in self._reader.source.columns)
        return f"{recipe.salt}:{','.join(there)}"

    def _save(self, start: Start) -> None:
        index = self._reader.index
        with self._applier.workspace.ledger.begin() as connection:
            where = (self._reader.tenant.incarnation, index.table, index.vector_type)
            save_mark(connection, *where, start.mark)

    def _candidates(self, start: Start) -> AsyncIterator[Sequence[str]]:
        recent = self._reader.source.recent()
        if start.since is None or recent is None:
            return self._unrecognised()
        return self._changed(recent, start.since)

    async def _unrecognised(self) -> AsyncIterator[Sequence[str]]:
        """Rows whose hash the ledger does not have."""
        after: str | None = None
        waiting: list[str] = []
        while True:
            page, after = await self._applier.in_thread(self._rows.hashes, after, None)
            waiting += [record for record, recognised in page if not recognised]
            while len(waiting) >= PAGE:
                yield waiting[:PAGE]
                waiting = waiting[PAGE:]
            if after is None:
                break
        if waiting:
            yield waiting

    async def _changed(self, recent: RecentRows, since: datetime) -> AsyncIterator[Sequence[str]]:
        """Rows that were changed since, and those that do not say when."""
        last: ChangedRow | None = None
        while page := await self._applier.in_thread(self._changed_page, recent, since, last):
            yield [row.record_id for row in page]
            if len(page) < PAGE:
                break
            last = page[-1]
        after: str | None = None
        while keys := await self._applier.in_thread(self._untimed_page, recent, after):
            yield keys
            if len(keys) < PAGE:
                break
            after = keys[-1]

    def _changed_page(self, recent: RecentRows, since: datetime, last: ChangedRow | None) -> list[ChangedRow]:
        with self._applier.workspace.source.connect() as connection:
            return recent.changed(connection, self._reader.tenant.client_id, since, last, PAGE)

    def _untimed_page(self, recent: RecentRows, after: str | None) -> list[str]:
        with self._applier.workspace.source.connect() as connection:
            return recent.untimed(connection, self._reader.tenant.client_id, after, PAGE)

    async def _sweep(self) -> Counts:
        """Drop the records of the ledger whose row is gone or not active."""
        counts, after = Counts(), None
        while True:
            gone, _, after = await self._applier.in_thread(self._rows.gone, after, None)
            # Read again one by one, since a row may be back by the time it is its turn.
            for first in range(0, len(gone), PAGE):
                ids = list(gone)[first : first + PAGE]
                counts += (await self._applier.apply(self._reader, self._scope, ids)).counts
            if after is None:
                return counts
