"""Moves of a tenant in one process: what takes over, what follows, what goes back, and what is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import text

from jobs.driver import drive
from ray_app.coverage import coverage
from ray_app.db import fences
from ray_app.encoding import encode_part
from ray_app.errors import ConfigError, ConflictError, StoreUnavailable, TenantMoved, UnknownTenant
from ray_app.migrating.operations import Migrations
from ray_app.moving import mover, switching
from ray_app.moving.copying import IndexCopier
from ray_app.moving.operations import Moves
from ray_app.moving.reports import MoveProgress, Phase
from ray_app.moving.states import Stage
from ray_app.offboarding.removing import remove_tenant
from ray_app.onboarding import count_points
from ray_app.reconciling import operation
from ray_app.reconciling.drift import Kind
from ray_app.reconciling.operation import Repair
from ray_app.reconciling.survey import Survey
from ray_app.records.directory import IndexDirectory
from ray_app.records.pushing import Push
from ray_app.reports import JobState
from ray_app.searching import find_indexes
from ray_app.settings import Settings
from ray_app.store.port import PointCopy
from ray_app.store.routing import RoutedStore
from ray_app.tenants import Placement, Tenant
from ray_app.workspace import Workspace
from ray_app.writing import PartWriter
from tests.support.migration_jobs import Killed, inline_migrations
from tests.support.moving_site import MovingSite, mixed_store, once
from tests.support.parts_site import TABLE

EMBEDDED, POOLED, DEDICATED = Placement.EMBEDDED, Placement.POOLED, Placement.DEDICATED
ROUTES = [(EMBEDDED, POOLED), (POOLED, DEDICATED), (DEDICATED, EMBEDDED)]
RECORDS = 24
#: Of the record that has many.
CHUNKS = 19
POINTS = RECORDS - 1 + CHUNKS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RoutedStore]:
    with mixed_store(tmp_path / "edge") as made:
        yield made


@pytest.fixture
def workspace(make_settings: Callable[..., Settings]) -> Iterator[Workspace]:
    made = Workspace(
        make_settings(qdrant_url="http://127.0.0.1:1", other_model="stub@64", migration_sample=6)
    )
    yield made
    made.close()


def filled(workspace: Workspace, store: RoutedStore, placement: Placement) -> MovingSite:
    """Two dozen records, one of them of many chunks, and a row without text; twice, for two tenants."""
    site = MovingSite.of(workspace, store, placement)
    rows = [(key, f"record number{key} about topic{key % 5}") for key in range(1, RECORDS)]
    rows.append((RECORDS, " ".join(f"word{number}" for number in range(222 * CHUNKS))))
    for client in (1, 2):
        site.insert(*rows, (90, None), client=client)
    site.sql("UPDATE pull_requests SET repository = 'steady' WHERE id BETWEEN 10 AND 20")
    site.backfill()
    site.twin.backfill()
    return site


@pytest.fixture
def site(workspace: Workspace, store: RoutedStore) -> MovingSite:
    return filled(workspace, store, EMBEDDED)


def check_same(here: PointCopy, there: PointCopy) -> None:
    """Of a vector the last bit may differ: an engine scales what it is given to length 1, again."""
    for name in ("point_id", "version", "content_hash", "snippet", "provider", "embedded_at", "data"):
        assert getattr(here, name) == getattr(there, name), name
    assert np.allclose(here.vector, there.vector, rtol=0, atol=1e-7)
    assert here.words is not None
    assert there.words is not None
    assert here.words.indices == there.words.indices
    # The client's double keeps them in 64 bits.
    assert np.array_equal(np.float32(here.words.weights), np.float32(there.words.weights))


@pytest.mark.parametrize(("source", "target"), ROUTES)
def test_a_move_takes_over_whole(
    workspace: Workspace, store: RoutedStore, source: Placement, target: Placement
) -> None:
    site = filled(workspace, store, source)
    before = site.copies(site.scope())
    assert len(before) == POINTS
    plan = site.moves.plan("acme", target)
    assert (plan.source, plan.target, plan.indexes, plan.records, plan.points) == (
        source, target, 1, RECORDS, POINTS,
    )  # fmt: skip
    billed, seen = site.texts_billed(), list[MoveProgress]()

    moved = site.moves.run("acme", target, on_progress=seen.append)

    assert (moved.copied, moved.deleted) == (POINTS, 0)
    assert [phase for phase in Phase if any(step.phase is phase for step in seen)] == list(Phase)
    copying = [step for step in seen if step.phase is Phase.COPYING]
    assert (copying[-1].done, copying[-1].total) == (POINTS, POINTS)
    assert site.texts_billed() == billed, "no model is called"
    status = moved.status
    assert (status.placement, status.other, status.stage, status.behind) == (target, source, Stage.KEPT, 0)
    assert status.keep_until is not None
    assert timedelta(days=6.9) < status.keep_until - datetime.now(UTC) < timedelta(days=7.1)
    found = status.verification
    assert found is not None
    assert (found.points, found.differing, found.unknown, found.misplaced) == (POINTS, 0, 0, 0)
    assert (found.sampled, found.found, found.found_there, found.other_score) == (6, 6, 6, 0)

    assert site.placement is target
    after = site.copies(site.scope())
    assert after.keys() == before.keys()
    for key, copy in before.items():
        check_same(copy, after[key])
    assert site.reconciled().clean
    assert site.find("number17", limit=1) == ["17"]
    assert site.backfill().unchanged == RECORDS
    assert count_points(workspace, store, site.tenant) == (POINTS, POINTS)
    assert site.counted(source) == POINTS
    assert site.twin.find("number7", limit=1) == ["7"]
    assert count_points(workspace, store, site.twin.tenant) == (POINTS, POINTS)

    # The former place goes, and nothing of anybody else's.
    assert site.moves.finish("acme").other is None
    assert site.counted(source) == 0
    assert (site.counted(target), site.find("number17", limit=1)) == (POINTS, ["17"])
    assert count_points(workspace, store, site.twin.tenant) == (POINTS, POINTS)
    assert site.twin.find("number7", limit=1) == ["7"]


def test_what_is_written_while_it_is_copied_is_followed(site: MovingSite) -> None:
    def meanwhile(progress: MoveProgress) -> None:
        if progress.phase is Phase.COPYING:
            site.push(1, "a pushed zebra")
            site.delete(2)
            site.push(40, "a new okapi")
            site.push(RECORDS, "only one chunk left")
        if progress.phase is Phase.VERIFYING:
            site.push(41, "a late lynx")
            site.sql("UPDATE pull_requests SET title = 'a backfilled stoat' WHERE id = 3 AND client_id = 1")
            site.sql("DELETE FROM pull_requests WHERE id = 4 AND client_id = 1")
            site.sql("UPDATE pull_requests SET author = 'somebody' WHERE id = 5 AND client_id = 1")
            site.backfill()

    site.moves.run("acme", POOLED, on_progress=meanwhile)
    assert site.placement is POOLED
    for words, record in (("zebra", "1"), ("okapi", "40"), ("lynx", "41"), ("stoat", "3")):
        assert site.find(words, limit=1) == [record]
    left = set(site.find("record", limit=100))
    assert not left & {"2", "4"}
    assert site.find("number5", author="somebody") == ["5"]
    assert site.reconciled().clean
    assert site.counted(POOLED) == site.counted(EMBEDDED) == RECORDS - 2 + 2


def test_an_index_that_is_made_meanwhile_comes_along(site: MovingSite) -> None:
    def meanwhile(progress: MoveProgress) -> None:
        if progress.phase is Phase.SWITCHING and len(site.keys()) == 1:
            site.sql("INSERT INTO issues (client_id, id, summary) VALUES (1, 1, 'a newly made index')")
            site.pushes.push({"id": 1, "summary": "a newly made index"})

    site.moves.run("acme", DEDICATED, on_progress=meanwhile)
    assert site.placement is DEDICATED
    assert len(site.keys()) == 2
    assert site.pushes.find("newly made", limit=1) == ["1"]
    assert site.counted(DEDICATED) == POINTS + 1


def test_a_push_that_began_before_the_switch_lands_where_the_tenant_is_then(site: MovingSite) -> None:
    def meanwhile() -> None:
        site.pushes.meanwhile = lambda: None
        site.moves.run("acme", POOLED)

    site.pushes.meanwhile = meanwhile
    site.push(5, "a late heron")
    assert site.placement is POOLED
    assert site.find("heron", limit=1) == ["5"]
    assert site.reconciled().clean
    former = site.scope(EMBEDDED)
    assert site.store.copies_of(former, site.keys()[0], [("5", 0)])[0].snippet.startswith("record number5")


def test_who_holds_a_former_scope_writes_where_the_tenant_is(site: MovingSite) -> None:
    former = site.scope()
    directory = IndexDirectory(site.workspace, site.store)
    site.moves.run("acme", POOLED)
    kept = site.copies(former).keys()
    located = find_indexes(site.workspace, site.tenant, former, [TABLE], "content")
    assert located.scope == site.scope()

    push = Push(directory, site.tenant, former, "issues", max_record_tokens=1000)
    site.sql("INSERT INTO issues (client_id, id, summary) VALUES (1, 7, 'an index made with it')")
    upserts = push.begin([site.row("issues", 7)])
    assert push.settle(upserts, [site.pushes._embed(upsert) for upsert in upserts]) == []
    assert site.pushes.find("index made", limit=1) == ["7"]
    site.delete(6, former)
    assert "6" not in site.find("number6", limit=50)
    assert site.copies(former).keys() == kept
    assert site.reconciled().clean
    with pytest.raises(TenantMoved, match="another place"):
        directory.open(site.tenant, former, "projects")


def test_a_job_that_is_under_way_goes_on_in_the_new_place(
    site: MovingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (1, 2, 3):
        site.sql("UPDATE pull_requests SET title = :title WHERE id = :key", title=f"a gnu {key}", key=key)
    passes: list[Placement] = []

    def one_pass(workspace: Workspace, job: Any, tenant: Tenant, *_: Any) -> None:
        """In place of the one on a cluster: its writer keeps the scope that it began with."""
        scope, space = site.scope(), site.keys()[0].space
        passes.append(scope.placement)
        writer = PartWriter(scope, site.store, workspace.ledger, outage_budget=0)
        for part in list(site.parts(job)):
            if len(passes) == 1:
                site.moves.run("acme", POOLED)
            writer.write(encode_part(part, workspace.providers.provider_for(space)), space)

    stand_in = ModuleType("jobs.cluster_run")
    stand_in.run_on_cluster = one_pass  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jobs.cluster_run", stand_in)
    job = site.start()
    state = drive(site.workspace, job, site.tenant, revive=lambda: None)
    assert (state, passes) == (JobState.SUCCEEDED, [EMBEDDED, POOLED])
    assert sorted(site.find("gnu", limit=3)) == ["1", "2", "3"]
    assert site.reconciled().clean


def test_the_way_back_brings_what_changed_since_and_nothing_else(site: MovingSite) -> None:
    site.moves.run("acme", POOLED)
    site.push(7, "a newer ibis")
    site.push(50, "an added emu")
    site.delete(8)
    assert "8" in {record for _, record, _ in site.copies(site.scope(EMBEDDED))}

    back = site.moves.rollback("acme")
    assert (back.copied, back.deleted) == (2, 1)
    assert (back.status.placement, back.status.other, back.status.stage) == (EMBEDDED, POOLED, Stage.KEPT)
    assert site.find("ibis", limit=1) == ["7"]
    assert site.find("emu", limit=1) == ["50"]
    assert "8" not in site.find("number8", limit=50)
    assert site.reconciled().clean
    # Forward again, by name, is cheap too.
    again = site.moves.run("acme", POOLED)
    assert (again.copied, again.deleted) == (0, 0)
    assert site.placement is POOLED


STEPS: list[tuple[object, str]] = [
    (RoutedStore, "ensure_index"),
    (RoutedStore, "write_copies"),
    (IndexCopier, "follow"),
    (mover, "verify"),
    (RoutedStore, "search"),
    (switching, "_change_places"),
]


def test_who_dies_at_any_step_has_changed_nothing_and_goes_on(
    site: MovingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (owner, name) in enumerate(STEPS):
        do = getattr(owner, name)

        def die(*arguments: Any, do: Callable[..., Any] = do, name: str = name, **options: Any) -> None:
            if name == "write_copies":
                do(*arguments, **options)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            with pytest.raises(Killed):
                site.moves.run("acme", POOLED)
        assert site.moves.status("acme").stage is Stage.FILLING
        assert site.placement is EMBEDDED
        assert site.find("number9", limit=1) == ["9"]
        site.push(100 + number, f"pushed after it died at {name}")
        site.delete(10 + number)
    site.moves.run("acme", POOLED)
    assert site.placement is POOLED
    for number, (_, name) in enumerate(STEPS):
        assert site.find(f"died at {name}", limit=1) == [str(100 + number)]
    assert site.reconciled().clean
    assert site.counted(POOLED) == POINTS


def test_an_outage_of_the_store_leaves_it_where_it_was(
    site: MovingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("Gone.")

    site.workspace.settings = site.workspace.settings.model_copy(update={"outage_budget": 0.0})
    with monkeypatch.context() as patch:
        patch.setattr(RoutedStore, "write_copies", fail)
        with pytest.raises(StoreUnavailable):
            site.moves.run("acme", POOLED)
    assert site.find("number9", limit=1) == ["9"]
    assert site.moves.run("acme", POOLED).copied == POINTS


def test_giving_up_leaves_nothing_of_the_copy(site: MovingSite) -> None:
    def stop(progress: MoveProgress) -> None:
        if progress.phase is Phase.VERIFYING:
            raise Killed

    with pytest.raises(Killed):
        site.moves.run("acme", DEDICATED, on_progress=stop)
    site.push(1, "noted for nobody")
    assert (site.counted(DEDICATED), site.moves.status("acme").behind) == (POINTS, 1)
    with pytest.raises(ConflictError, match="No former place"):
        site.moves.rollback("acme")
    assert site.moves.abort("acme").other is None
    assert site.counted(DEDICATED) == 0
    assert site.find("noted", limit=1) == ["1"]
    with site.workspace.ledger.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM rowbeam.index_changes")) == 0
    with pytest.raises(ConflictError, match="has not been moved"):
        site.moves.abort("acme")


def test_a_way_back_that_is_given_up_keeps_both(site: MovingSite) -> None:
    site.moves.run("acme", POOLED)

    def stop(_: MoveProgress) -> None:
        raise Killed

    with pytest.raises(Killed):
        site.moves.rollback("acme", on_progress=stop)
    assert site.moves.status("acme").stage is Stage.RETURNING
    status = site.moves.abort("acme")
    assert (status.stage, status.placement, status.other) == (Stage.KEPT, POOLED, EMBEDDED)
    assert site.counted(EMBEDDED) == site.counted(POOLED) == POINTS


def test_two_processes_that_move_one_tenant_help_each_other(site: MovingSite) -> None:
    def second() -> None:
        assert site.moves.run("acme", POOLED).copied == 0

    with pytest.raises(ConflictError, match="has ended"):
        site.moves.run("acme", POOLED, on_progress=once(second))
    assert site.placement is POOLED
    assert site.reconciled().clean


def test_what_stands_in_the_way_is_named(site: MovingSite, make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConflictError, match="embedded already"):
        site.moves.run("acme", EMBEDDED)
    with pytest.raises(UnknownTenant):
        site.moves.run("nobody", POOLED)
    alone = Workspace(make_settings())
    with pytest.raises(ConfigError, match="needs a Qdrant server"):
        Moves(alone, site.moves._open_store).run("acme", POOLED)
    alone.close()
    site.moves.run("acme", POOLED)
    with pytest.raises(ConflictError, match="former place is kept"):
        site.moves.run("acme", DEDICATED)
    with pytest.raises(ConflictError, match="former place is kept"):
        site.moves.plan("acme", DEDICATED)


def test_a_move_and_a_change_of_model_exclude_each_other(site: MovingSite) -> None:
    migrations: Migrations = inline_migrations(site.workspace, site.store, site.jobs)

    def change() -> None:
        with pytest.raises(ConflictError, match="on its way"):
            migrations.run("acme", TABLE, to="stub@64")

    site.moves.run("acme", POOLED, on_progress=once(change))
    with pytest.raises(ConflictError, match="former place is kept"):
        migrations.run("acme", TABLE, to="stub@64")
    site.moves.finish("acme")
    assert migrations.run("acme", TABLE, to="stub@64").switched
    with pytest.raises(ConflictError, match="change of model"):
        site.moves.run("acme", DEDICATED)
    migrations.finish("acme", TABLE)
    site.moves.run("acme", DEDICATED)
    assert site.find("number9", limit=1) == ["9"]
    (row,) = [row for row in coverage(site.workspace, site.tenant) if row.table == TABLE]
    new = site.workspace.providers.named("stub@64").space_id
    assert (row.space_id, row.embedded, row.stale) == (new, RECORDS, 0)


def test_drift_stops_it_and_a_repair_is_followed(site: MovingSite) -> None:
    (key,) = site.keys()
    site.store.delete(site.scope(), key, [("3", 0)])
    with pytest.raises(ConflictError, match="of 1 records the ledger says something else"):
        site.moves.run("acme", POOLED)
    assert site.placement is EMBEDDED
    assert site.reconciled().count(Kind.MISSING) == 1
    # A point that no row is behind, and that was copied.
    site.push(60, "an orphan")
    site.sql("DELETE FROM pull_requests WHERE id = 60")
    with pytest.raises(ConflictError, match="of 1 records"):
        site.moves.run("acme", POOLED)
    assert site.reconciled(Repair(share=None)).in_step
    site.moves.run("acme", POOLED)
    assert site.reconciled().clean
    assert site.counted(POOLED) == POINTS
    assert site.find("number3", limit=1) == ["3"]


def test_a_tenant_that_is_moved_while_it_is_compared_is_compared_again(
    site: MovingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, surveys = operation.survey_tenant, list[Survey]()

    def look_and_move(*arguments: Any) -> Survey:
        surveys.append(look(*arguments))
        if len(surveys) == 1:
            site.moves.run("acme", POOLED)
            site.push(1, "only in the new place")
        return surveys[-1]

    monkeypatch.setattr(operation, "survey_tenant", look_and_move)
    assert site.reconciled().clean
    assert [survey.scope.placement for survey in surveys] == [EMBEDDED, POOLED]
    # What a look at the former place has found is not mended in the new one.
    surveys[0].indexes[0].misplaced.append(uuid4())
    with pytest.raises(TenantMoved):
        operation._mend_in_place(site.workspace, site.moves._open_store, site.tenant, surveys[0])


def test_a_copy_that_is_lost_is_made_again_and_one_that_cannot_be_stops_it(
    site: MovingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = site.keys()

    def lose(progress: MoveProgress) -> None:
        if progress.phase is Phase.COPYING:
            site.store.delete(site.scope(POOLED), key, [("5", 0), (str(RECORDS), 11)])

    write = RoutedStore.write_copies

    def forget_six(self: RoutedStore, scope: object, index: object, copies: list[PointCopy]) -> None:
        write(self, scope, index, [copy for copy in copies if copy.record_id != "6"])  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(RoutedStore, "write_copies", forget_six)
        with pytest.raises(ConflictError, match="1 records differ after they were copied again"):
            site.moves.run("acme", POOLED)
    assert site.moves.run("acme", POOLED, on_progress=lose).copied == 3
    assert site.counted(POOLED) == POINTS


def test_what_was_kept_is_dropped_when_its_time_is_over(site: MovingSite) -> None:
    site.moves.run("acme", POOLED)
    assert site.moves.sweep() == 0
    site.sql("UPDATE rowbeam.tenant_moves SET keep_until = now() - interval '1 second'")
    assert site.moves.sweep() == 1
    assert site.counted(EMBEDDED) == 0
    assert site.moves.status("acme").other is None
    assert site.find("number9", limit=1) == ["9"]


def test_a_drop_that_was_cut_off_goes_on(site: MovingSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise Killed

    site.moves.run("acme", POOLED)
    with monkeypatch.context() as patch:
        patch.setattr(RoutedStore, "erase", die)
        with pytest.raises(Killed):
            site.moves.finish("acme")
    assert site.moves.status("acme").stage is Stage.DROPPING
    with pytest.raises(ConflictError, match="being dropped"):
        site.moves.run("acme", EMBEDDED)
    assert site.moves.sweep() == 1
    assert site.counted(EMBEDDED) == 0


@pytest.mark.parametrize("killed", [False, True], ids=["kept", "half way"])
def test_a_removed_tenant_leaves_nothing_in_either_place(site: MovingSite, killed: bool) -> None:
    def stop(progress: MoveProgress) -> None:
        if killed and progress.phase is Phase.VERIFYING:
            raise Killed

    try:
        site.moves.run("acme", POOLED, on_progress=stop)
    except Killed:
        assert killed
    scopes, keys = [site.scope(EMBEDDED), site.scope(POOLED)], site.keys()
    assert [site.store.count(scope, key) for scope in scopes for key in keys] == [POINTS, POINTS]
    with site.workspace.ledger.connect() as connection:
        where = fences.places(connection, site.tenant.incarnation)
    assert where == ((EMBEDDED, POOLED) if killed else (POOLED, EMBEDDED))
    assert remove_tenant(site.workspace, site.store, "acme").proven
    assert [site.store.count(scope, key) for scope in scopes for key in keys] == [0, 0]
    assert count_points(site.workspace, site.store, site.twin.tenant) == (POINTS, POINTS)
    with site.workspace.ledger.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM rowbeam.tenant_moves")) == 0


def test_a_removal_stops_a_move(site: MovingSite) -> None:
    def remove(progress: MoveProgress) -> None:
        if progress.phase is Phase.COPYING:
            assert remove_tenant(site.workspace, site.store, "acme").proven

    scopes, keys = [site.scope(EMBEDDED), site.scope(POOLED)], site.keys()
    with pytest.raises((UnknownTenant, ConflictError)):
        site.moves.run("acme", POOLED, on_progress=remove)
    assert [site.store.count(scope, key) for scope in scopes for key in keys] == [0, 0]


def test_a_tenant_without_indexes_moves_at_once(workspace: Workspace, store: RoutedStore) -> None:
    site = MovingSite.of(workspace, store, EMBEDDED)
    assert site.moves.run("acme", POOLED).copied == 0
    site.insert((1, "the first row"))
    site.backfill()
    assert site.counted(POOLED) == 1
