"""One store in front of both engines: each tenant's calls go to where its vectors live."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt

from ray_app.errors import ConfigError, InputError
from ray_app.metrics.declared import STORE_SECONDS
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace
from ray_app.store.edge_files import SavedShard
from ray_app.store.port import (
    Census,
    Condition,
    DataChange,
    Digest,
    Hit,
    IndexKey,
    PointBatch,
    PointCopy,
    StoredPoint,
    StoredVector,
    Stray,
    VectorStore,
)
from ray_app.tenants import Placement, TenantScope
from ray_app.tracing.spans import span

_SYSTEM: Final = {"db.system.name": "qdrant"}


class EdgePort(VectorStore, Protocol):
    """An embedded store, wherever its engine runs: here or in the process that owns the directory."""

    def maintain(self, scope: TenantScope, index: IndexKey) -> bool:
        """Build the search graph when it is due; whether it was."""

    def shard_points(self, scope: TenantScope, space: EmbeddingSpace) -> int:
        """Points of the tenant's shard of a space, all partitions together; 0 where there is none."""

    def save_shard(self, scope: TenantScope, space: EmbeddingSpace, folder: Path) -> SavedShard | None:
        """Copy the tenant's shard, at rest, to the new folder ``folder`` on this machine.

        None, and no folder, where there is none. The store serves no other call meanwhile.

        Raises:
            StoreUnavailable: the shard cannot be read, or the folder not written; what was written stays.
        """

    def shard_place(self, scope: TenantScope, space: EmbeddingSpace) -> Path:
        """A new path beside the tenant's shard, to lay a copy at for ``restore_shard``."""

    def restore_shard(
        self, scope: TenantScope, space: EmbeddingSpace, place: Path, points: int, *, force: bool
    ) -> None:
        """Put the copy at ``place`` in the shard's place, whole or not at all, also through a crash.

        Raises:
            ConflictError: the shard has points, and ``force`` was not given.
            InputError: the copy does not have ``points`` points, all of them the tenant's.
            StoreUnavailable: the copy or the shard cannot be opened.
        """


