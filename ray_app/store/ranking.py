"""From chunks found to records found: each record once, by its best chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ray_app.store.payload import RECORD, Found

#: Chunks fetched for each record asked for; most rows are one or two chunks.
_OVERFETCH: Final = 2
#: Most points of one fetch, the query limit the server collections are made with.
MAX_FETCH: Final = 1000

#: (how many points, records to leave out) -> the nearest points, best first.
Fetch = Callable[[int, tuple[str, ...]], list[Found]]


def best_by_record(fetch: Fetch, limit: int) -> list[Found]:
    """The best chunk of each of the ``limit`` nearest records, best first, ties by record id.

    When the chunks of a few long records crowd out the others, the next fetch leaves those
    records out. What it returns is no nearer than what came before, so the order holds, and
    every fetch that comes back full brings at least one new record: at most ``limit`` fetches.
    """
    best: dict[str, Found] = {}
    size = min(MAX_FETCH, limit * _OVERFETCH)
    while True:
        known = len(best)
        found = fetch(size, tuple(best))
        for point in found:
            best.setdefault(point.payload[RECORD], point)
        if len(best) >= limit or len(found) < size or len(best) == known:
            break
        size = min(MAX_FETCH, size * 2)
    return sorted(best.values(), key=lambda point: (-point.score, point.payload[RECORD]))[:limit]
