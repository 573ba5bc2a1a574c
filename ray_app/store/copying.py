"""The part of the port that copies: whole points read, and written again elsewhere or for another tenant."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import numpy as np

from ray_app.errors import InputError
from ray_app.spaces import EmbeddingSpace
from ray_app.store import payload
from ray_app.store.auditing import AuditedStore
from ray_app.store.filters import Where
from ray_app.store.payload import Found, NewPoint
from ray_app.store.port import IndexKey, PointCopy
from ray_app.store.ranking import MAX_FETCH
from ray_app.tenants import TenantScope

_KEYS: Final = (
    *(*payload.AUDIT_KEYS, payload.DATA),
    *(payload.SNIPPET, payload.PROVIDER, payload.EMBEDDED_AT),
)
_VECTORS: Final = (payload.VECTOR, payload.WORDS)
_LAST: Final = UUID(int=2**128 - 1)


class CopyingStore(AuditedStore):
    """The copying half of a ``VectorStore`` over an engine."""

    def copies_after(
        self, scope: TenantScope, index: IndexKey, after: UUID | None, limit: int
    ) -> list[PointCopy]:
        if not 1 <= limit <= MAX_FETCH:
            raise InputError(f"Pages of {limit} points are not possible.", hint=f"Ask for 1 to {MAX_FETCH}.")
        if after == _LAST:
            return []
        # Both engines scroll by ascending id, from the offset on.
        offset = None if after is None else str(UUID(int=after.int + 1))
        where = Where(scope.incarnation, payload.partition_of(scope, index))
        page, _ = self._page(scope, index.space, where, offset, limit, vectors=_VECTORS, keys=_KEYS)
        payload.check_tenant(scope, page)
        return [_copy(found) for found in page]

    def copies_of(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> list[PointCopy]:
        found = self._of_keys(scope, index, keys, names=_KEYS, vectors=_VECTORS)
        return [_copy(each) for each in found]

    def write_copies(self, scope: TenantScope, index: IndexKey, copies: Sequence[PointCopy]) -> None:
        points = _stamp(scope, index, copies)
        # The guard names the tenant alone: an id that meets another tenant's point skips it.
        if points:
            self._write(scope, index.space, points, Where(scope.incarnation))

    @abstractmethod
    def _write(
        self, scope: TenantScope, space: EmbeddingSpace, points: Sequence[NewPoint], guard: Where
    ) -> None:
        """Insert ``points``, replacing only those that ``guard`` matches; durable on return."""


def _copy(found: Found) -> PointCopy:
    held = found.payload
    return PointCopy(
        *(UUID(found.point_id), held[payload.RECORD], held[payload.CHUNK]),
        *(held[payload.VERSION], held[payload.HASH], held[payload.SNIPPET]),
        *(held[payload.PROVIDER], held[payload.EMBEDDED_AT], held.get(payload.DATA) or {}),
        np.array(found.vector, np.float32),
        found.words,
    )


def _stamp(scope: TenantScope, index: IndexKey, copies: Sequence[PointCopy]) -> list[NewPoint]:
    """Points of ``scope``, whoever's ``copies`` are. Raises InputError as ``payload.stamp``."""
    if not copies:
        return []
    vectors = payload.check_vectors(
        np.stack([copy.vector for copy in copies]), index.space, rows=len(copies)
    ).tolist()
    shared = payload.shared_keys(scope, index)
    return [
        NewPoint(
            payload.point_key(scope, index, copy.record_id, copy.chunk),
            vector,
            copy.words,
            {
                **shared,
                payload.VERSION: payload.check_version(copy.version),
                payload.HASH: copy.content_hash,
                payload.RECORD: copy.record_id,
                payload.CHUNK: copy.chunk,
                payload.SNIPPET: payload.clean_text(copy.snippet),
                payload.EMBEDDED_AT: copy.embedded_at,
                payload.PROVIDER: payload.clean_text(copy.provider),
                payload.DATA: payload.clean_data(copy.data),
            },
        )
        for copy, vector in zip(copies, vectors, strict=True)
    ]
