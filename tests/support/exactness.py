"""Is an index exactly in step with its table? Judged without the library's own comparison.

What a tenant's rows should come to is rendered here, and held against the ledger and against every
point that the store has, vectors included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from sqlalchemy import text

from ray_app.db.indexes import PinnedIndex, list_indexes
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import IndexKey, VectorStore
from ray_app.tenants import Tenant
from ray_app.text import content_hash, render
from ray_app.workspace import Workspace

#: A record and the number of its chunk.
Key = tuple[str, int]
#: The vectors that a model makes of texts, float32 of shape (n, dimensions), of any length.
Model = Callable[[EmbeddingSpace, Sequence[str]], npt.NDArray[np.float32]]
#: Points whose vectors are fetched at once.
PAGE = 500


@dataclass
class Verdict:
    """What was found of one tenant or of several; all empty but ``rows`` when all is well."""

    #: Rows that have a text.
    rows: int = 0
    #: Rows without their points, in the store or in the ledger, or with those of another text.
    lost: list[str] = field(default_factory=list)
    #: Points and ledger rows that no row calls for.
    extra: list[str] = field(default_factory=list)
    #: Points with a text or an id that is another tenant's.
    leaked: list[str] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        return not (self.lost or self.extra or self.leaked)

    def __str__(self) -> str:
        named = {"lost": self.lost, "extra": self.extra, "leaked": self.leaked}
        found = [f"{len(items)} {name} ({', '.join(items[:3])})" for name, items in named.items() if items]
        return "; ".join(found) or "exact"


@dataclass(frozen=True)
class _Index:
    """Everything about one tenant's index."""

    tenant: Tenant
    pinned: PinnedIndex
    key: IndexKey
    texts: Mapping[Key, str]
    hashes: Mapping[Key, str]
    ledger: Mapping[Key, tuple[str, str]]
    #: Point id, record and chunk, content hash.
    points: Sequence[tuple[str, Key, str]]


def examine(
    workspace: Workspace, store: VectorStore, tenants: Sequence[Tenant], table: str, model: Model
) -> Verdict:
    """Hold the rows of ``tenants`` against ledger and store, each tenant's also against the others'.

    The rows' texts must be short: of one chunk each.
    """
    verdict = Verdict()
    indexes = [_read(workspace, store, tenant, table) for tenant in tenants]
    for index in indexes:
        others = [other for other in indexes if other is not index]
        _hold(verdict, index, others)
        _hold_vectors(verdict, workspace, store, index, model)
    return verdict


def _read(workspace: Workspace, store: VectorStore, tenant: Tenant, table: str) -> _Index:
    (pinned,) = [
        index
        for (name, _), index in list_indexes(workspace.ledger, tenant.incarnation).items()
        if name == table
    ]
    reader = workspace.reader(tenant, pinned)
    rule = workspace.tables.get(table).text_rule(pinned.vector_type)
    with workspace.source.connect() as connection:
        query = text(f"SELECT * FROM {table} WHERE client_id = :client AND active")
        rows = connection.execute(query, {"client": tenant.client_id}).mappings().all()
    texts = {(str(row["id"]), 0): words for row in rows if (words := render(rule, row))}
    chunker = reader.chunker.chunker_id
    with workspace.ledger.connect() as connection:
        query = text(
            "SELECT record_id, chunk, point_id, content_hash FROM rowbeam.qdrant_vectors"
            " WHERE incarnation = :of AND table_name = :table AND vector_type = :kind AND space_id = :space"
        )
        where = {
            "of": tenant.incarnation,
            "table": table,
            "kind": str(pinned.vector_type),
            "space": pinned.space.space_id,
        }
        ledger = {
            (row.record_id, row.chunk): (str(row.point_id), row.content_hash)
            for row in connection.execute(query, where)
        }
    scope = workspace.registry.scope(tenant)
    points = [
        (str(point.point_id), (point.record_id, point.chunk), point.content_hash)
        for point in store.scroll(scope, reader.key)
    ]
    hashes = {key: content_hash(words, pinned.space, chunker) for key, words in texts.items()}
    return _Index(tenant, pinned, reader.key, texts, hashes, ledger, points)


def _hold(verdict: Verdict, index: _Index, others: Sequence[_Index]) -> None:
    name = index.tenant.name
    verdict.rows += len(index.texts)
    stored = {key: (point, digest) for point, key, digest in index.points}
    for place, found in (("the ledger", index.ledger), ("the store", stored)):
        for key, digest in index.hashes.items():
            if key not in found:
                verdict.lost.append(f"{name} {key[0]} is not in {place}")
            elif found[key][1] != digest:
                verdict.lost.append(f"{name} {key[0]} has another text's hash in {place}")
        verdict.extra += [f"{name} {key} is in {place}" for key in found if key not in index.hashes]
    copies = Counter(key for _, key, _ in index.points)
    verdict.extra += [f"{name} {key} has {count} points" for key, count in copies.items() if count > 1]
    for key in index.ledger.keys() & stored.keys():
        if index.ledger[key][0] != stored[key][0]:
            verdict.extra.append(f"{name} {key} has another point id in the ledger")
    theirs = {digest for other in others for digest in other.hashes.values()} - set(index.hashes.values())
    ids = {point for other in others for point, _, _ in other.points}
    verdict.leaked += [
        f"{name} has point {point} of another tenant"
        for point, _, digest in index.points
        if point in ids or digest in theirs
    ]


def _hold_vectors(
    verdict: Verdict, workspace: Workspace, store: VectorStore, index: _Index, model: Model
) -> None:
    """A vector must be the one of its row's text: hashes are written beside it, not made of it."""
    scope, keys = workspace.registry.scope(index.tenant), list(index.texts)
    for start in range(0, len(keys), PAGE):
        page = keys[start : start + PAGE]
        expected = model(index.pinned.space, [index.texts[key] for key in page])
        stored = store.stored_vectors(scope, index.key, page)
        for key, vector in zip(page, expected, strict=True):
            if key in stored and np.dot(stored[key].vector, vector / np.linalg.norm(vector)) < 0.999:
                verdict.lost.append(f"{index.tenant.name} {key[0]} has the vector of another text")
