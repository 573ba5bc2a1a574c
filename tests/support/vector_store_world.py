"""Builders shared by the vector store's contract tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from ray_app.spaces import EmbeddingSpace
from ray_app.store.isolated import IsolatedStore
from ray_app.store.port import IndexKey, PointBatch, PointCopy, PointMeta
from ray_app.tenants import Placement, TenantScope

DIMENSIONS = 4
SECRET = b"contract tests: a secret of the deployment"


def unit(*components: float) -> np.ndarray:
    """A vector of the tests' space, missing components being 0."""
    vector = np.zeros(DIMENSIONS, np.float32)
    vector[: len(components)] = components
    return vector


def slanted(cosine: float) -> np.ndarray:
    """A vector whose cosine with ``unit(1)`` is ``cosine``."""
    return unit(cosine, float(np.sqrt(1 - cosine**2)))


def meta(record_id: str, chunk: int = 0, snippet: str = "text", **data: Any) -> PointMeta:
    return PointMeta(record_id, chunk, snippet, "hash", "local", "2026-11-23T10:00:00+00:00", data)


def batch(metas: Sequence[PointMeta], vectors: Sequence[np.ndarray], version: int = 1) -> PointBatch:
    return PointBatch(metas, np.array(vectors, np.float32).reshape(len(metas), -1), version)


def copied(record_id: str, vector: np.ndarray, chunk: int = 0, version: int = 1) -> PointCopy:
    """A copy of a point that is nowhere."""
    at = "2026-11-23T10:00:00+00:00"
    return PointCopy(uuid4(), record_id, chunk, version, "hash", "text", "local", at, {}, vector, None)


@dataclass
class World:
    """A store under test, and the engine behind it."""

    store: IsolatedStore
    placement: Placement
    #: Writes a point as it is, past every wall: (scope, space, id, vector, payload).
    forge: Callable[[TenantScope, EmbeddingSpace, str, np.ndarray, Mapping[str, Any]], None]
    #: Distinct in every test, so that tests on one server do not meet.
    space: EmbeddingSpace = field(
        default_factory=lambda: EmbeddingSpace(f"test-{uuid4().hex[:8]}", "1", DIMENSIONS)
    )
    scopes: list[TenantScope] = field(default_factory=list)

    def tenant(self, incarnation: UUID | None = None) -> TenantScope:
        scope = TenantScope(incarnation or uuid4(), self.placement, SECRET)
        self.scopes.append(scope)
        return scope

    def index(self, table: str = "issues", vector_type: str = "content") -> IndexKey:
        return IndexKey(table, vector_type, self.space)

    def filled(self, scope: TenantScope, index: IndexKey, points: PointBatch) -> None:
        self.store.ensure_index(scope, index, [])
        self.store.upsert(scope, index, points)

    def found(self, scope: TenantScope, index: IndexKey, **options: Any) -> list[str]:
        """Record ids nearest to ``unit(1)``."""
        hits = self.store.search(scope, index, unit(1), **{"limit": 10, **options})
        return [hit.record_id for hit in hits]
