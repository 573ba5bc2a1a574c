"""Searches without a pause, pushes and deletes all through a move: none fails or is answered by halves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ray_app.db.indexes import list_indexes
from ray_app.moving.reports import MoveProgress, Phase
from ray_app.searching import Query, find, find_indexes
from ray_app.settings import Settings
from ray_app.spaces import Preference
from ray_app.store.port import Condition
from ray_app.store.routing import RoutedStore
from ray_app.syncing.applying import Applier
from ray_app.syncing.operation import sync_indexes
from ray_app.syncing.rules import SyncRules
from ray_app.tenants import Placement, TenantScope
from ray_app.workspace import Workspace
from tests.support.moving_site import MovingSite, mixed_store, once
from tests.support.parts_site import TABLE
from tests.support.sync_site import CountedBackend, SyncSite

#: Searches of either kind, and writes, that each phase of a move waits for.
SEARCHES, WRITES = 27, 1
STEADY = range(1, 13)


@pytest.fixture
def workspace(make_settings: Callable[..., Settings]) -> Iterator[Workspace]:
    # Nothing listens there: the server is played by the site's store.
    made = Workspace(make_settings(qdrant_url="http://127.0.0.1:1", migration_sample=4))
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RoutedStore]:
    with mixed_store(tmp_path / "edge") as made:
        yield made


def filled(workspace: Workspace, store: RoutedStore, placement: Placement) -> MovingSite:
    """A dozen steady records and as many that are written all the time, for two tenants."""
    site = MovingSite.of(workspace, store, placement)
    for client in (1, 2):
        site.insert(*((key, f"steady number{key} of client{client}") for key in STEADY), client=client)
    site.sql("UPDATE pull_requests SET repository = 'steady'")
    site.insert(*((key, f"restless number{key}") for key in range(100, 112)))
    site.backfill()
    site.twin.backfill()
    return site


@pytest.fixture
def site(workspace: Workspace, store: RoutedStore) -> MovingSite:
    return filled(workspace, store, Placement.EMBEDDED)


class Traffic:
    """Searchers, one of which never asks for a new scope, and a writer, each in a thread of its own."""

    def __init__(self, site: MovingSite) -> None:
        self._site = site
        self._stop = threading.Event()
        self._counted = threading.Condition()
        self._threads = ThreadPoolExecutor(3)
        space = site.workspace.providers.spaces_for(Preference.FAST)
        self._vector = site.workspace.providers.provider_for(space).embed_query("steady number5")
        self.searches = {"fresh": 0, "former": 0}
        self.writes = 0
        self._phases: set[Phase] = set()
        self.placements: set[Placement] = set()
        #: Titles of the records that the writer has left, and those it has deleted.
        self.titles: dict[int, str] = {}
        self.gone: set[int] = set()
        former = site.scope()
        self._work = [
            self._threads.submit(self._search, "fresh", None),
            self._threads.submit(self._search, "former", former),
            self._threads.submit(self._write),
        ]

    def begins(self, progress: MoveProgress) -> None:
        """Wait at the beginning of each phase: at each try to switch, something would always be left."""
        if progress.phase not in self._phases:
            self._phases.add(progress.phase)
            self.wait()

    def wait(self) -> None:
        """Until a good many more searches, of either kind, and some writes were done."""
        with self._counted:
            wanted = {name: done + SEARCHES for name, done in self.searches.items()}
            writes = self.writes + WRITES
            self._counted.wait_for(
                lambda: (
                    any(work.done() for work in self._work)
                    or (self.writes >= writes and all(self.searches[n] >= wanted[n] for n in wanted))
                ),
                timeout=60,
            )
        for work in self._work:
            if work.done():
                work.result()

    def stop(self) -> None:
        self._stop.set()
        for work in self._work:
            work.result(60)
        self._threads.shutdown()

    def _search(self, name: str, former: TenantScope | None) -> None:
        site, whole = self._site, list[tuple[str, float]]()
        while not self._stop.is_set():
            located = find_indexes(site.workspace, site.tenant, former or site.scope(), [TABLE], "content")
            self.placements.add(located.scope.placement)
            vectors = {index.space.space_id: self._vector for index in located.indexes}
            steady = [Condition("repository", "eq", "steady")]
            query = Query(located.indexes, vectors, 100, steady)
            hits = find(site.store, former or located.scope, query).hits
            answer = sorted((hit.record_id, hit.score) for hit in hits)
            assert [record for record, _ in answer] == sorted(str(key) for key in STEADY)
            whole = whole or answer
            assert np.allclose([score for _, score in answer], [score for _, score in whole], atol=1e-6)
            with self._counted:
                self.searches[name] += 1
                self._counted.notify_all()
            self._stop.wait(0.01)  # lets the others have a turn

    def _write(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            key = 100 + number % 12
            if number % 5 == 0:
                self._site.delete(key)
                self.titles.pop(key, None)
                self.gone.add(key)
            else:
                self.titles[key] = f"rewritten number{number} restless"
                self._site.push(key, self.titles[key])
                self.gone.discard(key)
            with self._counted:
                self.writes += 1
                self._counted.notify_all()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (Placement.EMBEDDED, Placement.POOLED),
        (Placement.POOLED, Placement.DEDICATED),
        (Placement.DEDICATED, Placement.EMBEDDED),
    ],
)
def test_no_search_fails_or_is_answered_by_halves(
    workspace: Workspace, store: RoutedStore, source: Placement, target: Placement
) -> None:
    site = filled(workspace, store, source)
    twin = site.twin_points()
    traffic = Traffic(site)
    try:
        traffic.wait()
        site.moves.run("acme", target, on_progress=traffic.begins)
        traffic.wait()
    finally:
        traffic.stop()
    assert sum(traffic.searches.values()) >= 300
    assert traffic.placements == {source, target}
    assert site.placement is target
    assert site.reconciled().clean
    there = site.copies(site.scope())
    assert {key: there[TABLE, str(key), 0].snippet for key in traffic.titles} == traffic.titles
    assert not {record for _, record, _ in there} & {str(key) for key in traffic.gone}
    assert site.twin_points() == twin


def test_a_sync_under_way_goes_on_in_the_new_place(site: MovingSite, backend: CountedBackend) -> None:
    site.sql("UPDATE pull_requests SET title = 'a synced walrus', updated_at = now() WHERE id = 101")

    def move() -> None:
        site.moves.run("acme", Placement.POOLED)

    backend.fails = once(move)
    with ThreadPoolExecutor(2) as threads:
        applier = Applier(site.workspace, lambda: site.store, backend, threads)
        rules = SyncRules.load(None)
        indexes = list(list_indexes(site.workspace.ledger, site.tenant.incarnation).values())
        (done,) = asyncio.run(sync_indexes(applier, site.tenant, indexes, rules, full=True))
    assert done.result.error is None
    assert site.find("walrus", limit=1) == ["101"]
    assert site.reconciled().clean


def test_changes_of_the_outbox_are_drained_where_the_tenant_is(
    site: MovingSite, backend: CountedBackend
) -> None:
    outbox = SyncSite(site.workspace, site.store, site.tenant)
    outbox.install()
    site.sql("UPDATE pull_requests SET title = 'a drained ibis' WHERE id = 102")

    def move() -> None:
        site.moves.run("acme", Placement.POOLED)

    backend.fails = once(move)
    outbox.drain(backend)
    assert outbox.queued(), "what was refused stays queued"
    outbox.drain(backend)
    assert outbox.queued() == []
    assert site.find("ibis", limit=1) == ["102"]
    assert site.reconciled().clean
