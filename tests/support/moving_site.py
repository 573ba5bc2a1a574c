"""A tenant that is moved between places, beside another one with the same keys; all in this process."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient
from sqlalchemy import text

from ray_app.db.indexes import list_indexes
from ray_app.moving.operations import Moves
from ray_app.reconciling.operation import Repair, reconcile
from ray_app.reconciling.reports import ReconcileReport
from ray_app.records.directory import key_of
from ray_app.records.single import delete_record
from ray_app.store.edge import EdgeStore
from ray_app.store.port import IndexKey, PointCopy
from ray_app.store.routing import RoutedStore
from ray_app.store.server import ServerStore
from ray_app.tenants import Placement, Tenant, TenantScope
from ray_app.workspace import Workspace
from tests.support.migration_jobs import InlineJobs
from tests.support.parts_site import TABLE, Site
from tests.support.pushes import PushSite


class LockedClient:
    """The client's local double, which must be called by one thread at a time."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._client = QdrantClient(":memory:")
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @wraps(found)
        def locked(*args: Any, **options: Any) -> Any:
            with self._lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # payload indexes have no effect there
                return found(*args, **options)

        return locked


@contextmanager
def mixed_store(folder: Path) -> Iterator[RoutedStore]:
    """An embedded store and a server, played by its client's local double, behind one router."""
    client = LockedClient()
    store = RoutedStore(lambda: EdgeStore(folder), lambda: ServerStore(client, retry_budget=0.0))  # type: ignore[arg-type]
    yield store
    store.close()


class MovingSite(Site):
    """A site whose tenant is moved; ``twin`` has rows of the same keys."""

    moves: Moves
    jobs: InlineJobs
    twin: Site
    pushes: PushSite

    @classmethod
    def of(cls, workspace: Workspace, store: RoutedStore, placement: Placement) -> MovingSite:
        def registered(name: str, client: int, where: Placement) -> Tenant:
            return workspace.registry.create(name, client, where)[0]

        site = cls(workspace, store, registered("acme", 1, placement))
        site.twin = Site(workspace, store, registered("twin", 2, Placement.POOLED))
        site.moves = Moves(workspace, lambda: nullcontext(store), grace=0.0)
        site.jobs = InlineJobs(store)
        site.pushes = PushSite.of(workspace, store, site.tenant)
        return site

    def scope(self, placement: Placement | None = None) -> TenantScope:
        """Of the tenant where it is, or as if it were elsewhere."""
        scope = self.workspace.registry.scope(self.tenant)
        return scope if placement is None else self.workspace.registry.scope_at(scope, placement)

    @property
    def placement(self) -> Placement:
        return self.scope().placement

    def keys(self) -> list[IndexKey]:
        return [
            key_of(index) for index in list_indexes(self.workspace.ledger, self.tenant.incarnation).values()
        ]

    def copies(self, scope: TenantScope) -> dict[tuple[str, str, int], PointCopy]:
        """Every whole point of one place, by table, record and chunk."""
        return {
            (key.table, copy.record_id, copy.chunk): copy
            for key in self.keys()
            for copy in self.store.copies_after(scope, key, None, 1000)
        }

    def twin_points(self) -> dict[tuple[str, int], tuple[str, int, bytes]]:
        """Every point of the other tenant, with the bytes of its vector, rounded: a search makes the client's
        double scale what it has to length 1, again."""
        scope = self.workspace.registry.scope(self.twin.tenant)
        return {
            (copy.record_id, copy.chunk): (
                copy.content_hash,
                copy.version,
                np.round(copy.vector, 5).tobytes(),
            )
            for copy in self.store.copies_after(scope, self.keys()[0], None, 1000)
        }

    def counted(self, placement: Placement) -> int:
        return sum(self.store.count(self.scope(placement), key) for key in self.keys())

    def push(self, key: int, title: str) -> None:
        """Change a row, and push it."""
        self.sql(
            "INSERT INTO pull_requests (client_id, id, title) VALUES (1, :key, :title)"
            " ON CONFLICT (client_id, id) DO UPDATE SET title = :title, updated_at = now()",
            key=key,
            title=title,
        )
        self.pushes.push(self.row(TABLE, key), table=TABLE)

    def row(self, table: str, key: int) -> dict[str, Any]:
        """A row as whoever pushes it has it."""
        query = text(f"SELECT to_jsonb(t) FROM {table} t WHERE client_id = 1 AND id = :key")
        with self.workspace.ledger.connect() as connection:
            found: dict[str, Any] = connection.execute(query, {"key": key}).scalar_one()
        return found

    def delete(self, key: int, scope: TenantScope | None = None) -> None:
        """Delete a row, and its record."""
        self.sql("DELETE FROM pull_requests WHERE id = :key AND client_id = 1", key=key)
        delete_record(self.pushes.directory, self.tenant, scope or self.scope(), TABLE, str(key))

    def reconciled(self, repair: Repair | None = None) -> ReconcileReport:
        return reconcile(
            self.workspace,
            lambda: nullcontext(self.store),
            self.tenant,
            repair=repair,
            grace=0,
            run_job=self.jobs,
        )


def once(call: Callable[[], None]) -> Callable[[object], None]:
    """A listener to progress that does something at its first report."""
    left = [call]

    def listen(_: object) -> None:
        if left:
            left.pop()()

    return listen
