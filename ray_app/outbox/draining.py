"""Draining the outbox: claim, read the rows again, bring their indexes into step, forget the entries.

A crash at any point leaves claims that come back when their lease is over, and doing a record again costs
no model call. An entry is forgotten only after its records are in step in every index of their table;
a change that is committed meanwhile has an entry of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError

from ray_app.db.engine import reason_of
from ray_app.db.outbox import Entry, Lane, Outbox, is_there
from ray_app.errors import RowbeamError
from ray_app.outbox.lanes import Pauses
from ray_app.outbox.statements import ALL_CLIENTS
from ray_app.outbox.targets import LaneTargets
from ray_app.serving.port import Lane as QueueLane
from ray_app.syncing.applying import Applier

log = logging.getLogger(__name__)
#: Entries claimed together.
BATCH: Final = 200
#: Lanes worked on at once; the others wait for their turn.
LANES: Final = 16
LEASE: Final = timedelta(seconds=30)
#: Seconds between two extensions of what is held.
_RENEW_SECONDS: Final = 10.0
#: Claims of an entry after which it is given up: its record makes whoever reads it fail.
MOST_ATTEMPTS: Final = 5
#: A job may yet write what it read of a row before that was deleted; such entries are looked at again.
RECHECK: Final = timedelta(seconds=30)


class Drainer:
    """Drains the outbox, several lanes at a time; several drainers share it. Used from one event loop."""

    def __init__(self, applier: Applier, targets: LaneTargets, *, lease: timedelta = LEASE) -> None:
        self._applier = applier
        self._targets = targets
        self._outbox = Outbox(applier.workspace.source, uuid4(), lease)
        self._renew_seconds = min(_RENEW_SECONDS, lease.total_seconds() / 3)
        self._pauses: Pauses[Lane] = Pauses()
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(LANES)

    async def turn(self) -> None:
        """Start on the lanes that have entries, and do not wait for them.

        Raises:
            DatabaseUnavailable: the platform's database cannot be reached.
        """
        if not await self._applier.in_thread(is_there, self._applier.workspace.source):
            return
        lanes = await self._applier.in_thread(self._outbox.lanes)
        self._pauses.keep({*lanes, *self._tasks})
        for lane in lanes:
            if lane not in self._tasks and self._pauses.open(lane):
                task = asyncio.create_task(self._drain(lane))
                self._tasks[lane] = task
                task.add_done_callback(partial(self._forget, lane))

    def _forget(self, lane: Lane, _: object) -> None:
        del self._tasks[lane]

    async def settle(self) -> None:
        """Wait until no lane is worked on."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop where it is, and give back what is held."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(self, lane: Lane) -> None:
        try:
            more = True
            while more:
                async with self._slots:
                    entries = await self._applier.in_thread(self._outbox.claim, lane, BATCH)
                    if entries:
                        await self._hold(lane, entries)
                more = len(entries) == BATCH
        except (RowbeamError, SQLAlchemyError) as error:
            wait = self._pauses.fail(lane, getattr(error, "retry_after", None) or 0.0)
            log.warning(
                "The outbox's changes of table %s wait for %.0f s: %s", lane.table, wait, reason_of(error)
            )
        else:
            self._pauses.succeed(lane)

    async def _hold(self, lane: Lane, entries: Sequence[Entry]) -> None:
        """Work on claimed entries, which are held meanwhile; given back if that fails."""
        keeping = asyncio.create_task(self._keep(lane, entries))
        try:
            await self._work(lane, entries)
        except BaseException:
            await asyncio.shield(self._applier.in_thread(self._outbox.give_back, lane, entries))
            raise
        finally:
            keeping.cancel()

    async def _keep(self, lane: Lane, entries: Sequence[Entry]) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            try:
                await self._applier.in_thread(self._outbox.renew, lane, entries)
            except (RowbeamError, SQLAlchemyError) as error:
                log.warning("Claims of the outbox are not renewed: %s", reason_of(error))

    async def _work(self, lane: Lane, entries: Sequence[Entry]) -> None:
        if lane.client_id == ALL_CLIENTS:
            await self._applier.in_thread(self._targets.queue_gone, self._outbox, lane.table)
            await self._applier.in_thread(self._outbox.finish, lane, entries)
            return
        # One that was claimed before and not given back may be what ended its drainer: it is tried by itself.
        suspects = [entry for entry in entries if entry.attempts > 1]
        others = [entry for entry in entries if entry.attempts <= 1]
        if others:
            await self._try(lane, others)
        for entry in suspects:
            await self._try(lane, [entry])

    async def _try(self, lane: Lane, entries: Sequence[Entry]) -> None:
        if entries[0].attempts > MOST_ATTEMPTS:
            await self._bury(lane, entries[0], "Whoever works on it ends.")
            return
        try:
            await self._apply(lane, entries)
        except (RowbeamError, SQLAlchemyError):
            raise
        except Exception as error:
            # Whatever it is, it is one record's: it is logged and charged to that, and the others go on.
            if len(entries) > 1:
                for entry in entries:
                    await self._try(lane, [entry])
                return
            log.exception("A change of table %s cannot be brought into its index", lane.table)
            if entries[0].attempts >= MOST_ATTEMPTS:
                await self._bury(lane, entries[0], f"{type(error).__name__} while it was synced.")
                return
            wait = timedelta(seconds=2 ** entries[0].attempts)
            await self._applier.in_thread(self._outbox.put_off, lane, entries, wait)

    async def _apply(self, lane: Lane, entries: Sequence[Entry]) -> None:
        target = await self._applier.in_thread(self._targets.find, lane)
        gone: set[str] = set()
        if target is not None:
            ids = list(dict.fromkeys(entry.record_id for entry in entries if entry.record_id is not None))
            queue = QueueLane.BULK if len(entries) == BATCH else QueueLane.INTERACTIVE
            faults = []
            for reader in target.readers:
                try:
                    applied = await self._applier.apply(reader, target.scope, ids, lane=queue, strays=True)
                    gone |= applied.gone
                except RowbeamError as error:
                    faults.append(error)  # a table's other indexes may be of a model that works
            if faults:
                raise faults[0]
        again = []
        if target is not None and gone and await self._applier.in_thread(self._targets.has_job, target, lane):
            again = [entry for entry in entries if entry.record_id in gone]
        kept = {entry.id for entry in again}
        await self._applier.in_thread(self._outbox.put_off, lane, again, RECHECK, fresh=True)
        done = [entry for entry in entries if entry.id not in kept]
        await self._applier.in_thread(self._outbox.finish, lane, done)

    async def _bury(self, lane: Lane, entry: Entry, why: str) -> None:
        """Make a record that nobody can work on a dead letter, and forget its entry."""
        target = await self._applier.in_thread(self._targets.find, lane)
        if target is not None and entry.record_id is not None:
            await self._applier.in_thread(self._targets.record_fault, target, entry.record_id, why)
        await self._applier.in_thread(self._outbox.finish, lane, [entry])
