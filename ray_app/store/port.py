"""The port to the vector store. Adapters: ``edge`` (embedded), ``server`` (Qdrant server).

Every method takes a ``TenantScope``; there is none without. An adapter stamps ids and tenant
fields itself, compiles its own filters, and checks every result's tenant before returning it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt

from ray_app.spaces import EmbeddingSpace
from ray_app.store.words import WordVector
from ray_app.tenants import TenantScope

#: A value of a payload column that can be stored and filtered on.
Scalar = str | int | float | bool


@dataclass(frozen=True)
class IndexKey:
    """One index of a tenant: a table's vectors of one type, in one space."""

    table: str
    vector_type: str
    space: EmbeddingSpace


@dataclass(frozen=True)
class PointMeta:
    """What a point says besides its vector and tenant; the ledger row repeats it."""

    record_id: str
    chunk: int
    #: The chunk's whole text: searched by its words, and kept as a snippet.
    text: str
    content_hash: str
    provider: str
    #: UTC, ISO 8601.
    embedded_at: str
    #: The row's payload columns; lists of scalars are allowed.
    data: Mapping[str, Scalar | Sequence[Scalar]] = field(default_factory=dict)


@dataclass(frozen=True)
class PointBatch:
    """Points of one index that were read at one version.

    ``vectors`` is float32 of shape (n, dimensions), row i belonging to ``metas[i]``.
    ``version`` was given by ``db.clock.next_version`` before the read: a point with a greater
    version is never overwritten.
    """

    metas: Sequence[PointMeta]
    vectors: npt.NDArray[np.float32]
    version: int


@dataclass(frozen=True)
class DataChange:
    """New payload columns for a record, whose chunks are numbered from 0 to ``chunks`` - 1."""

    record_id: str
    chunks: int
    data: Mapping[str, Scalar | Sequence[Scalar]]


@dataclass(frozen=True)
class Condition:
    """A filter on a payload column; several are joined by "and".

    ``op`` is "eq", "in" (``value`` a list), or a range bound: "gt", "gte", "lt", "lte".
    """

    field: str
    op: str
    value: Any


@dataclass(frozen=True)
class Hit:
    """One point found, of the caller's own tenant."""

    record_id: str
    chunk: int
    score: float
    snippet: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class StoredPoint:
    """A point as the store holds it, without its vector; for audits and counts."""

    point_id: UUID
    record_id: str
    chunk: int
    content_hash: str
    version: int
    #: ``text.data_hash`` of the payload columns; "" where they were not read.
    data_hash: str = ""


@dataclass(frozen=True)
class Digest:
    """What a set of points comes to; equal sets have equal digests.

    ``bits`` is the exclusive or of the first 64 bits of each point's MD5 (see ``point_digest``).
    """

    points: int
    bits: int


@dataclass(frozen=True)
class Stray:
    """A point where the tenant's points are, in a partition that was not named, or another tenant's."""

    point_id: UUID
    #: Whether it carries another tenant's name, or none.
    foreign: bool
    partition: UUID | None


@dataclass(frozen=True)
class Census:
    """What there is of a tenant in one space."""

    #: Exact number of its points, of every index.
    points: int
    #: Ids of points in the same place that carry no tenant's name, which no filter on a tenant finds.
    nameless: tuple[UUID, ...]


@dataclass(frozen=True)
class StoredVector:
    """A point's vector, with the hash that says of which text it is one."""

    content_hash: str
    #: float32 of shape (dimensions,), scaled to length 1, as the store keeps it.
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True)
class PointCopy:
    """A whole point, to be written again elsewhere, under the ids and the name of whoever writes it."""

    #: Where it was read.
    point_id: UUID
    record_id: str
    chunk: int
    version: int
    content_hash: str
    snippet: str
    provider: str
    #: UTC, ISO 8601.
    embedded_at: str
    data: Mapping[str, Scalar | Sequence[Scalar]]
    #: float32 of shape (dimensions,), scaled to length 1, as the store keeps it.
    vector: npt.NDArray[np.float32]
    #: None when its text has no words.
    words: WordVector | None


