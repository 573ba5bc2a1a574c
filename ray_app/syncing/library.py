"""Syncs and the outbox as calls of the library."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from typing import Final

from ray_app import launching
from ray_app.db import sync_marks
from ray_app.errors import InputError
from ray_app.outbox import installing
from ray_app.outbox.draining import Drainer
from ray_app.outbox.targets import LaneTargets
from ray_app.records.directory import IndexDirectory
from ray_app.reports import JobProgress
from ray_app.store.port import VectorStore
from ray_app.syncing import operation
from ray_app.syncing.applying import Applier
from ray_app.syncing.backend import own_backend
from ray_app.syncing.reports import OutboxStatus, SyncReport, SyncStatus
from ray_app.workspace import Workspace

#: The least time between two syncs of a tenant, in seconds, and the most.
LEAST_EVERY: Final = 5
MOST_EVERY: Final = 7 * 86_400
#: Seconds between two looks at the outbox.
_LOOK: Final = 0.5
_THREADS: Final = 4


class SyncOperations:
    """What ``Rowbeam`` has of syncs; ``workspace`` and ``_store`` are its own."""

    @property
    def workspace(self) -> Workspace:
        raise NotImplementedError

    def _store(self) -> AbstractContextManager[VectorStore]:
        raise NotImplementedError

    def sync(
        self,
        tenant: str,
        *,
        tables: Iterable[str] | None = None,
        full: bool = False,
        on_progress: Callable[[JobProgress], None] | None = None,
    ) -> SyncReport:
        """Bring the tenant's existing indexes into step with their tables, reading as little as can be.

        ``full`` compares whole tables. Without a job as long as about a thousand rows have to be embedded;
        ``on_progress`` sees the job that does more.
        """
        owner = self.workspace.registry.get(tenant)

        def run_job(job_id: str) -> JobProgress:
            return launching.run_job(self.workspace, owner, job_id, on_progress, new=True)

        return operation.sync(self.workspace, self._store, owner, run_job, tables=tables, full=full)

    def schedule_sync(self, tenant: str, every: timedelta | None) -> None:
        """Have a running server sync the tenant every so often; None stops that.

        Raises:
            InputError: ``every`` is too short or too long.
        """
        if every is not None and not LEAST_EVERY <= every.total_seconds() <= MOST_EVERY:
            raise InputError(f"Sync a tenant every {LEAST_EVERY} to {MOST_EVERY} seconds.")
        owner = self.workspace.registry.get(tenant)
        sync_marks.set_schedule(self.workspace.ledger, owner.incarnation, every)

    def install_outbox(self, tables: Iterable[str] | None = None) -> OutboxStatus:
        """Have triggers note every change of these tables, or of all vector-enabled ones. Idempotent."""
        return installing.install(self.workspace, tables)

    def uninstall_outbox(self, tables: Iterable[str] | None = None) -> OutboxStatus:
        """Take these tables' triggers away, or all of them and the outbox. Idempotent."""
        return installing.uninstall(self.workspace, tables)

    def outbox_script(self, tables: Iterable[str] | None = None) -> str:
        """The SQL of ``install_outbox``, for a DBA to run."""
        return installing.script(self.workspace, tables)

    def sync_status(self) -> SyncStatus:
        """How the outbox stands, and which tenants a server syncs by itself."""
        schedules = sync_marks.schedules(self.workspace.ledger)
        seconds = {name: int(every.total_seconds()) for name, every in schedules.items()}
        return SyncStatus(installing.status(self.workspace), seconds)

    def follow_outbox(self, *, until: Callable[[], bool]) -> None:
        """Drain the outbox in this process, where no server does, until ``until`` says so.

        Raises:
            DatabaseUnavailable: the platform's database cannot be reached.
        """
        with self._store() as store:
            asyncio.run(follow(self.workspace, store, until))


async def follow(workspace: Workspace, store: VectorStore, until: Callable[[], bool]) -> None:
    """See ``SyncOperations.follow_outbox``; beside a server, or several of these, the work is shared."""
    with ThreadPoolExecutor(_THREADS, "sync") as threads:
        async with own_backend(workspace) as backend:
            applier = Applier(workspace, partial(_same, store), backend, threads)
            drainer = Drainer(applier, LaneTargets(IndexDirectory(workspace, store)))
            try:
                while not until():
                    await drainer.turn()
                    await asyncio.sleep(_LOOK)
            finally:
                await drainer.close()


def _same(store: VectorStore) -> VectorStore:
    return store
