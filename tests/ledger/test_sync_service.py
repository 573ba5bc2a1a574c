"""What a server syncs by itself goes on whatever fails on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from ray_app.db import sync_marks
from ray_app.db.sync_marks import set_schedule
from ray_app.errors import ProviderUnavailable
from ray_app.serving.port import EmbedCall
from ray_app.syncing import service
from ray_app.syncing.service import SyncService
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace
from tests.support.sync_site import CountedBackend, SyncSite
from tests.support.waiting import PATIENCE


@asynccontextmanager
async def running(changing: SyncSite, backend: CountedBackend) -> AsyncIterator[None]:
    """The service of a server."""

    async def submit(job: str, tenant: Tenant) -> None:
        raise AssertionError("nothing here is too much for the service")

    made = SyncService(Workspace(changing.workspace.settings), changing.store, backend, submit)
    made.start()
    try:
        yield
    finally:
        await made.stop()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(done):
            await asyncio.sleep(0.05)


def test_a_server_that_may_not_read_the_outbox_goes_on_when_it_may(
    changing: SyncSite,
    backend: CountedBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service, "_FAULT_SECONDS", 0.05)
    changing.install()
    changing.insert((1, "one"))
    # Stands for a grant that a DBA has forgotten; the tests' own role is above those.
    changing.sql("ALTER TABLE rowbeam.outbox RENAME COLUMN client_id TO hidden")

    async def serve() -> None:
        async with running(changing, backend):
            await until(
                lambda: "Nothing is synced for the moment: Postgres says UndefinedColumn" in caplog.text
            )
            changing.sql("ALTER TABLE rowbeam.outbox RENAME COLUMN hidden TO client_id")
            await until(lambda: changing.records() == ["1"])

    asyncio.run(serve())


def test_a_scheduled_sync_that_failed_does_not_wait_for_the_schedule(
    changing: SyncSite, backend: CountedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_SCHEDULE_SECONDS", 0.05)
    monkeypatch.setattr(sync_marks, "RETRY", timedelta(seconds=0.5))
    tried: list[EmbedCall] = []

    def fail(call: EmbedCall) -> None:
        tried.append(call)
        if len(tried) == 1:
            raise ProviderUnavailable("It is down.")

    backend.fails = fail
    changing.insert((1, "one"))
    set_schedule(changing.workspace.ledger, changing.tenant.incarnation, timedelta(days=1))

    async def serve() -> None:
        async with running(changing, backend):
            await until(lambda: changing.records() == ["1"])
            changing.insert((2, "two"))
            await asyncio.sleep(1.5)  # three times as long as after one that failed
            assert changing.records() == ["1"]

    asyncio.run(serve())
    assert len(tried) == 2
