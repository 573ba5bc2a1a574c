"""The part of the port that compares: digests of ranges of points, points by range, points out of place."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import xor
from typing import Any, Final
from uuid import UUID

from ray_app.spaces import EmbeddingSpace
from ray_app.store import payload
from ray_app.store.filters import MAX_IDS, Where, cut_ids
from ray_app.store.payload import Found
from ray_app.store.port import Census, Digest, IndexKey, StoredPoint, Stray
from ray_app.store.ranking import MAX_FETCH
from ray_app.tenants import TenantScope

_KEYS: Final = (*payload.AUDIT_KEYS, payload.DATA)


def point_digest(point_id: UUID, content_hash: str, version: int) -> int:
    """The first 64 bits of the MD5 of "id|hash|version": quick in Python and in SQL alike, and nobody
    gains by making two points collide."""
    text = f"{point_id}|{content_hash}|{version}"
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[:8], "big")


class AuditedStore(ABC):
    """The comparing half of a ``VectorStore`` over an engine."""

    def digest(self, scope: TenantScope, index: IndexKey, lo: UUID, hi: UUID) -> Digest:
        parts = [
            point_digest(UUID(found.point_id), found.payload[payload.HASH], found.payload[payload.VERSION])
            for found in self._between(scope, index, lo, hi, payload.AUDIT_KEYS)
        ]
        return Digest(len(parts), reduce(xor, parts, 0))

    def points_between(self, scope: TenantScope, index: IndexKey, lo: UUID, hi: UUID) -> list[StoredPoint]:
        return [payload.as_stored(found) for found in self._between(scope, index, lo, hi, _KEYS)]

    def points_of(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> list[StoredPoint]:
        return [payload.as_stored(found) for found in self._of_keys(scope, index, keys, names=_KEYS)]

    def _of_keys(
        self,
        scope: TenantScope,
        index: IndexKey,
        keys: Sequence[tuple[str, int]],
        *,
        names: Sequence[str] = payload.AUDIT_KEYS,
        vectors: Sequence[str] = (),
    ) -> list[Found]:
        """The points of (record_id, chunk) ``keys``, with payload keys ``names`` and these ``vectors``.

        By id in a filter, beside the tenant: fetched by id alone, a point comes whoever's it is.
        """
        ids = [payload.point_key(scope, index, record, chunk) for record, chunk in keys]
        partition = payload.partition_of(scope, index)
        points: list[Found] = []
        for cut in cut_ids(ids):
            where = Where(scope.incarnation, partition, cut)
            page, _ = self._page(scope, index.space, where, None, len(cut), vectors=vectors, keys=names)
            payload.check_tenant(scope, page)
            points += page
        return points

    def strays(
        self, scope: TenantScope, space: EmbeddingSpace, partitions: Sequence[UUID], limit: int
    ) -> list[Stray]:
        own = str(scope.incarnation)
        return [
            Stray(
                UUID(found.point_id),
                found.payload.get(payload.TENANT) != own,
                payload.as_partition(found),
            )
            for found in self._outside(scope, space, partitions, min(limit, MAX_FETCH))
        ]

    def remove_strays(self, scope: TenantScope, space: EmbeddingSpace, point_ids: Sequence[UUID]) -> None:
        for at in range(0, len(point_ids), MAX_IDS):
            self._remove_ids(scope, space, [str(point_id) for point_id in point_ids[at : at + MAX_IDS]])

    def census(self, scope: TenantScope, space: EmbeddingSpace, limit: int) -> Census:
        nameless = tuple(map(UUID, self._nameless(scope, space, min(limit, MAX_FETCH))))
        return Census(self._count(scope, space, Where(scope.incarnation)), nameless)

    def _between(
        self, scope: TenantScope, index: IndexKey, lo: UUID, hi: UUID, keys: Sequence[str]
    ) -> Iterator[Found]:
        """Both engines scroll by ascending id, from the offset on."""
        where = Where(scope.incarnation, payload.partition_of(scope, index))
        offset: Any = str(lo)
        while offset is not None and UUID(str(offset)) <= hi:
            page, offset = self._page(scope, index.space, where, offset, MAX_FETCH, keys=keys)
            payload.check_tenant(scope, page)
            yield from (found for found in page if lo <= UUID(found.point_id) <= hi)

    @abstractmethod
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
        """A page of what ``where`` matches, with payload ``keys``, and the next offset or None.

        By ascending id. ``vectors`` names those of the points' vectors to bring too.
        """

    @abstractmethod
    def _outside(
        self, scope: TenantScope, space: EmbeddingSpace, partitions: Sequence[UUID], limit: int
    ) -> list[Found]:
        """See ``strays``; with tenant and partition."""

    @abstractmethod
    def _count(self, scope: TenantScope, space: EmbeddingSpace, where: Where) -> int:
        """The exact number of points that ``where`` matches."""

    @abstractmethod
    def _nameless(self, scope: TenantScope, space: EmbeddingSpace, limit: int) -> list[str]:
        """See ``census``; their ids."""

    @abstractmethod
    def _remove_ids(self, scope: TenantScope, space: EmbeddingSpace, ids: Sequence[str]) -> None:
        """See ``remove_strays``; at most ``MAX_IDS``."""
