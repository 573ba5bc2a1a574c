"""Syncing a tenant: its indexes one after the other, in this process as long as there is little to embed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Final

from ray_app.backfilling import create_sync
from ray_app.db.indexes import PinnedIndex, list_indexes
from ray_app.errors import InputError, RowbeamError, TenantMoved
from ray_app.reports import Counts, JobProgress, JobState
from ray_app.store.port import OpenStore, VectorStore
from ray_app.syncing.applying import Applier
from ray_app.syncing.backend import own_backend
from ray_app.syncing.comparing import IndexSyncer, Start
from ray_app.syncing.reports import IndexSync, Reading, SyncReport
from ray_app.syncing.rules import SyncRules
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

log = logging.getLogger(__name__)
#: Threads for calls of Postgres and the store; a sync makes one at a time.
THREADS: Final = 2


@dataclass(frozen=True)
class Done:
    """One index's sync, and the start that a job which does the rest must save when it has."""

    index: PinnedIndex
    result: IndexSync
    rest: Start | None = None


def indexes_to_sync(
    workspace: Workspace, tenant: Tenant, tables: Iterable[str] | None
) -> Sequence[PinnedIndex]:
    """The tenant's indexes, of the tables that are asked for.

    Raises:
        UnknownTable: there is no such table.
        InputError: it has no index.
    """
    indexes = list(list_indexes(workspace.ledger, tenant.incarnation).values())
    if tables is None:
        return indexes
    asked = [workspace.tables.get(name).name for name in tables]
    for name in asked:
        if not any(index.table == name for index in indexes):
            raise InputError(
                f"Tenant {tenant.name} has no index of table {name}.",
                hint=f"Make it: rowbeam backfill --tenant {tenant.name} --tables {name}.",
            )
    return [index for index in indexes if index.table in asked]


async def sync_indexes(
    applier: Applier, tenant: Tenant, indexes: Sequence[PinnedIndex], rules: SyncRules, *, full: bool
) -> list[Done]:
    """Sync these indexes one after the other. One that fails says why, and the others go on."""
    workspace, done = applier.workspace, []
    for index in indexes:
        try:
            done.append(await _sync_index(applier, tenant, index, rules, full=full))
        except RowbeamError as error:
            log.warning("Table %s of %s is not in step: %s", index.table, tenant.name, error.message)
            reading = Reading.WHOLE if full else Reading.CHANGES
            failed = IndexSync(index.table, index.vector_type, reading, Counts(), None, error=str(error))
            done.append(Done(index, failed))
            if not await _is_there(applier, workspace, tenant):
                raise
    return done


async def _is_there(applier: Applier, workspace: Workspace, tenant: Tenant) -> bool:
    active = await applier.in_thread(workspace.registry.list)
    return any(found.incarnation == tenant.incarnation for found in active)


async def _sync_index(
    applier: Applier, tenant: Tenant, index: PinnedIndex, rules: SyncRules, *, full: bool
) -> Done:
    workspace = applier.workspace
    reader = await applier.in_thread(workspace.reader, tenant, index)
    compared = None
    while compared is None:
        scope = await applier.in_thread(workspace.registry.scope, tenant)
        with suppress(TenantMoved):  # in the middle of it: what is left goes where its vectors are now
            compared = await IndexSyncer(applier, reader, scope, rules).run(full=full)
    start = compared.start
    watermark = start.mark.mark.watermark if compared.complete else None
    result = IndexSync(index.table, index.vector_type, start.reading, compared.counts, watermark)
    return Done(index, result, None if compared.complete else start)


#: Drives a job that was just created to its end.
RunJob = Callable[[str], JobProgress]


def sync(
    workspace: Workspace,
    open_store: OpenStore,
    tenant: Tenant,
    run_job: RunJob,
    *,
    tables: Iterable[str] | None = None,
    full: bool = False,
) -> SyncReport:
    """Bring the tenant's existing indexes into step, here or, where much has to be embedded, by a job.

    The store is opened at the first write, and closed before a job is run. An index that could not be
    brought into step has its ``error``; the next sync reads the same rows again.

    Raises:
        UnknownTable, InputError: as ``indexes_to_sync``.
        ConfigError: the rules of syncs cannot be used.
        JobConflict: a job was needed, and another works on its table.
    """
    began = time.monotonic()
    rules = SyncRules.load(workspace.settings.catalog_file)
    indexes = indexes_to_sync(workspace, tenant, tables)
    with ExitStack() as store, ThreadPoolExecutor(THREADS, "sync") as threads:
        opened: list[VectorStore] = []

        def open_once() -> VectorStore:
            if not opened:
                opened.append(store.enter_context(open_store()))
            return opened[0]

        async def work() -> list[Done]:
            async with own_backend(workspace) as backend:
                applier = Applier(workspace, open_once, backend, threads)
                return await sync_indexes(applier, tenant, indexes, rules, full=full)

        done = asyncio.run(work())
    left = [item for item in done if item.rest is not None]
    if left:
        job = run_job(create_sync(workspace, tenant, [item.index for item in left]))
        done = [_after(workspace, tenant, item, job) if item.rest else item for item in done]
    return SyncReport(tenant.name, tuple(item.result for item in done), time.monotonic() - began)


def _after(workspace: Workspace, tenant: Tenant, item: Done, job: JobProgress) -> Done:
    """What an index's sync came to with the job that did the rest; its mark is saved if that is all."""
    from ray_app.db.sync_marks import save_mark

    if job.state is not JobState.SUCCEEDED or item.rest is None:
        reason = job.error or f"Its job ended as {job.state}."
        return replace(item, result=replace(item.result, job_id=job.job_id, error=reason))
    mark = item.rest.mark
    with workspace.ledger.begin() as connection:
        save_mark(connection, tenant.incarnation, item.index.table, item.index.vector_type, mark)
    result = replace(item.result, job_id=job.job_id, watermark=mark.mark.watermark)
    return replace(item, result=result)
