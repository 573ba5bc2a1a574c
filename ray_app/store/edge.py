"""Embedded placement: Qdrant Edge, the server's own engine in this process, a directory per tenant."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import qdrant_edge as edge

from ray_app.errors import StoreRefused, StoreUnavailable
from ray_app.spaces import EmbeddingSpace
from ray_app.store import edge_models, payload
from ray_app.store.edge_backups import ShardBackups
from ray_app.store.edge_models import DIALECT
from ray_app.store.edge_shards import ShardPool
from ray_app.store.filters import Where, nameless, outside, translate
from ray_app.store.isolated import IsolatedStore
from ray_app.store.payload import Found, NewPoint
from ray_app.store.port import IndexKey
from ray_app.store.sizing import sub_batches
from ray_app.store.updates import PayloadUpdate
from ray_app.store.words import WordVector
from ray_app.tenants import TenantScope

#: Points searched by brute force before ``maintain`` builds a graph over them.
UNINDEXED_POINTS: Final = 20_000


class EdgeStore(IsolatedStore, ShardBackups):
    """Vectors under ``root``, one Edge shard per (space, tenant incarnation); one process per shard.

    Searches are exact until ``maintain`` has built a graph.
    """

    def __init__(self, root: Path, max_open: int = 64) -> None:
        self._shards = ShardPool(root, max_open, edge_models.add_words)

    def maintain(self, scope: TenantScope, index: IndexKey) -> bool:
        """Build the graph when many points have none yet; True when it did.

        Blocks this process, its other threads included, for about a second per 2,000 points of
        384 dimensions: call it when a job has ended, not while searches wait.
        """
        with self._shards.use(self._path(scope, index.space)) as shard:
            if shard is None:
                return False
            if _without_graph(shard) < UNINDEXED_POINTS:
                return False
            done = shard.optimize()
            shard.flush()
            return bool(done)

    def check(self) -> str:
        root = self._shards.root
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root) as probe:
                probe.write(b"probe")
                probe.flush()
                os.fsync(probe.fileno())
            shards = sum(1 for _ in self._shards.names())
        except OSError as error:
            raise StoreUnavailable(
                f"{root} cannot be written: {error.strerror}.",
                hint="Free disk space, fix its permissions, or set ROWBEAM_HOME to another folder.",
            ) from error
        return f"Qdrant Edge {version('qdrant-edge-py')} in {root}, {shards} tenant shards"

    def close(self) -> None:
        self._shards.close()

    def _path(self, scope: TenantScope, space: EmbeddingSpace) -> Path:
        return self._shards.path(space.space_id, scope.incarnation)

    def _prepare(self, scope: TenantScope, space: EmbeddingSpace, fields: Sequence[str]) -> None:
        path = self._path(scope, space)
        self._shards.create(path, edge_models.config(space), edge_models.create_own_indexes)
        with self._shards.use(path) as shard:
            if shard is None:
                raise StoreUnavailable(f"The vectors in {path} were removed while they were set up.")
            missing = set(fields) - shard.info().payload_schema.keys()
            for field in sorted(missing):
                index = edge.KeywordIndexParams()
                shard.update(edge.UpdateOperation.create_field_index(field, index))
            if missing:
                shard.flush()

    def _write(
        self, scope: TenantScope, space: EmbeddingSpace, points: Sequence[NewPoint], guard: Where
    ) -> None:
        condition = translate(guard, DIALECT)
        for part in sub_batches(points):
            batch = [edge_models.point(new) for new in part]
            with self._shards.use(self._path(scope, space)) as shard:
                self._existing(shard).update(edge.UpdateOperation.upsert_points(batch, condition=condition))
        with self._shards.use(self._path(scope, space)) as shard:
            self._existing(shard).flush()

    def _update(self, scope: TenantScope, space: EmbeddingSpace, updates: Sequence[PayloadUpdate]) -> None:
        for part in sub_batches(updates):
            with self._shards.use(self._path(scope, space)) as shard:
                if shard is None:
                    return
                for update in part:
                    where = translate(update.where, DIALECT)
                    shard.update(edge.UpdateOperation.set_payload_by_filter(where, update.payload))
        with self._shards.use(self._path(scope, space)) as shard:
            if shard is not None:
                shard.flush()

    def _remove(self, scope: TenantScope, space: EmbeddingSpace, wheres: Sequence[Where]) -> None:
        with self._shards.use(self._path(scope, space)) as shard:
            if shard is None:
                return
            for where in wheres:
                doomed = translate(where, DIALECT)
                shard.update(edge.UpdateOperation.delete_points_by_filter(doomed))
            shard.flush()

    def _nearest(
        self,
        scope: TenantScope,
        space: EmbeddingSpace,
        query: list[float] | WordVector,
        where: Where,
        limit: int,
        score_threshold: float | None,
    ) -> list[Found]:
        request = edge.QueryRequest(
            limit=limit,
            filter=translate(where, DIALECT),
            with_payload=list(payload.HIT_KEYS),
            score_threshold=score_threshold,
            **edge_models.query_options(query, where),
        )
        with self._shards.use(self._path(scope, space)) as shard:
            hits = [] if shard is None else shard.query(request)
        return [Found(str(hit.id), hit.payload or {}, hit.score) for hit in hits]

    def _page(
        self,
        scope: TenantScope,
        space: EmbeddingSpace,
        where: Where,
        offset: Any,
        limit: int,
        *,
        vectors: Sequence[str] = (),
        keys: Sequence[str] = payload.AUDIT_KEYS,
    ) -> tuple[list[Found], Any]:
        request = edge.ScrollRequest(
            offset=offset,
            limit=limit,
            filter=translate(where, DIALECT),
            with_payload=list(keys),
            with_vector=list(vectors) or False,
        )
        with self._shards.use(self._path(scope, space)) as shard:
            records, following = ([], None) if shard is None else shard.scroll(request)
        found = [
            Found(
                str(record.id),
                record.payload or {},
                vector=edge_models.dense(record.vector),
                words=edge_models.words(record.vector),
            )
            for record in records
        ]
        return found, following

    def _outside(
        self, scope: TenantScope, space: EmbeddingSpace, partitions: Sequence[UUID], limit: int
    ) -> list[Found]:
        request = edge.ScrollRequest(
            limit=limit,
            filter=outside(str(scope.incarnation), [str(name) for name in partitions], DIALECT),
            with_payload=[payload.TENANT, payload.PARTITION],
            with_vector=False,
        )
        with self._shards.use(self._path(scope, space)) as shard:
            records, _ = ([], None) if shard is None else shard.scroll(request)
        return [Found(str(record.id), record.payload or {}) for record in records]

    def _nameless(self, scope: TenantScope, space: EmbeddingSpace, limit: int) -> list[str]:
        request = edge.ScrollRequest(
            limit=limit, filter=nameless(DIALECT), with_payload=False, with_vector=False
        )
        with self._shards.use(self._path(scope, space)) as shard:
            records, _ = ([], None) if shard is None else shard.scroll(request)
        return [str(record.id) for record in records]

    def _remove_ids(self, scope: TenantScope, space: EmbeddingSpace, ids: Sequence[str]) -> None:
        # By id alone: the folder is the tenant's own, whatever its points say.
        doomed = DIALECT.all_and_none([DIALECT.has_id(list(ids))], [])
        with self._shards.use(self._path(scope, space)) as shard:
            if shard is not None:
                shard.update(edge.UpdateOperation.delete_points_by_filter(doomed))
                shard.flush()

    def _count(self, scope: TenantScope, space: EmbeddingSpace, where: Where) -> int:
        request = edge.CountRequest(exact=True, filter=translate(where, DIALECT))
        with self._shards.use(self._path(scope, space)) as shard:
            return 0 if shard is None else shard.count(request)

    def _erase(self, scope: TenantScope, space: EmbeddingSpace) -> None:
        self._shards.erase(self._path(scope, space))

    @staticmethod
    def _existing(shard: edge.EdgeShard | None) -> edge.EdgeShard:
        if shard is None:
            raise StoreRefused(
                "The tenant has no vectors in this space to add to: it was removed, or never set up.",
                hint="Run the backfill again; it sets the index up.",
            )
        return shard


def _without_graph(shard: edge.EdgeShard) -> int:
    """Points that no graph covers; too few where deleted points wait for the engine to clear them away."""
    info = shard.info()
    # The engine's count of indexed vectors has every sparse one in it: their index is never late.
    worded = edge.Filter(must=[edge.HasVectorCondition(payload.WORDS)])
    sparse = shard.count(edge.CountRequest(exact=True, filter=worded))
    return int(info.points_count - (info.indexed_vectors_count - sparse))
