"""Shards copied out of the embedded store whole, and put back into it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path

import qdrant_edge as edge

from ray_app.errors import ConflictError, InputError
from ray_app.spaces import EmbeddingSpace
from ray_app.store.edge_files import SavedShard, fresh_path
from ray_app.store.edge_models import DIALECT
from ray_app.store.edge_shards import ShardPool
from ray_app.store.filters import Where, translate
from ray_app.tenants import TenantScope


class ShardBackups(ABC):
    """What an ``EdgePort`` has of backups. Each call holds the whole store, as every call does."""

    _shards: ShardPool

    @abstractmethod
    def _path(self, scope: TenantScope, space: EmbeddingSpace) -> Path: ...

    def shard_points(self, scope: TenantScope, space: EmbeddingSpace) -> int:
        with self._shards.use(self._path(scope, space)) as shard:
            return 0 if shard is None else _points(shard)

    def save_shard(self, scope: TenantScope, space: EmbeddingSpace, folder: Path) -> SavedShard | None:
        began = time.monotonic()
        points = self._shards.copy(self._path(scope, space), folder, _points)
        return None if points is None else SavedShard(points, time.monotonic() - began)

    def shard_place(self, scope: TenantScope, space: EmbeddingSpace) -> Path:
        return fresh_path(self._path(scope, space))

    def restore_shard(
        self, scope: TenantScope, space: EmbeddingSpace, place: Path, points: int, *, force: bool
    ) -> None:
        path = self._path(scope, space)
        if place.parent != path.parent:
            raise InputError(f"A shard is not restored from {place}, which is not beside it.")
        own = translate(Where(scope.incarnation), DIALECT)

        def accept(shard: edge.EdgeShard) -> None:
            counted, mine = _points(shard), shard.count(edge.CountRequest(exact=True, filter=own))
            if not counted == mine == points:
                raise InputError(
                    f"The copy has {counted:,} points, {mine:,} of them the tenant's, where its manifest says"
                    f" {points:,}. It was not restored."
                )

        self._shards.replace(path, place, accept, None if force else _check_empty)


def _points(shard: edge.EdgeShard) -> int:
    """Every point in it, whosever it says it is."""
    return int(shard.count(edge.CountRequest(exact=True)))


def _check_empty(shard: edge.EdgeShard | None) -> None:
    points = 0 if shard is None else _points(shard)
    if points:
        raise ConflictError(
            f"There are {points:,} points where the copy would go.", hint="--force replaces them."
        )
