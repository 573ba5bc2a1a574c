"""Searches a second over one tenant's points, against qdrant-client's local mode with the same vectors.

Ours is what the server and the library call below HTTP and below the model: ``ray_app.searching.find`` on
the embedded store, with the walls between tenants. Vectors are the stub encoder's, near each other where
texts share words. Three questions: by vector; by vector with a filter that a fifth of the points meet;
by vector and words, fused by rank. Each competitor asks for ``--seconds`` in each round.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import mean
from typing import Any, Final

from qdrant_client import QdrantClient, models

from jobs.benchmark.homes import opened
from jobs.benchmark.latency import Answers
from jobs.benchmark.lines import Line, Target, in_turns, ratio
from jobs.benchmark.report import say
from jobs.benchmark.texts import load_texts
from ray_app.encoders.port import FloatArray
from ray_app.encoders.stub import STUB_SPACE, StubEncoder
from ray_app.launching import open_store_for
from ray_app.searching import Query, find
from ray_app.store.port import Condition, IndexKey, PointBatch, PointMeta, VectorStore
from ray_app.store.words import WordVector, document_vector, query_vector
from ray_app.tenants import TenantScope

LIMIT: Final = 10
INDEX: Final = IndexKey("pull_requests", "content", STUB_SPACE)
STATUSES: Final = ("open", "merged", "closed", "draft", "blocked")
_COLLECTION: Final = "peer"
#: Points of one write.
_BATCH: Final = 500
_FILTERED: Final = STATUSES[0]
#: A fused list takes the best 100 of each of its lists; see ``ray_app.searching.FUSED_DEPTH``.
_DEPTH: Final = 100
#: Questions whose answers are compared.
_COMPARED: Final = 10
_TARGET: Final = Target(1.0)


@dataclass
class Asker:
    """One competitor and one kind of question; ``ask`` names the records found for one, best first."""

    ask: Callable[[int], list[str]]
    answers: Answers = field(default_factory=Answers)

    def rate(self, questions: int, seconds: float) -> float:
        """Searches a second, one after another, of the questions 0, 1 … in turn."""
        began = time.perf_counter()
        number = 0
        while (now := time.perf_counter()) - began < seconds:
            self.ask(number % questions)
            self.answers.add("200", time.perf_counter() - now)
            number += 1
        return number / (time.perf_counter() - began)


@dataclass(frozen=True)
class Question:
    vector: FloatArray
    words: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each competitor in each round")


def lines(args: argparse.Namespace) -> Iterator[Line]:
    """By vector, with a filter, and with words."""
    texts = load_texts(args.texts, args.points + args.questions)
    vectors = StubEncoder().encode(texts).vectors
    asked = [Question(vectors[at], texts[at]) for at in range(args.points, len(texts))]
    points = texts[: args.points]
    say(f"writing {len(points):,} points to each competitor")
    peer = _peer(points, vectors, asked)
    with opened("stub") as rowbeam:
        rowbeam.add_tenant("bench")
        workspace = rowbeam.workspace
        scope = workspace.registry.scope(workspace.registry.get("bench"))
        with open_store_for(workspace.settings) as store:
            _fill(store, scope, points, vectors)
            for name, asker in _ours(store, scope, asked).items():
                yield _line(name, asker, peer[name], args)
        rowbeam.remove_tenant("bench")


def _fill(store: VectorStore, scope: TenantScope, texts: Sequence[str], vectors: FloatArray) -> None:
    store.ensure_index(scope, INDEX, ["status"])
    for start in range(0, len(texts), _BATCH):
        metas = [
            PointMeta(str(at), 0, texts[at], "", "stub", "2026-01-01T00:00:00+00:00", {"status": _status(at)})
            for at in range(start, min(start + _BATCH, len(texts)))
        ]
        store.upsert(scope, INDEX, PointBatch(metas, vectors[start : start + len(metas)], 1))


def _ours(store: VectorStore, scope: TenantScope, asked: Sequence[Question]) -> dict[str, Asker]:
    def ask(number: int, conditions: Sequence[Condition] = (), with_words: bool = False) -> list[str]:
        question = asked[number]
        words = question.words if with_words else None
        query = Query([INDEX], {STUB_SPACE.space_id: question.vector}, LIMIT, conditions, words=words)
        return [hit.record_id for hit in find(store, scope, query).hits]

    filtered = [Condition("status", "eq", _FILTERED)]
    return {
        "search by vector": Asker(ask),
        "search by vector, filtered": Asker(partial(ask, conditions=filtered)),
        "search by vector and words": Asker(partial(ask, with_words=True)),
    }


def _peer(texts: Sequence[str], vectors: FloatArray, asked: Sequence[Question]) -> dict[str, Asker]:
    """The same points in qdrant-client's local mode, which compares with every one of them."""
    client = QdrantClient(":memory:")
    with warnings.catch_warnings():
        # It advises a server for 20,000 points and more.
        warnings.simplefilter("ignore")
        client.create_collection(
            _COLLECTION,
            vectors_config={
                "dense": models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
            },
            sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        for start in range(0, len(texts), _BATCH):
            chosen = range(start, min(start + _BATCH, len(texts)))
            client.upsert(_COLLECTION, [_peer_point(at, texts[at], vectors[at]) for at in chosen])

    def names(**request: Any) -> list[str]:
        found = client.query_points(_COLLECTION, limit=LIMIT, with_payload=["status", "text"], **request)
        return [str(point.id) for point in found.points]

    def by_vector(number: int, query_filter: models.Filter | None = None) -> list[str]:
        return names(query=asked[number].vector.tolist(), using="dense", query_filter=query_filter)

    def fused(number: int) -> list[str]:
        lists = [models.Prefetch(query=asked[number].vector.tolist(), using="dense", limit=_DEPTH)]
        if (words := _sparse(query_vector(asked[number].words))) is not None:
            lists.append(models.Prefetch(query=words, using="words", limit=_DEPTH))
        return names(prefetch=lists, query=models.FusionQuery(fusion=models.Fusion.RRF))

    match = models.FieldCondition(key="status", match=models.MatchValue(value=_FILTERED))
    return {
        "search by vector": Asker(by_vector),
        "search by vector, filtered": Asker(partial(by_vector, query_filter=models.Filter(must=[match]))),
        "search by vector and words": Asker(fused),
    }


def _peer_point(at: int, text: str, vector: FloatArray) -> models.PointStruct:
    named: dict[str, Any] = {"dense": vector.tolist()}
    if (words := _sparse(document_vector(text))) is not None:
        named["words"] = words
    return models.PointStruct(id=at, vector=named, payload={"status": _status(at), "text": text})


def _sparse(words: WordVector | None) -> models.SparseVector | None:
    return None if words is None else models.SparseVector(indices=words.indices, values=words.weights)


def _status(at: int) -> str:
    return STATUSES[at % len(STATUSES)]


def _line(name: str, ours: Asker, peer: Asker, args: argparse.Namespace) -> Line:
    competitors = {
        who: partial(asker.rate, args.questions, args.seconds)
        for who, asker in (("ours", ours), ("peer", peer))
    }
    samples = in_turns(competitors, args.rounds)
    shared = [
        len({*ours.ask(number)} & {*peer.ask(number)}) / LIMIT
        for number in range(min(_COMPARED, args.questions))
    ]
    return Line(
        f"{name}, {args.points:,} points",
        "qdrant-client, local mode",
        _TARGET,
        ratio(samples["ours"], samples["peer"]),
        measure="queries/s",
        ours=samples["ours"],
        peer=samples["peer"],
        details={
            "milliseconds": ours.answers.summary(),
            "peer_milliseconds": peer.answers.summary(),
            "top_10_shared_with_peer": mean(shared),
        },
    )
