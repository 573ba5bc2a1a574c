"""Lists of search hits made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from ray_app.reports import SearchHit

#: Of reciprocal rank fusion: how little the first ranks count for more than the next ones. The value of
#: Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
#: learning methods", SIGIR 2009.
RRF_K: Final = 60


def fuse(lists: Iterable[Sequence[SearchHit]]) -> list[SearchHit]:
    """Lists of hits, best first, as one: a hit scores the sum of 1 / (RRF_K + its rank, from 1) over them."""
    scores: dict[tuple[str, str], float] = {}
    hits: dict[tuple[str, str], SearchHit] = {}
    for found in lists:
        for rank, hit in enumerate(found, start=1):
            key = (hit.table, hit.record_id)
            scores[key] = scores.get(key, 0.0) + 1 / (RRF_K + rank)
            hits.setdefault(key, hit)
    return best_first(replace(hit, score=scores[key]) for key, hit in hits.items())


def best_first(hits: Iterable[SearchHit]) -> list[SearchHit]:
    """Equal scores in one order, whatever order they came in."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.table, hit.record_id))
