"""What a running server does by itself: drains the outbox, and syncs the tenants whose time has come.

Every router has one; the one that holds an advisory lock of the ledger's database works. When it ends,
however it ends, Postgres frees the lock, and another goes on within ``LOOK``; what the outbox's leases
held comes back when they are over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from ray_app.backfilling import create_sync
from ray_app.db.engine import reason_of
from ray_app.db.sync_marks import DueSync, note_synced, take_due
from ray_app.errors import JobConflict, RowbeamError
from ray_app.metrics.declared import SYNCS
from ray_app.outbox.draining import Drainer
from ray_app.outbox.targets import LaneTargets
from ray_app.records.directory import IndexDirectory
from ray_app.reporting import SoleHolder
from ray_app.serving.port import EmbeddingBackend
from ray_app.store.port import VectorStore
from ray_app.syncing.applying import Applier
from ray_app.syncing.operation import indexes_to_sync, sync_indexes
from ray_app.syncing.rules import SyncRules
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

log = logging.getLogger(__name__)
#: Seconds between two looks at the outbox, and for the lock where another holds it.
LOOK: Final = 0.5
#: Seconds between two looks at the schedules.
_SCHEDULE_SECONDS: Final = 2.0
#: Seconds after a fault of the database.
_FAULT_SECONDS: Final = 5.0
#: Threads for calls of Postgres and the store.
THREADS: Final = 4
#: Tenants synced at once.
_SYNCS: Final = 2
#: "rowb_syn" in ASCII: an advisory lock of our own.
LOCK_KEY: Final = 0x726F77625F73796E

#: Hands a job that was just created to a driver.
Submit = Callable[[str, Tenant], Awaitable[None]]


class SyncService:
    """Works from ``start`` to ``stop`` on the caller's event loop, where ``backend`` is used too.

    ``workspace`` is its own, which it closes; ``submit`` starts jobs for what is too much to embed here,
    and with None nothing is synced on a schedule.
    """

    def __init__(
        self, workspace: Workspace, store: VectorStore, backend: EmbeddingBackend, submit: Submit | None
    ) -> None:
        self._workspace = workspace
        self._submit = submit
        self._threads = ThreadPoolExecutor(THREADS, "sync")
        self._lock = SoleHolder(workspace.ledger, LOCK_KEY)
        self._applier = Applier(workspace, lambda: store, backend, self._threads)
        targets = LaneTargets(IndexDirectory(workspace, store))
        self._drainer = Drainer(self._applier, targets)
        self._schedule_due = 0.0
        self._syncs: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(_SYNCS)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop where it is: claims are given back, and a sync that is cut off reads the same rows again."""
        if self._task is None:
            return
        for task in (self._task, *self._syncs.values()):
            task.cancel()
        await asyncio.gather(self._task, *self._syncs.values(), return_exceptions=True)
        await self._drainer.close()
        await asyncio.to_thread(self._lock.release)
        self._threads.shutdown(wait=False)
        self._workspace.close()

    async def _run(self) -> None:
        while True:
            wait = LOOK
            try:
                if await self._applier.in_thread(self._lock.hold):
                    await self._drainer.turn()
                    await self._start_due()
            except (RowbeamError, SQLAlchemyError) as error:
                # Also one of ours, such as a right that is missing: it may be mended while this runs.
                log.warning("Nothing is synced for the moment: %s", reason_of(error))
                wait = _FAULT_SECONDS
            await asyncio.sleep(wait)

    async def _start_due(self) -> None:
        if self._submit is None or time.monotonic() < self._schedule_due:
            return
        self._schedule_due = time.monotonic() + _SCHEDULE_SECONDS
        for due in await self._applier.in_thread(take_due, self._workspace.ledger):
            if due.tenant not in self._syncs:
                self._syncs[due.tenant] = task = asyncio.create_task(self._sync(due))
                task.add_done_callback(partial(self._forget, due.tenant))

    def _forget(self, name: str, _: object) -> None:
        del self._syncs[name]

    async def _sync(self, due: DueSync) -> None:
        outcome = "failed"
        try:
            async with self._turns:
                ended = await self._sync_tenant(due.tenant)
            if ended == "done":
                await self._applier.in_thread(note_synced, self._workspace.ledger, due)
            outcome = ended
        except JobConflict:
            outcome = "job"  # of somebody else's, which reads the same rows; the next sync reads what it left
        except (RowbeamError, SQLAlchemyError) as error:
            log.warning("The scheduled sync of %s failed: %s", due.tenant, reason_of(error))
        finally:
            SYNCS.add(1, outcome)

    async def _sync_tenant(self, name: str) -> str:
        workspace, in_thread = self._workspace, self._applier.in_thread
        tenant = await in_thread(workspace.registry.get, name)
        indexes = await in_thread(indexes_to_sync, workspace, tenant, None)
        rules = SyncRules.load(workspace.settings.catalog_file)
        done = await sync_indexes(self._applier, tenant, indexes, rules, full=False)
        left = [item.index for item in done if item.rest is not None]
        if left and self._submit is not None:
            # The next sync finds what it has done unchanged, and saves how far that came.
            await self._submit(await in_thread(create_sync, workspace, tenant, left), tenant)
            return "job"
        return "failed" if any(item.result.error for item in done) else "done"
