"""One small Edge store: its space, index and tenants."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import IndexKey, VectorStore
from ray_app.tenants import Placement, TenantScope
from tests.support.vector_store_world import DIMENSIONS, SECRET, batch, meta, unit

SPACE = EmbeddingSpace("test", "1", DIMENSIONS)
INDEX = IndexKey("issues", "content", SPACE)


def tenant(number: int = 1) -> TenantScope:
    return TenantScope(UUID(int=number, version=4), Placement.EMBEDDED, SECRET)


def shard_path(root: Path, scope: TenantScope) -> Path:
    name = str(scope.incarnation)
    return root / SPACE.space_id / name[:2] / name


def fill(store: VectorStore, scope: TenantScope, *records: str) -> None:
    store.ensure_index(scope, INDEX, [])
    store.upsert(scope, INDEX, batch([meta(record) for record in records], [unit(1)] * len(records)))
