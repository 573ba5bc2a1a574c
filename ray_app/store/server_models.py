"""What Rowbeam's collections on a Qdrant server look like, and its filters in the client's models."""

from __future__ import annotations

from typing import Any, Final

from qdrant_client import models

from ray_app.errors import StoreRefused
from ray_app.spaces import EmbeddingSpace
from ray_app.store import payload
from ray_app.store.conditions import MAX_CLAUSES, MAX_VALUES
from ray_app.store.filters import Dialect, Where, translate
from ray_app.store.payload import NewPoint
from ray_app.store.ranking import MAX_FETCH
from ray_app.store.sizing import WRITE_POINTS
from ray_app.store.updates import PayloadUpdate
from ray_app.store.words import WordVector
from ray_app.tenants import Placement, TenantScope

#: The first server that counts a word's rarity among the tenant's points alone; an older one ignores the
#: wish, and one before 1.16 the version guard too.
OLDEST_SERVER: Final = (1, 19)
#: Raised when the layout of collections changes; readers go through the alias, which does not have it.
_LAYOUT: Final = "v1"

DIALECT: Final = Dialect(
    all_and_none=lambda must, must_not: models.Filter(must=must, must_not=must_not or None),
    any_of=lambda should: models.Filter(should=should),
    matched=lambda key, match: models.FieldCondition(key=key, match=match),
    ranged=lambda key, bounds: models.FieldCondition(key=key, range=bounds),
    value=lambda value: models.MatchValue(value=value),
    values=lambda values: models.MatchAny(any=values),
    numbers=models.Range,
    times=models.DatetimeRange,
    has_id=lambda ids: models.HasIdCondition(has_id=list(ids)),
    is_empty=lambda key: models.IsEmptyCondition(is_empty=models.PayloadField(key=key)),
)

_KEYWORD: Final = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, enable_hnsw=False)
OWN_INDEXES: Final = {
    payload.PARTITION: models.UuidIndexParams(type=models.UuidIndexType.UUID, is_tenant=True),
    payload.TENANT: models.UuidIndexParams(type=models.UuidIndexType.UUID, enable_hnsw=False),
    payload.VERSION: models.IntegerIndexParams(
        type=models.IntegerIndexType.INTEGER, lookup=False, range=True, enable_hnsw=False
    ),
    payload.HASH: _KEYWORD,
}
ADDED_WORDS: Final = models.SparseVectorNameConfig(
    sparse=models.SparseVectorConfig(modifier=models.Modifier.IDF)
)
#: Without graph links: one value's graph would span tenants, and every search names a partition.
FIELD_INDEX: Final = _KEYWORD
#: Payload indexes of one collection; what does not fit is filtered from the payload, within its partition.
MAX_INDEXES: Final = 64


def set_payload(update: PayloadUpdate) -> models.SetPayloadOperation:
    """``update`` as one operation of a batch."""
    where = translate(update.where, DIALECT)
    return models.SetPayloadOperation(set_payload=models.SetPayload(payload=update.payload, filter=where))


def dense(vectors: Any) -> Any:
    """The dense vector of a point's named ones; None when they were not asked for."""
    return vectors.get(payload.VECTOR) if isinstance(vectors, dict) else None


def words(vectors: Any) -> WordVector | None:
    """The words of a point's named vectors; None when it has none, or they were not asked for."""
    held = vectors.get(payload.WORDS) if isinstance(vectors, dict) else None
    return None if held is None else WordVector(list(held.indices), list(held.values))


def point(new: NewPoint) -> models.PointStruct:
    vectors: dict[str, Any] = {payload.VECTOR: new.vector}
    if new.words is not None:
        vectors[payload.WORDS] = models.SparseVector(indices=new.words.indices, values=new.words.weights)
    return models.PointStruct(id=new.point_id, vector=vectors, payload=new.payload)


def query_options(query: list[float] | WordVector, where: Where) -> dict[str, Any]:
    """Keyword arguments of ``query_points`` that say what is near."""
    if not isinstance(query, WordVector):
        return {"query": query, "using": payload.VECTOR}
    corpus = models.IdfCorpusParams(corpus=translate(where.corpus(), DIALECT))
    return {
        "query": models.SparseVector(indices=query.indices, values=query.weights),
        "using": payload.WORDS,
        "search_params": models.SearchParams(idf=corpus),
    }


def traffic_name(scope: TenantScope, space: EmbeddingSpace) -> str:
    """The name calls go to: an alias of the shared collection, or the tenant's own collection."""
    shared = f"es_{space.space_id}"
    return f"{shared}_t_{scope.incarnation}" if scope.placement is Placement.DEDICATED else shared


def collection_name(scope: TenantScope, space: EmbeddingSpace) -> str:
    """The name of the collection itself."""
    name = traffic_name(scope, space)
    return name if scope.placement is Placement.DEDICATED else f"{name}_{_LAYOUT}"


def collection_settings(scope: TenantScope, space: EmbeddingSpace) -> dict[str, Any]:
    """Keyword arguments of ``create_collection``.

    No graph over everything but one per partition (``m=0``, ``payload_m=16``), since a search names
    exactly one. In a shared collection ``search_allow_exact=False`` makes the server refuse a dense
    query that names no tenant-indexed field.
    """
    pooled = scope.placement is Placement.POOLED
    return {
        "vectors_config": {
            payload.VECTOR: models.VectorParams(size=space.dimensions, distance=models.Distance.COSINE)
        },
        "sparse_vectors_config": {payload.WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        "hnsw_config": models.HnswConfigDiff(m=0, payload_m=16, ef_construct=100),
        "strict_mode_config": models.StrictModeConfig(
            enabled=True,
            search_allow_exact=False if pooled else None,
            unindexed_filtering_update=False,
            # Numbers and times are compared in the payload; the partition bounds the work.
            unindexed_filtering_retrieve=True,
            max_query_limit=MAX_FETCH,
            upsert_max_batchsize=WRITE_POINTS,
            filter_max_conditions=2 * MAX_CLAUSES,
            condition_max_size=MAX_VALUES,
            max_payload_index_count=MAX_INDEXES,
        ),
        "metadata": {"space_id": space.space_id, "space": space.to_json()},
    }


def check_space(name: str, info: models.CollectionInfo, space: EmbeddingSpace) -> None:
    """Raises StoreRefused when the collection of that name was made by others, or for other vectors."""
    vectors = info.config.params.vectors
    vector = vectors.get(payload.VECTOR) if isinstance(vectors, dict) else None
    made_for = (info.config.metadata or {}).get("space_id")
    if vector is None or vector.size != space.dimensions or made_for != space.space_id:
        raise StoreRefused(
            f"Collection {name} holds other vectors than those of {space.model}.",
            hint="It was not made by Rowbeam: rename or delete it.",
        )
