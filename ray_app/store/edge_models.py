"""What Rowbeam's Edge shards look like, and its filters and queries in the engine's models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import qdrant_edge as edge

from ray_app.spaces import EmbeddingSpace
from ray_app.store import payload
from ray_app.store.filters import Dialect, Where, translate
from ray_app.store.payload import NewPoint
from ray_app.store.words import WordVector

DIALECT: Final = Dialect(
    all_and_none=lambda must, must_not: edge.Filter(must=must, must_not=must_not or None),
    any_of=lambda should: edge.Filter(should=should),
    matched=lambda key, match: edge.FieldCondition(key=key, match=match),
    ranged=lambda key, bounds: edge.FieldCondition(key=key, range=bounds),
    value=lambda value: edge.MatchValue(value=_scalar(value)),
    values=lambda values: edge.MatchAny(any=values),
    numbers=edge.RangeFloat,
    times=edge.RangeDateTime,
    has_id=lambda ids: edge.HasIdCondition(set(ids)),
    is_empty=edge.IsEmptyCondition,
)
OWN_INDEXES: Final[Mapping[str, edge.UuidIndexParams | edge.IntegerIndexParams]] = {
    payload.PARTITION: edge.UuidIndexParams(is_tenant=True),
    payload.TENANT: edge.UuidIndexParams(enable_hnsw=False),
    payload.VERSION: edge.IntegerIndexParams(lookup=False, range=True, enable_hnsw=False),
}


def _scalar(value: str | int) -> Any:
    # The binding takes Python's True for the integer 1, and numpy's for what it is.
    return np.bool_(value) if isinstance(value, bool) else value


def point(new: NewPoint) -> edge.Point:
    vectors: dict[str, Any] = {payload.VECTOR: new.vector}
    if new.words is not None:
        vectors[payload.WORDS] = edge.SparseVector(new.words.indices, new.words.weights)
    return edge.Point(new.point_id, vectors, new.payload)


def dense(vectors: Any) -> list[float] | None:
    """The dense vector of a point's named ones; None when they were not asked for."""
    return vectors.get(payload.VECTOR) if vectors else None


def words(vectors: Any) -> WordVector | None:
    """The words of a point's named vectors; None when it has none, or they were not asked for."""
    held = vectors.get(payload.WORDS) if vectors else None
    return None if held is None else WordVector(list(held.indices), list(held.values))


def query_options(query: list[float] | WordVector, where: Where) -> dict[str, Any]:
    """Keyword arguments of ``QueryRequest`` that say what is near."""
    if not isinstance(query, WordVector):
        return {"query": edge.Query.Nearest(query, payload.VECTOR)}
    # Needed in a shard of one tenant too: without a corpus, deleted points count.
    corpus = edge.IdfParams(translate(where.corpus(), DIALECT))
    words = edge.SparseVector(query.indices, query.weights)
    return {
        "query": edge.Query.Nearest(words, payload.WORDS),
        "params": edge.SearchParams(idf=corpus),
    }


def config(space: EmbeddingSpace) -> edge.EdgeConfig:
    vector = edge.EdgeVectorParams(size=space.dimensions, distance=edge.Distance.Cosine)
    return edge.EdgeConfig(
        vectors={payload.VECTOR: vector},
        sparse_vectors={payload.WORDS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        # The engine's own defaults, written out because the constructor has none.
        hnsw_config=edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000),
        # Every open shard has its own search threads.
        max_search_threads=1,
    )


def add_words(shard: edge.EdgeShard, written: Mapping[str, Any]) -> None:
    """Make room for words in a shard that was made before there were any, as its ``written`` settings say.

    Its points get their words when they are written next.
    """
    if payload.WORDS not in written.get("sparse_vectors", {}):
        shard.update(edge.UpdateOperation.create_sparse_vector(payload.WORDS, modifier=edge.Modifier.Idf))
        shard.flush()


def create_own_indexes(shard: edge.EdgeShard) -> None:
    for key, index in OWN_INDEXES.items():
        shard.update(edge.UpdateOperation.create_field_index(key, index))