class RoutedStore:
    """A ``VectorStore`` that hands embedded tenants to Edge and the others to the server.

    Either is opened by the first call that needs it, once, whichever threads call. Calls for a
    pooled or dedicated tenant raise ConfigError when there is no server.
    """

    def __init__(
        self, open_edge: Callable[[], EdgePort], open_server: Callable[[], VectorStore] | None
    ) -> None:
        self._open_edge = open_edge
        self._open_server = open_server
        self._edge: EdgePort | None = None
        self._server: VectorStore | None = None
        self._opening = threading.Lock()

    def ensure_index(self, scope: TenantScope, index: IndexKey, payload_fields: Sequence[str]) -> None:
        with self._timed(scope, "ensure_index") as store:
            store.ensure_index(scope, index, payload_fields)

    def upsert(self, scope: TenantScope, index: IndexKey, batch: PointBatch) -> None:
        with self._timed(scope, "upsert") as store:
            store.upsert(scope, index, batch)

    def set_data(
        self, scope: TenantScope, index: IndexKey, changes: Sequence[DataChange], version: int
    ) -> None:
        with self._timed(scope, "set_data") as store:
            store.set_data(scope, index, changes, version)

    def delete(self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]) -> None:
        with self._timed(scope, "delete") as store:
            store.delete(scope, index, keys)

    def search(
        self,
        scope: TenantScope,
        index: IndexKey,
        vector: npt.NDArray[np.float32],
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
        score_threshold: float | None = None,
    ) -> list[Hit]:
        with self._timed(scope, "search") as store:
            return store.search(
                scope, index, vector, limit=limit, conditions=conditions, score_threshold=score_threshold
            )

    def search_words(
        self,
        scope: TenantScope,
        index: IndexKey,
        text: str,
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
    ) -> list[Hit]:
        with self._timed(scope, "search_words") as store:
            return store.search_words(scope, index, text, limit=limit, conditions=conditions)

    def vectors_of(self, scope: TenantScope, index: IndexKey, record_id: str) -> npt.NDArray[np.float32]:
        with self._timed(scope, "vectors_of") as store:
            return store.vectors_of(scope, index, record_id)

    def stored_vectors(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], StoredVector]:
        with self._timed(scope, "stored_vectors") as store:
            return store.stored_vectors(scope, index, keys)

    def count(self, scope: TenantScope, index: IndexKey) -> int:
        with self._timed(scope, "count") as store:
            return store.count(scope, index)

    def scroll(self, scope: TenantScope, index: IndexKey, *, page: int = 1000) -> Iterator[StoredPoint]:
        return self._of(scope).scroll(scope, index, page=page)

    def digest(self, scope: TenantScope, index: IndexKey, lo: UUID, hi: UUID) -> Digest:
        with self._timed(scope, "digest") as store:
            return store.digest(scope, index, lo, hi)

    def points_between(self, scope: TenantScope, index: IndexKey, lo: UUID, hi: UUID) -> list[StoredPoint]:
        with self._timed(scope, "points_between") as store:
            return store.points_between(scope, index, lo, hi)

    def points_of(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> list[StoredPoint]:
        with self._timed(scope, "points_of") as store:
            return store.points_of(scope, index, keys)

    def copies_after(
        self, scope: TenantScope, index: IndexKey, after: UUID | None, limit: int
    ) -> list[PointCopy]:
        with self._timed(scope, "copies_after") as store:
            return store.copies_after(scope, index, after, limit)

    def copies_of(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> list[PointCopy]:
        with self._timed(scope, "copies_of") as store:
            return store.copies_of(scope, index, keys)

    def write_copies(self, scope: TenantScope, index: IndexKey, copies: Sequence[PointCopy]) -> None:
        with self._timed(scope, "write_copies") as store:
            store.write_copies(scope, index, copies)

    def strays(
        self, scope: TenantScope, space: EmbeddingSpace, partitions: Sequence[UUID], limit: int
    ) -> list[Stray]:
        with self._timed(scope, "strays") as store:
            return store.strays(scope, space, partitions, limit)

    def remove_strays(self, scope: TenantScope, space: EmbeddingSpace, point_ids: Sequence[UUID]) -> None:
        with self._timed(scope, "remove_strays") as store:
            store.remove_strays(scope, space, point_ids)

    def census(self, scope: TenantScope, space: EmbeddingSpace, limit: int) -> Census:
        with self._timed(scope, "census") as store:
            return store.census(scope, space, limit)

    def drop_index(self, scope: TenantScope, index: IndexKey) -> None:
        with self._timed(scope, "drop_index") as store:
            store.drop_index(scope, index)

    def erase(self, scope: TenantScope, spaces: Sequence[EmbeddingSpace]) -> int:
        with self._timed(scope, "erase") as store:
            return store.erase(scope, spaces)

    def maintain(self, scope: TenantScope, index: IndexKey) -> bool:
        """Build the search graph of an embedded tenant when it is due; a server does so by itself."""
        return scope.placement is Placement.EMBEDDED and self.embedded().maintain(scope, index)

    def check(self) -> str:
        lines = [self.embedded().check()]
        if self._open_server is not None:
            lines.append(self._remote(self._open_server).check())
        return "; ".join(lines)

    def close(self) -> None:
        with self._opening:
            for store in (self._edge, self._server):
                if store is not None:
                    store.close()

    @contextmanager
    def _timed(self, scope: TenantScope, operation: str) -> Iterator[VectorStore]:
        """The tenant's store, for one call that is measured."""
        store = self._of(scope)
        engine = "edge" if scope.placement is Placement.EMBEDDED else "server"
        began, outcome = time.perf_counter(), "error"
        try:
            with span(f"store {operation}", kind="client", engine=engine, **_SYSTEM):
                yield store
            outcome = "ok"
        except InputError:
            outcome = "refused"
            raise
        finally:
            STORE_SECONDS.observe(time.perf_counter() - began, engine, operation, outcome)

    def _of(self, scope: TenantScope) -> VectorStore:
        if scope.placement is Placement.EMBEDDED:
            return self.embedded()
        if self._open_server is None:
            raise ConfigError(
                f"The tenant's placement is {scope.placement}, which needs a Qdrant server.",
                hint="Set ROWBEAM_QDRANT_URL, or add the tenant with placement embedded.",
            )
        return self._remote(self._open_server)

    def embedded(self) -> EdgePort:
        """The embedded store, for what no other can do."""
        with self._opening:
            if self._edge is None:
                self._edge = self._open_edge()
            return self._edge

    def _remote(self, open_server: Callable[[], VectorStore]) -> VectorStore:
        with self._opening:
            if self._server is None:
                self._server = open_server()
            return self._server


def open_store(settings: Settings, embedded: Callable[[], EdgePort] | None = None) -> RoutedStore:
    """The store that ``settings`` describe. Opens nothing yet.

    ``embedded`` opens the embedded store when it is not to be opened in this process.
    """

    def open_edge() -> EdgePort:
        from ray_app.store.edge import EdgeStore

        return EdgeStore(settings.edge_dir)

    def open_server() -> VectorStore:
        from ray_app.store.server import ServerStore

        key = settings.qdrant_api_key
        return ServerStore.connect(str(settings.qdrant_url), key.get_secret_value() if key else None)

    return RoutedStore(embedded or open_edge, open_server if settings.qdrant_url else None)
