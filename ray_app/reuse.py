"""Each distinct text is embedded once: vectors at hand are used again, here and wherever they are stored.

A text has its vector at hand when another row of the part has the same text, when this process has
embedded it lately, when another thread is embedding it right now, or when a point of the same tenant
and space was made of it. What comes from a point is checked against the point's own content hash: an
overwritten or deleted point gives no vector, never a wrong one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from ray_app.db import recognition
from ray_app.errors import ItemError
from ray_app.providers.port import Embedded
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import IndexKey, VectorStore
from ray_app.tenants import TenantScope
from ray_app.text import text_hash

Vector: TypeAlias = npt.NDArray[np.float32]
#: Finds stored vectors by text hash; what it does not find is left out.
Lookup: TypeAlias = Callable[[Sequence[bytes]], Mapping[bytes, Vector]]
#: Bytes of vectors kept of the texts embedded last. Blocks on their way to the writer take no more than
#: that (``jobs.pipeline.BLOCK_BYTES``), so a text that has left is in the ledger.
RECENT_BYTES: Final = 64 * 1024**2


@dataclass(frozen=True)
class Claim:
    """What became of some texts that a caller asked for, by hash."""

    known: dict[bytes, Vector] = field(default_factory=dict)
    #: For the caller to embed.
    mine: list[bytes] = field(default_factory=list)
    #: Another thread's; set when it is done with them, well or not.
    others: dict[bytes, threading.Event] = field(default_factory=dict)


class RecentVectors:
    """Vectors of the texts embedded last, and which texts are being embedded. Safe to share by threads.

    ``capacity`` texts of ``dimensions`` float32 each are kept; the oldest make room for new ones.
    """

    def __init__(self, dimensions: int, capacity: int) -> None:
        # Pages of it are real memory only once they have been written to.
        self._ring: Vector = np.empty((max(capacity, 1), dimensions), np.float32)
        self._place: dict[bytes, int] = {}
        self._digest: dict[int, bytes] = {}
        self._next = 0
        self._claimed: dict[bytes, threading.Event] = {}
        self._lock = threading.Lock()

    def claim(self, digests: Iterable[bytes]) -> Claim:
        """Sort ``digests`` into known, the caller's and others'. What is the caller's it must ``settle``."""
        claim, done = Claim(), threading.Event()
        with self._lock:
            for digest in digests:
                if digest in self._place:
                    claim.known[digest] = self._ring[self._place[digest]].copy()
                elif digest in self._claimed:
                    claim.others[digest] = self._claimed[digest]
                else:
                    self._claimed[digest] = done
                    claim.mine.append(digest)
        return claim

    def settle(self, claim: Claim, vectors: Mapping[bytes, Vector]) -> None:
        """Give up the claim, with the ``vectors`` that came of it."""
        with self._lock:
            for digest, vector in vectors.items():
                self._keep(digest, vector)
            released = {self._claimed.pop(digest) for digest in claim.mine}
        for event in released:
            event.set()

    def _keep(self, digest: bytes, vector: Vector) -> None:
        place, self._next = self._next, (self._next + 1) % len(self._ring)
        evicted = self._digest.pop(place, None)
        if evicted is not None:
            del self._place[evicted]
        self._ring[place] = vector
        self._place[digest], self._digest[place] = place, digest


@dataclass(frozen=True)
class Answer:
    """The answer to one ``TextReuse.embed``.

    ``embedded`` covers all texts, in order; its tokens and cost are those of the texts that were sent.
    """

    embedded: Embedded
    #: Places of the texts that were sent to the model; the others' vectors were at hand.
    sent: frozenset[int]