class VectorStore(Protocol):
    """Where vectors live.

    Errors: ``StoreUnavailable`` when it cannot be reached or the write was not acknowledged,
    ``InvalidFilter`` for a condition that cannot be compiled, ``IsolationViolation`` when a
    result of another tenant turned up.
    """

    def ensure_index(self, scope: TenantScope, index: IndexKey, payload_fields: Sequence[str]) -> None:
        """Create what the index needs (collection or shard, payload indexes). Idempotent."""

    def upsert(self, scope: TenantScope, index: IndexKey, batch: PointBatch) -> None:
        """Write the points; durable when this returns."""

    def set_data(
        self, scope: TenantScope, index: IndexKey, changes: Sequence[DataChange], version: int
    ) -> None:
        """Replace all payload columns of records read at ``version``, which their points then have.

        Vectors and texts stay. Points with a greater version are left alone, and missing ones are
        fine. Durable when this returns.
        """

    def delete(self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]) -> None:
        """Delete the points of (record_id, chunk) ``keys``; durable when this returns. Missing are fine."""

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
        """The ``limit`` records nearest to ``vector`` by cosine, best first, each once by its best chunk."""

    def search_words(
        self,
        scope: TenantScope,
        index: IndexKey,
        text: str,
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
    ) -> list[Hit]:
        """The ``limit`` records whose words match ``text`` best by BM25, best first, each once.

        How rare a word is counts within the tenant alone: no other tenant's texts change a score.
        """

    def vectors_of(self, scope: TenantScope, index: IndexKey, record_id: str) -> npt.NDArray[np.float32]:
        """A record's vectors, float32 of shape (chunks, dimensions), by chunk; (0, dimensions) for none.

        Scaled to length 1, as the store keeps them.
        """

    def stored_vectors(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], StoredVector]:
        """The vectors of (record_id, chunk) ``keys``, by key; missing ones are left out."""

    def count(self, scope: TenantScope, index: IndexKey) -> int:
        """Exact number of points of the index."""

    def scroll(self, scope: TenantScope, index: IndexKey, *, page: int = 1000) -> Iterator[StoredPoint]:
        """Every point of the index, in no particular order, ``page`` fetched at a time."""

    def digest(self, scope: TenantScope, index: IndexKey, lo: UUID, hi: UUID) -> Digest:
        """Of the points of the index with ids from ``lo`` to ``hi``, both included."""

    def points_between(self, scope: TenantScope, index: IndexKey, lo: UUID, hi: UUID) -> list[StoredPoint]:
        """Those points, by id, with the hash of their payload columns."""

    def points_of(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> list[StoredPoint]:
        """The points of (record_id, chunk) ``keys``, as ``points_between``; missing ones are left out."""

    def copies_after(
        self, scope: TenantScope, index: IndexKey, after: UUID | None, limit: int
    ) -> list[PointCopy]:
        """The first ``limit`` points of the index by ascending id, those up to id ``after`` left out."""

    def copies_of(
        self, scope: TenantScope, index: IndexKey, keys: Sequence[tuple[str, int]]
    ) -> list[PointCopy]:
        """The points of (record_id, chunk) ``keys``, in no particular order; missing ones are left out."""

    def write_copies(self, scope: TenantScope, index: IndexKey, copies: Sequence[PointCopy]) -> None:
        """Write points with the versions that they have, replacing newer ones of the tenant, too.

        Durable when this returns.
        """

    def strays(
        self, scope: TenantScope, space: EmbeddingSpace, partitions: Sequence[UUID], limit: int
    ) -> list[Stray]:
        """At most ``limit`` points of the tenant's in ``space`` outside of ``partitions``.

        Where the tenant has a place of its own (embedded, dedicated) other tenants' points in it too.
        """

    def remove_strays(self, scope: TenantScope, space: EmbeddingSpace, point_ids: Sequence[UUID]) -> None:
        """Delete points by id, the tenant's own and nameless ones; durable when this returns.

        Where the tenant has a place of its own, other tenants' points in it too. Missing are fine.
        """

    def census(self, scope: TenantScope, space: EmbeddingSpace, limit: int) -> Census:
        """Count the tenant's points in ``space``, and name at most ``limit`` nameless ones beside them.

        A damaged replica has been seen to leave points with an empty payload. Whose they were, only
        their ids can tell; in a shared collection they may be another tenant's.
        """

    def drop_index(self, scope: TenantScope, index: IndexKey) -> None:
        """Delete every point of the index."""

    def erase(self, scope: TenantScope, spaces: Sequence[EmbeddingSpace]) -> int:
        """Erase every point of the tenant in ``spaces``; returns how many remain, counted afterwards (0)."""

    def check(self) -> str:
        """One line about the store's health, for people. Raises StoreUnavailable."""

    def close(self) -> None:
        """Release files and connections."""


#: Opens the store for as long as the context lasts.
OpenStore: TypeAlias = Callable[[], AbstractContextManager[VectorStore]]
