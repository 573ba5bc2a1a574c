"""A tenant whose table changes: syncs, an outbox, drainers, and the model they share, all in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Engine, text

from ray_app.db.sync_marks import SavedMark, load_mark
from ray_app.errors import RowbeamError
from ray_app.onboarding import count_points
from ray_app.outbox import installing
from ray_app.outbox.draining import LEASE, Drainer
from ray_app.outbox.targets import LaneTargets
from ray_app.records.directory import IndexDirectory
from ray_app.reports import JobProgress
from ray_app.searching import search
from ray_app.serving.in_process import local_backend
from ray_app.serving.port import EmbedCall, EmbeddingBackend, Load, Served
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import VectorStore
from ray_app.syncing import operation
from ray_app.syncing.applying import Applier
from ray_app.syncing.reports import SyncReport
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

TABLE = "pull_requests"


class CountedBackend:
    """The stub model, which counts the texts it is given and can be told to fail."""

    def __init__(self, workspace: Workspace) -> None:
        self._inner = local_backend(workspace.settings)
        self.texts: list[str] = []
        #: Called with each call before it is embedded; may raise.
        self.fails: Callable[[EmbedCall], None] = lambda call: None

    def spaces(self) -> Sequence[EmbeddingSpace]:
        return self._inner.spaces()

    async def embed(self, call: EmbedCall) -> Served:
        self.fails(call)
        self.texts += call.texts
        return await self._inner.embed(call)

    def load(self, space: EmbeddingSpace) -> Load:
        return self._inner.load(space)

    async def not_ready(self) -> Sequence[str]:
        return await self._inner.not_ready()

    def close(self) -> None:
        self._inner.close()


@dataclass
class SyncSite:
    """A tenant with a table, and ways to bring its index into step."""

    workspace: Workspace
    store: VectorStore
    tenant: Tenant
    jobs: list[str] = field(default_factory=list)

    @property
    def database(self) -> Engine:
        return self.workspace.source

    def sql(self, statement: str, **values: object) -> None:
        with self.database.begin() as connection:
            connection.execute(text(statement), values)

    def scalar(self, statement: str, **values: object) -> object:
        with self.database.connect() as connection:
            return connection.scalar(text(statement), values)

    def insert(self, *rows: tuple[int, str], client: int = 1) -> None:
        for key, title in rows:
            self.sql(
                f"INSERT INTO {TABLE} (id, client_id, title, status) VALUES (:key, :client, :title, 'open')",
                key=key,
                client=client,
                title=title,
            )

    def index(self, *, kinds: Sequence[str] = ("content",), tenant: Tenant | None = None) -> None:
        """Make the tenant's indexes of the table, empty."""
        owner = tenant or self.tenant
        scope = self.workspace.registry.scope(owner)
        IndexDirectory(self.workspace, self.store).open(owner, scope, TABLE, kinds)

    def sync(self, *, full: bool = False, tables: Sequence[str] | None = None) -> SyncReport:
        def run_job(job_id: str) -> JobProgress:
            self.jobs.append(job_id)
            raise RowbeamError("No job is driven here.")

        def store() -> nullcontext[VectorStore]:
            return nullcontext(self.store)

        return operation.sync(self.workspace, store, self.tenant, run_job, tables=tables, full=full)

    def mark(self) -> SavedMark:
        with self.workspace.ledger.connect() as connection:
            found = load_mark(connection, self.tenant.incarnation, TABLE, "content")
        assert found is not None
        return found

    def queued(self) -> list[tuple[int, str | None]]:
        """The outbox's entries as (client, record), in order."""
        with self.database.connect() as connection:
            rows = connection.execute(text("SELECT client_id, record_id FROM rowbeam.outbox ORDER BY id"))
            return [(client, record) for client, record in rows]

    def install(self, tables: Sequence[str] | None = (TABLE,)) -> None:
        installing.install(self.workspace, tables)

    def drain(
        self,
        backend: EmbeddingBackend,
        *,
        drainers: int = 1,
        turns: int = 1,
        lease: timedelta = LEASE,
    ) -> None:
        """Have some drainers work side by side until each has nothing to do, ``turns`` times."""

        async def run() -> None:
            with ThreadPoolExecutor(4 * drainers) as threads:
                applier = Applier(self.workspace, lambda: self.store, backend, threads)
                targets = LaneTargets(IndexDirectory(self.workspace, self.store))
                made = [Drainer(applier, targets, lease=lease) for _ in range(drainers)]
                for _ in range(turns):
                    await asyncio.gather(*(drainer.turn() for drainer in made))
                    await asyncio.gather(*(drainer.settle() for drainer in made))
                for drainer in made:
                    await drainer.close()

        asyncio.run(run())

    def find(self, words: str, *, limit: int = 3, tenant: Tenant | None = None) -> list[str]:
        hits = search(
            self.workspace,
            self.store,
            tenant or self.tenant,
            TABLE,
            words,
            limit=limit,
            conditions=[],
            vector_type="content",
        )
        return [hit.record_id for hit in hits]

    def records(self, tenant: Tenant | None = None) -> list[str]:
        """Records that the ledger has vectors of."""
        query = text(
            "SELECT DISTINCT record_id FROM rowbeam.qdrant_vectors WHERE incarnation = :of ORDER BY record_id"
        )
        with self.workspace.ledger.connect() as connection:
            return list(connection.scalars(query, {"of": (tenant or self.tenant).incarnation}))

    def check_exact(self) -> None:
        """Store and ledger have the same points."""
        points, rows = count_points(self.workspace, self.store, self.tenant)
        assert points == rows

    @contextmanager
    def open_transaction(self, statement: str) -> Iterator[Callable[[], None]]:
        """A transaction that has run ``statement``; commits when the value is called, else rolls back."""
        connection = self.database.connect()
        transaction = connection.begin()
        try:
            connection.execute(text(statement))
            yield transaction.commit
        finally:
            connection.close()


class Writers:
    """Threads that go on changing rows until they are stopped."""

    def __init__(self, site: SyncSite, statement: str, threads: int = 2) -> None:
        self._site = site
        self._statement = statement
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        self.written = 0

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self._site.sql(self._statement)
            self.written += 1
