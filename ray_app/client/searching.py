"""Records by text, by vector, or by likeness to one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ray_app.client.batching import json_body
from ray_app.client.reading import ask
from ray_app.client.steps import Operation, Patience, Request
from ray_app.errors import InputError


@dataclass(frozen=True)
class Filter:
    """A condition on a payload column: ``eq``, ``in``, ``gt``, ``gte``, ``lt`` or ``lte``.

    ``in`` takes a list, the last four numbers or times; a column that is a list meets it when an item does.
    """

    field: str
    op: str
    value: Any


@dataclass(frozen=True)
class Like:
    """More like this record, which is left out."""

    table: str
    id: str | int


@dataclass(frozen=True)
class Hit:
    """A record found, by the piece of its text that fits best."""

    table: str
    id: str
    score: float
    snippet: str
    #: Its payload columns.
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Hits:
    """Records, each once, best first. Iterates over them."""

    hits: tuple[Hit, ...]
    #: ``cosine``: scores are similarities, -1 to 1. ``rrf``: lists were fused by rank, only the order counts.
    scoring: str

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, place: int) -> Hit:
        return self.hits[place]


@dataclass(frozen=True)
class Search:
    """What to look for: exactly one of ``text``, ``vector`` and ``like``; and where."""

    text: str | None = None
    vector: Sequence[float] | None = None
    like: Like | None = None
    #: All that have such vectors, unless named.
    tables: Sequence[str] | None = None
    vector_type: str = "content"
    #: All have to be met.
    filters: Sequence[Filter] = ()
    limit: int = 10
    #: The least cosine; what ``hybrid`` finds by its words alone is not held to it.
    score_threshold: float | None = None
    #: Look for the words of the text too (BM25), and fuse both by rank.
    hybrid: bool = False


def search(patience: Patience, asked: Search) -> Operation[Hits]:
    """Raises InputError unless exactly one thing is looked for; else as ``Patience.call``."""
    if sum(value is not None for value in (asked.text, asked.vector, asked.like)) != 1:
        raise InputError("Look for exactly one of text, vector and like.")
    fields = {name: value for name, value in vars(asked).items() if value is not None}
    fields["filters"] = [asdict(each) for each in asked.filters]
    if asked.vector is not None:
        fields["vector"] = [float(number) for number in asked.vector]
    if asked.like is not None:
        fields["like"] = asdict(asked.like)
    if asked.tables is not None:
        fields["tables"] = list(asked.tables)
    return (yield from ask(patience, Hits, Request("POST", "/v1/search", json_body(fields))))