class TextReuse:
    """Embeds texts of one space, each distinct one once. Safe to share by threads."""

    def __init__(self, space: EmbeddingSpace, lookup: Lookup, capacity: int | None = None) -> None:
        """``capacity`` of texts embedded last is kept, by default as many as ``RECENT_BYTES`` hold."""
        if capacity is None:
            capacity = RECENT_BYTES // (4 * space.dimensions)
        self._space = space
        self._lookup = lookup
        self._recent = RecentVectors(space.dimensions, capacity)

    def embed(self, texts: Sequence[str], embed: Callable[[Sequence[str]], Embedded]) -> Answer:
        """``embed`` is called with texts that have no vector at hand, if there are any.

        Raises what ``embed`` or the lookup raises; the texts can then be asked for again, by anybody.
        """
        digests = [text_hash(text, self._space) for text in texts]
        first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        found = _Found()
        wanted = list(dict.fromkeys(digests))
        while wanted:
            claim = self._recent.claim(wanted)
            found.vectors |= claim.known
            if claim.mine:
                self._work(claim, {digest: texts[first[digest]] for digest in claim.mine}, embed, found)
            for event in claim.others.values():
                event.wait()
            wanted = list(claim.others)
        vectors = np.zeros((len(texts), self._space.dimensions), np.float32)
        faults: dict[int, ItemError] = {}
        for place, digest in enumerate(digests):
            if digest in found.faults:
                faults[place] = found.faults[digest]
            else:
                vectors[place] = found.vectors[digest]
        sent = frozenset(first[digest] for digest in found.sent)
        return Answer(replace(found.spent, vectors=vectors, faults=faults), sent)

    def _work(
        self,
        claim: Claim,
        texts: Mapping[bytes, str],
        embed: Callable[[Sequence[str]], Embedded],
        found: _Found,
    ) -> None:
        fresh: dict[bytes, Vector] = {}
        try:
            fresh |= self._lookup(claim.mine)
            unknown = [digest for digest in claim.mine if digest not in fresh]
            if unknown:
                answer = embed([texts[digest] for digest in unknown])
                found.take(unknown, answer)
                fresh |= {
                    digest: answer.vectors[place]
                    for place, digest in enumerate(unknown)
                    if place not in answer.faults
                }
        finally:
            self._recent.settle(claim, fresh)
        found.vectors |= fresh


@dataclass
class _Found:
    """What one ``TextReuse.embed`` has gathered."""

    vectors: dict[bytes, Vector] = field(default_factory=dict)
    faults: dict[bytes, ItemError] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)
    #: Tokens and cost so far; its vectors are none.
    spent: Embedded = field(default_factory=lambda: Embedded(np.zeros((0, 0), np.float32), 0, Decimal(0)))

    def take(self, digests: Sequence[bytes], answer: Embedded) -> None:
        self.sent += digests
        self.faults |= {digests[place]: error for place, error in answer.faults.items()}
        self.spent = replace(
            self.spent, tokens=self.spent.tokens + answer.tokens, cost=self.spent.cost + answer.cost
        )


def stored_lookup(ledger_: Engine, store: VectorStore, scope: TenantScope, space: EmbeddingSpace) -> Lookup:
    """Looks in the tenant's own points of ``space``, whichever table and vector type they belong to.

    Calls raise DatabaseUnavailable and StoreUnavailable.
    """

    def look_up(digests: Sequence[bytes]) -> dict[bytes, Vector]:
        with ledger_.connect() as connection:
            places = recognition.places_of_texts(connection, scope.incarnation, space, digests)
        found: dict[bytes, Vector] = {}
        for table, vector_type in {(place.table, place.vector_type) for place in places.values()}:
            index = IndexKey(table, vector_type, space)
            here = {
                digest: place
                for digest, place in places.items()
                if (place.table, place.vector_type) == (table, vector_type)
            }
            stored = store.stored_vectors(scope, index, [place.key for place in here.values()])
            for digest, place in here.items():
                point = stored.get(place.key)
                # It may have been written anew since the ledger was asked.
                if point is not None and point.content_hash == place.content_hash:
                    found[digest] = point.vector
        return found

    return look_up
