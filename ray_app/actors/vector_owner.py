"""The one process that owns the embedded vector store, and the port through which others use it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_app.actors.cluster import NAMESPACE, worker_settings
from ray_app.actors.metrics import export_metrics
from ray_app.errors import RowbeamError, StoreUnavailable
from ray_app.metrics.declared import ISOLATION_VIOLATIONS
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
)
from ray_app.tenants import TenantScope


class VectorOwner:
    """Holds the Edge shards open. An Edge directory admits one process, so there is one of these.

    The engine holds the GIL in every call, so calls run one at a time; each is milliseconds.
    """

    def __init__(self, fingerprint: str) -> None:
        from ray_app.store.edge import EdgeStore

        self._store = EdgeStore(worker_settings(fingerprint).edge_dir)
        ISOLATION_VIOLATIONS.start()
        export_metrics()

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """One call of the ``EdgePort``."""
        return getattr(self._store, method)(*args, **options)

    def scroll_page(self, scope: TenantScope, index: IndexKey, page: int) -> list[StoredPoint]:
        """All points of an index; an iterator cannot cross a process border."""
        return list(self._store.scroll(scope, index, page=page))


def owner_name(settings: Settings) -> str:
    """One owner for each store directory."""
    digest = hashlib.sha256(str(settings.edge_dir.resolve()).encode()).hexdigest()[:12]
    return f"vector-owner-{digest}"


class OwnedStore:
    """The ``VectorStore`` port over the owner actor, which is started when there is none.

    The actor must run on the machine that has the directory, which is this one. When it dies Ray
    restarts it and its shards replay their logs; a call it was in raises StoreUnavailable, and
    every call is idempotent, so the caller tries again.
    """

    def __init__(self, settings: Settings) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor = (
            ray.remote(VectorOwner)
            .options(
                name=owner_name(settings),
                namespace=NAMESPACE,
                get_if_exists=True,
                lifetime="detached",
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=0,
                scheduling_strategy=here,
            )
            .remote(settings.fingerprint())
        )

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        return self._get(self._actor.call.remote(method, *args, **options))

    def _get(self, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, RowbeamError):
                raise error.cause from None
            raise
        except (RayActorError, ActorUnavailableError) as error:
            raise StoreUnavailable("The process that owns the vector store has died.") from error

    def ensure_index(self, scope: TenantScope, index: IndexKey, payload_fields: Sequence[str]) -> None:
        self._call("ensure_index", scope, index, payload_fields)

    def upsert(self, scope: TenantScope, index: IndexKey, batch: PointBatch) -> None:
        self._call("upsert", scope, index, batch)

    def set_data(
        self, scope: TenantScope, index: IndexKey, changes: Sequence[DataChange], version: int
    ) -> None:
        self._call("set_data", scope, index, changes, version)

    def delete(self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]) -> None:
        self._call("delete", scope, index, keys)

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
        hits: list[Hit] = self._call(
            "search",
            scope,
            index,
            vector,
            limit=limit,
            conditions=conditions,
            score_threshold=score_threshold,
        )
        return hits

    def search_words(
        self,
        scope: TenantScope,
        index: IndexKey,
        text: str,
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
    ) -> list[Hit]:
        hits: list[Hit] = self._call("search_words", scope, index, text, limit=limit, conditions=conditions)
        return hits

    def vectors_of(self, scope: TenantScope, index: IndexKey, record_id: str) -> npt.NDArray[np.float32]:
        vectors: npt.NDArray[np.float32] = self._call("vectors_of", scope, index, record_id)
        return vectors

    def stored_vectors(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], StoredVector]:
        found: dict[tuple[str, int], StoredVector] = self._call("stored_vectors", scope, index, keys)
        return found

    def count(self, scope: TenantScope, index: IndexKey) -> int:
        return int(self._call("count", scope, index))

    def scroll(self, scope: TenantScope, index: IndexKey, *, page: int = 1000) -> Iterator[StoredPoint]:
        yield from self._get(self._actor.scroll_page.remote(scope, index, page))

    def digest(self, scope: TenantScope, index: IndexKey, lo: UUID, hi: UUID) -> Digest:
        digest: Digest = self._call("digest", scope, index, lo, hi)
        return digest

    def points_between(self, scope: TenantScope, index: IndexKey, lo: UUID, hi: UUID) -> list[StoredPoint]:
        points: list[StoredPoint] = self._call("points_between", scope, index, lo, hi)
        return points

    def points_of(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> list[StoredPoint]:
        points: list[StoredPoint] = self._call("points_of", scope, index, keys)
        return points

    def copies_after(
        self, scope: TenantScope, index: IndexKey, after: UUID | None, limit: int
    ) -> list[PointCopy]:
        copies: list[PointCopy] = self._call("copies_after", scope, index, after, limit)
        return copies

    def copies_of(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> list[PointCopy]:
        copies: list[PointCopy] = self._call("copies_of", scope, index, keys)
        return copies

    def write_copies(self, scope: TenantScope, index: IndexKey, copies: Sequence[PointCopy]) -> None:
        self._call("write_copies", scope, index, copies)

    def strays(
        self, scope: TenantScope, space: EmbeddingSpace, partitions: Sequence[UUID], limit: int
    ) -> list[Stray]:
        found: list[Stray] = self._call("strays", scope, space, partitions, limit)
        return found

    def remove_strays(self, scope: TenantScope, space: EmbeddingSpace, point_ids: Sequence[UUID]) -> None:
        self._call("remove_strays", scope, space, point_ids)

    def census(self, scope: TenantScope, space: EmbeddingSpace, limit: int) -> Census:
        census: Census = self._call("census", scope, space, limit)
        return census

    def drop_index(self, scope: TenantScope, index: IndexKey) -> None:
        self._call("drop_index", scope, index)

    def erase(self, scope: TenantScope, spaces: Sequence[EmbeddingSpace]) -> int:
        return int(self._call("erase", scope, spaces))

    def maintain(self, scope: TenantScope, index: IndexKey) -> bool:
        return bool(self._call("maintain", scope, index))

    def shard_points(self, scope: TenantScope, space: EmbeddingSpace) -> int:
        return int(self._call("shard_points", scope, space))

    def save_shard(self, scope: TenantScope, space: EmbeddingSpace, folder: Path) -> SavedShard | None:
        saved: SavedShard | None = self._call("save_shard", scope, space, folder)
        return saved

    def shard_place(self, scope: TenantScope, space: EmbeddingSpace) -> Path:
        place: Path = self._call("shard_place", scope, space)
        return place

    def restore_shard(
        self, scope: TenantScope, space: EmbeddingSpace, place: Path, points: int, *, force: bool
    ) -> None:
        self._call("restore_shard", scope, space, place, points, force=force)

    def check(self) -> str:
        return str(self._call("check"))

    def close(self) -> None:
        """Nothing to release here: the owner outlives its users."""
