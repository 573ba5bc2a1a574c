"""One store, many threads: as the HTTP server uses it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from ray_app.settings import Settings
from ray_app.store.edge import EdgeStore
from ray_app.store.routing import EdgePort, RoutedStore, open_store
from ray_app.store.server import ServerStore
from ray_app.tenants import Placement, TenantScope
from tests.support.edge_store import INDEX, SPACE, fill, tenant
from tests.support.scripted_qdrant import ScriptedServer
from tests.support.vector_store_world import SECRET, batch, meta, unit

T = TypeVar("T")
THREADS = 8


def together(act: Callable[[int], T]) -> list[T]:
    """``act(0)`` to ``act(THREADS - 1)``, begun at one moment."""
    start = threading.Barrier(THREADS)

    def one(number: int) -> T:
        start.wait(timeout=30)
        return act(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


@pytest.mark.parametrize("placement", [Placement.EMBEDDED, Placement.POOLED])
def test_an_engine_is_opened_once_by_threads_that_come_together(tmp_path: Path, placement: Placement) -> None:
    opened: list[str] = []
    qdrant = ScriptedServer()

    def slowly(name: str, made: Callable[[], T]) -> Callable[[], T]:
        def open_it() -> T:
            opened.append(name)
            time.sleep(0.05)  # long enough for the other threads to come to the same door
            return made()

        return open_it

    edge: Callable[[], EdgePort] = slowly("edge", lambda: EdgeStore(tmp_path))
    store = RoutedStore(edge, slowly("server", lambda: ServerStore.connect(qdrant.url)))
    scope = TenantScope(tenant().incarnation, placement, SECRET)
    together(lambda _: store.set_data(scope, INDEX, [], 1))
    store.close()
    qdrant.close()
    assert opened == ["edge" if placement is Placement.EMBEDDED else "server"]


def test_threads_share_an_edge_store_of_fewer_open_shards_than_tenants(tmp_path: Path) -> None:
    """Every thread writes and reads two tenants' shards, all of which keep closing each other."""
    store = RoutedStore(lambda: EdgeStore(tmp_path, max_open=2), None)

    def use(number: int) -> list[tuple[int, list[str], int]]:
        seen = []
        for turn in range(6):
            scope, record = tenant(1 + (number + turn) % 4), f"{number}-{turn}"
            store.ensure_index(scope, INDEX, ["status"])
            store.upsert(scope, INDEX, batch([meta(record, 0, f"crash {record}")], [unit(1)]))
            hits = store.search_words(scope, INDEX, record, limit=1)
            own = store.vectors_of(scope, INDEX, record)
            list(store.scroll(scope, INDEX, page=3))
            store.search(scope, INDEX, unit(1), limit=3)
            seen.append((len(hits), [hit.record_id for hit in hits], len(own)))
        return seen

    for number, seen in enumerate(together(use)):
        assert seen == [(1, [f"{number}-{turn}"], 1) for turn in range(6)]
    assert sum(store.count(tenant(number), INDEX) for number in range(1, 5)) == THREADS * 6
    store.close()


def test_a_tenant_erased_while_others_write_is_gone_and_the_others_are_whole(tmp_path: Path) -> None:
    store = open_store(Settings(home=tmp_path))
    for number in (1, 2):
        fill(store, tenant(number), "first")

    def act(number: int) -> int:
        if number == 0:
            return store.erase(tenant(2), [SPACE])
        store.upsert(tenant(1), INDEX, batch([meta(str(number))], [unit(1)]))
        return 0

    assert together(act) == [0] * THREADS
    assert store.count(tenant(1), INDEX) == THREADS
    assert store.count(tenant(2), INDEX) == 0
    store.close()
