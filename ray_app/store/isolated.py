"""The port, implemented once over what an engine can do: every tenant wall stands here.

An adapter supplies ten primitives that move neutral points and ``Where`` filters. Stamping,
validation, filter compilation and the check of results are not left to it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ray_app.errors import InputError
from ray_app.spaces import EmbeddingSpace
from ray_app.store import payload
from ray_app.store.conditions import check_fields, compile_conditions
from ray_app.store.copying import CopyingStore
from ray_app.store.filters import Where, cut_ids
from ray_app.store.payload import Found
from ray_app.store.port import (
    Condition,
    DataChange,
    Hit,
    IndexKey,
    PointBatch,
    StoredPoint,
    StoredVector,
)
from ray_app.store.ranking import MAX_FETCH, best_by_record
from ray_app.store.updates import PayloadUpdate, stamp_data
from ray_app.store.words import WordVector, query_vector
from ray_app.tenants import TenantScope

#: Chunks of a record asked for at a time; few records have more.
_CHUNKS: Final = 64


class IsolatedStore(CopyingStore):
    """A ``VectorStore`` over an engine."""

    def ensure_index(self, scope: TenantScope, index: IndexKey, payload_fields: Sequence[str]) -> None:
        self._prepare(scope, index.space, check_fields(payload_fields))

    def upsert(self, scope: TenantScope, index: IndexKey, batch: PointBatch) -> None:
        points = payload.stamp(scope, index, batch)
        # Beside the version, the guard names the tenant: an id that meets another tenant's point skips it.
        guard = Where(scope.incarnation, max_version=batch.version)
        if points:
            self._write(scope, index.space, points, guard)

    def set_data(
        self, scope: TenantScope, index: IndexKey, changes: Sequence[DataChange], version: int
    ) -> None:
        updates = stamp_data(scope, index, changes, version)
        if updates:
            self._update(scope, index.space, updates)

    def delete(self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]) -> None:
        ids = [payload.point_key(scope, index, record_id, chunk) for record_id, chunk in keys]
        partition = payload.partition_of(scope, index)
        wheres = [Where(scope.incarnation, partition, cut) for cut in cut_ids(ids)]
        if wheres:
            self._remove(scope, index.space, wheres)

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
        query: list[float] = payload.check_vectors(np.asarray(vector)[None], index.space, rows=1)[0].tolist()
        return self._ranked(scope, index, query, limit, conditions, score_threshold)

    def search_words(
        self,
        scope: TenantScope,
        index: IndexKey,
        text: str,
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
    ) -> list[Hit]:
        return self._ranked(
            scope, index, query_vector(payload.clean_text(text)), limit, conditions, score_threshold=None
        )

    def _ranked(
        self,
        scope: TenantScope,
        index: IndexKey,
        query: list[float] | WordVector | None,
        limit: int,
        conditions: Sequence[Condition],
        score_threshold: float | None,
    ) -> list[Hit]:
        if not 1 <= limit <= MAX_FETCH:
            raise InputError(
                f"A search for {limit} records is not possible.", hint=f"Ask for 1 to {MAX_FETCH}."
            )
        user = compile_conditions(conditions)
        partition = payload.partition_of(scope, index)
        if query is None:
            return []

        def fetch(size: int, without: tuple[str, ...]) -> list[Found]:
            where = Where(scope.incarnation, partition, user=user, without=without)
            found = self._nearest(scope, index.space, query, where, size, score_threshold)
            payload.check_tenant(scope, found)
            return found

        return [payload.as_hit(found) for found in best_by_record(fetch, limit)]

    def vectors_of(self, scope: TenantScope, index: IndexKey, record_id: str) -> npt.NDArray[np.float32]:
        partition = payload.partition_of(scope, index)
        own: list[Found] = []
        while True:
            chunks = range(len(own), len(own) + _CHUNKS)
            # In a filter, beside the tenant: fetched by id alone, a point comes whoever's it is.
            ids = tuple(payload.point_key(scope, index, record_id, chunk) for chunk in chunks)
            where = Where(scope.incarnation, partition, ids)
            found, _ = self._page(scope, index.space, where, None, _CHUNKS, vectors=(payload.VECTOR,))
            payload.check_tenant(scope, found)
            own += found
            if len(found) < _CHUNKS:
                return payload.as_vectors(own, index.space)

    def stored_vectors(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], StoredVector]:
        found = self._of_keys(scope, index, keys, vectors=(payload.VECTOR,))
        return payload.as_stored_vectors(found)

    def count(self, scope: TenantScope, index: IndexKey) -> int:
        return self._count(scope, index.space, self._all_of(scope, index))

    def scroll(self, scope: TenantScope, index: IndexKey, *, page: int = MAX_FETCH) -> Iterator[StoredPoint]:
        if not 1 <= page <= MAX_FETCH:
            raise InputError(f"Pages of {page} points are not possible.", hint=f"Ask for 1 to {MAX_FETCH}.")
        return self._walk(scope, index, page)

    def _walk(self, scope: TenantScope, index: IndexKey, page: int) -> Iterator[StoredPoint]:
        where = self._all_of(scope, index)
        offset: Any = None
        while True:
            found, offset = self._page(scope, index.space, where, offset, page)
            payload.check_tenant(scope, found)
            yield from map(payload.as_stored, found)
            if offset is None:
                return

    def drop_index(self, scope: TenantScope, index: IndexKey) -> None:
        self._remove(scope, index.space, [self._all_of(scope, index)])

    def erase(self, scope: TenantScope, spaces: Sequence[EmbeddingSpace]) -> int:
        for space in spaces:
            self._erase(scope, space)
        return sum(self._count(scope, space, Where(scope.incarnation)) for space in spaces)

    @staticmethod
    def _all_of(scope: TenantScope, index: IndexKey) -> Where:
        return Where(scope.incarnation, payload.partition_of(scope, index))

    @abstractmethod
    def check(self) -> str: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _prepare(self, scope: TenantScope, space: EmbeddingSpace, fields: Sequence[str]) -> None:
        """Make the tenant's home in the space, and text indexes of the payload paths ``fields``. Idempotent.

        Text, because that index stands aside for other values, which are then compared in the
        payload. The engine's number and time indexes answer each other's bounds, wrongly (Edge
        0.9.0), and one field name may be a number in one table and a time in another.
        """

    @abstractmethod
    def _update(self, scope: TenantScope, space: EmbeddingSpace, updates: Sequence[PayloadUpdate]) -> None:
        """Apply ``updates`` in order; durable on return. Nothing there is fine."""

    @abstractmethod
    def _remove(self, scope: TenantScope, space: EmbeddingSpace, wheres: Sequence[Where]) -> None:
        """Delete what any of ``wheres`` matches; durable on return. Nothing there is fine."""

    @abstractmethod
    def _nearest(
        self,
        scope: TenantScope,
        space: EmbeddingSpace,
        query: list[float] | WordVector,
        where: Where,
        limit: int,
        score_threshold: float | None,
    ) -> list[Found]:
        """The nearest points that ``where`` matches, best first, with ``payload.HIT_KEYS``.

        By cosine to a vector; by BM25 to words, where IDF counts ``where.corpus()`` alone.
        """

    @abstractmethod
    def _erase(self, scope: TenantScope, space: EmbeddingSpace) -> None:
        """Remove everything of the tenant in the space."""
