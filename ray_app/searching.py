"""Search: which indexes, which records of each, and how lists of several are made one.

Blocking and without a model: the caller brings the vectors. ``search`` brings its own, for the
library and the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from ray_app.db.indexes import read_bindings
from ray_app.errors import InputError, UnknownRecord, UnknownTable
from ray_app.fusion import best_first, fuse
from ray_app.reports import SearchHit
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import Condition, Hit, IndexKey, VectorStore
from ray_app.tables import parse_vector_types
from ray_app.tenants import Tenant, TenantScope
from ray_app.workspace import Workspace

Vector = npt.NDArray[np.float32]
#: Hits of each list that are fused, when fewer are asked for: a record that is tenth in both lists
#: should beat one that is fifth in one.
FUSED_DEPTH: Final = 100
MAX_LIMIT: Final = 1000


class Scoring(StrEnum):
    """What the scores of an answer are."""

    #: Similarity of the vectors, -1 to 1.
    COSINE = "cosine"
    #: Reciprocal rank fusion: only the order means something.
    RANK_FUSION = "rrf"


@dataclass(frozen=True)
class Query:
    """What to look for, and where."""

    indexes: Sequence[IndexKey]
    #: float32 of shape (dimensions,) for each space of ``indexes``, by its id.
    vectors: Mapping[str, Vector]
    limit: int
    conditions: Sequence[Condition] = ()
    #: The least cosine a record found by its vector may have; words are not held to it.
    score_threshold: float | None = None
    #: Look for these words too, by BM25.
    words: str | None = None
    #: A (table, record id) to leave out.
    without: tuple[str, str] | None = None


@dataclass(frozen=True)
class Answer:
    """Records, each once, best first."""

    hits: Sequence[SearchHit]
    scoring: Scoring


@dataclass(frozen=True)
class Located:
    """Indexes, and the scope of where they are now."""

    scope: TenantScope
    indexes: list[IndexKey]


def find_indexes(
    workspace: Workspace,
    tenant: Tenant,
    scope: TenantScope,
    tables: Iterable[str] | None,
    vector_type: str,
) -> Located:
    """The tenant's indexes of that vector type: of ``tables``, or all of them for None.

    ``scope`` may have been minted before the tenant was moved: what is answered has its present place.

    Raises:
        UnknownTable: no such table spec, or no such index yet.
        UnknownVectorType: no such vector type.
    """
    (kind,) = parse_vector_types([vector_type])
    bindings = read_bindings(workspace.ledger, tenant.incarnation)
    pinned = {
        table: IndexKey(table, kind, index.space)
        for (table, of), index in bindings.indexes.items()
        if of is kind
    }
    wanted = list(pinned) if tables is None else [workspace.tables.get(name).name for name in tables]
    missing = [name for name in wanted if name not in pinned]
    if missing or not wanted:
        which = f"of table {missing[0]} " if missing else ""
        only = f" --tables {missing[0]}" if missing else ""
        raise UnknownTable(
            f"There is no {kind} index {which}yet; a backfill makes it, or the first records sent.",
            hint=f"Make it: rowbeam backfill --tenant {tenant.name}{only} --vector-type {kind}.",
            param="tables" if missing else None,
        )
    here = workspace.registry.scope_at(scope, bindings.placement or scope.placement)
    return Located(here, [pinned[name] for name in dict.fromkeys(wanted)])


def spaces_of(indexes: Iterable[IndexKey]) -> list[EmbeddingSpace]:
    """The spaces a text has to be embedded in to search ``indexes``."""
    return list({index.space.space_id: index.space for index in indexes}.values())


def only_space(indexes: Iterable[IndexKey]) -> EmbeddingSpace:
    """The one space of all ``indexes``. Raises InputError when there are several."""
    first, *others = spaces_of(indexes)
    if others:
        raise InputError(
            "The tables are not all in one embedding space, and a vector means something in one alone.",
            hint="Name tables of one space.",
            param="tables",
        )
    return first


def as_vector(values: Sequence[float], space: EmbeddingSpace) -> Vector:
    """``values`` as a vector to search ``space`` with, of length 1.

    Raises:
        InputError: the wrong number of values, one that is not finite, or nothing but zeros.
    """
    if len(values) != space.dimensions:
        raise InputError(
            f"The vector has {len(values)} numbers; {space.model} has {space.dimensions} dimensions.",
            param="vector",
        )
    vector = np.asarray(values, dtype=np.float64)
    # Scaled first, for the squares of large numbers overflow.
    largest = np.abs(vector).max()
    if not np.isfinite(largest) or largest == 0:
        raise InputError("The vector has no direction: it needs finite numbers, not all 0.", param="vector")
    vector = vector / largest
    unit: Vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit


def vector_of(store: VectorStore, scope: TenantScope, index: IndexKey, record_id: str) -> Vector:
    """The direction of a record: the mean of its chunks' vectors, of length 1.

    Raises:
        UnknownRecord: it has no vectors in the index.
    """
    chunks = store.vectors_of(scope, index, record_id)
    mean = chunks.mean(axis=0, dtype=np.float64) if len(chunks) else np.zeros(0)
    if not mean.any():
        raise UnknownRecord(
            f"The record {record_id!r} has no {index.vector_type} vectors in table {index.table}.",
            hint="Search with a text, or send the record first.",
            param="like.id",
        )
    unit: Vector = (mean / np.linalg.norm(mean)).astype(np.float32)
    return unit


def find(store: VectorStore, scope: TenantScope, query: Query) -> Answer:
    """The records that meet ``query``.

    Scores of one space compare, so its indexes make one list. Lists of different spaces, and those of
    words, are fused by rank.

    Raises:
        InputError, InvalidFilter: the limit is off, or a condition cannot be compiled.
        StoreUnavailable: the store cannot be asked.
    """
    if not 1 <= query.limit <= MAX_LIMIT:
        raise InputError(
            f"The limit {query.limit} is out of range.", hint=f"Use 1 to {MAX_LIMIT}.", param="limit"
        )
    spaces = spaces_of(query.indexes)
    fused = len(spaces) > 1 or query.words is not None
    depth = max(query.limit, FUSED_DEPTH) if fused else query.limit
    lists = [_by_vector(store, scope, query, space, depth) for space in spaces]
    if query.words is not None:
        lists += [_by_words(store, scope, query, query.words, index, depth) for index in query.indexes]
    if fused:
        return Answer(fuse(lists)[: query.limit], Scoring.RANK_FUSION)
    return Answer(lists[0][: query.limit], Scoring.COSINE)


def _by_vector(
    store: VectorStore, scope: TenantScope, query: Query, space: EmbeddingSpace, depth: int
) -> list[SearchHit]:
    found = []
    for index in query.indexes:
        if index.space != space:
            continue
        # One more, for the record that is left out.
        limit = min(depth + (query.without is not None), MAX_LIMIT)
        hits = store.search(
            scope,
            index,
            query.vectors[space.space_id],
            limit=limit,
            conditions=query.conditions,
            score_threshold=query.score_threshold,
        )
        found += _named(index, hits, query)
    return best_first(found)


def _by_words(
    store: VectorStore, scope: TenantScope, query: Query, words: str, index: IndexKey, depth: int
) -> list[SearchHit]:
    hits = store.search_words(scope, index, words, limit=depth, conditions=query.conditions)
    return _named(index, hits, query)


def _named(index: IndexKey, hits: Iterable[Hit], query: Query) -> list[SearchHit]:
    return [
        SearchHit(index.table, hit.record_id, hit.score, hit.snippet, hit.data)
        for hit in hits
        if (index.table, hit.record_id) != query.without
    ]


def search(
    workspace: Workspace,
    store: VectorStore,
    tenant: Tenant,
    table: str,
    text: str,
    *,
    limit: int,
    conditions: Sequence[Condition],
    vector_type: str,
) -> list[SearchHit]:
    """The tenant's records nearest to ``text``, each once, best first.

    Raises:
        UnknownTable, UnknownVectorType: no such table spec, vector type or index.
        InputError: the text is blank, or the limit is off.
        InvalidFilter: a condition cannot be compiled.
    """
    words = clean_query(text)
    located = find_indexes(workspace, tenant, workspace.registry.scope(tenant), [table], vector_type)
    (index,) = located.indexes
    vector = workspace.providers.provider_for(index.space).embed_query(words)
    query = Query([index], {index.space.space_id: vector}, limit, conditions)
    return list(find(store, located.scope, query).hits)


def clean_query(text: str) -> str:
    """A search text as a model can read it. Raises InputError when nothing is left of it."""
    words = text.replace("\x00", "").encode("utf-8", "replace").decode().strip()
    if not words:
        raise InputError("The search text is empty.", hint="Say what to look for.", param="text")
    return words
