"""Changes of model in one process: what takes over, what follows, what goes back, and what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ray_app.coverage import coverage
from ray_app.db import ledger
from ray_app.db.indexes import list_indexes
from ray_app.encoders.stub import POISON
from ray_app.errors import ConfigError, ConflictError, IndexMoved, InputError
from ray_app.migrating import operations, switching, verifying
from ray_app.migrating.following import Follower
from ray_app.migrating.operations import Migrations
from ray_app.migrating.reports import Verification
from ray_app.migrating.states import Stage
from ray_app.offboarding.removing import remove_tenant
from ray_app.onboarding import count_points
from ray_app.parts import Part
from ray_app.records.single import delete_record
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace, VectorType
from ray_app.store.edge import EdgeStore
from ray_app.store.port import IndexKey
from ray_app.tenants import Placement
from ray_app.workspace import Workspace
from tests.support.migration_jobs import InlineJobs, Killed, inline_migrations
from tests.support.parts_site import TABLE, Site
from tests.support.pushes import PushSite

KIND = VectorType.CONTENT
NEW = "stub@64"


class Arena(Site):
    """A site with changes of model."""

    jobs: InlineJobs
    migrations: Migrations

    @property
    def space(self) -> EmbeddingSpace:
        """The one that is searched."""
        return list_indexes(self.workspace.ledger, self.tenant.incarnation)[TABLE, KIND].space

    def standing(self, space: EmbeddingSpace) -> tuple[int, int]:
        """Points of a space by the ledger and by the store."""
        scope = self.workspace.registry.scope(self.tenant)
        with self.workspace.ledger.connect() as connection:
            points = ledger.point_count(connection, self.tenant.incarnation, TABLE, KIND, space.space_id)
        return points, self.store.count(scope, IndexKey(TABLE, KIND, space))

    def retitle(self, key: int, title: str) -> None:
        self.sql("UPDATE pull_requests SET title = :title WHERE id = :key", title=title, key=key)


@pytest.fixture
def site(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Arena]:
    """Thirty records and a row without text, in the space of the local model."""
    workspace = Workspace(make_settings(other_model=NEW))
    tenant, _ = workspace.registry.create("acme", 1, Placement.EMBEDDED)
    store = EdgeStore(tmp_path / "edge")
    arena = Arena(workspace, store, tenant)
    arena.jobs = InlineJobs(store)
    arena.migrations = inline_migrations(workspace, store, arena.jobs)
    arena.insert(*((key, f"record number{key} about topic{key % 7}") for key in range(1, 31)), (31, None))
    arena.backfill()
    yield arena
    store.close()
    workspace.close()


def other_space(site: Arena) -> EmbeddingSpace:
    return site.workspace.providers.named(NEW)


def test_a_change_takes_over_whole(site: Arena) -> None:
    old, new = site.space, other_space(site)
    plan = site.migrations.plan("acme", TABLE, to=NEW)
    assert [(table.to_embed, table.space_id) for table in plan.tables] == [(30, new.space_id)]
    assert site.migrations.status("acme") == []

    done = site.migrations.run("acme", TABLE, to=NEW)
    assert done.switched
    assert (done.job.kind, done.job.counts.embedded, done.job.counts.no_text) == ("migrate", 30, 1)
    (status,) = done.indexes
    assert (status.stage, status.space_id, status.other_space_id) == (
        Stage.KEPT, new.space_id, old.space_id,
    )  # fmt: skip
    found = status.verification
    assert found is not None
    assert (found.rows, found.no_text, found.records, found.ledger_points, found.stored_points) == (
        31, 1, 30, 30, 30,
    )  # fmt: skip
    assert (found.sampled, found.retrieved) == (30, 30)
    assert found.overlap is not None
    assert 0 < found.overlap <= 1
    assert status.keep_until is not None
    kept = status.keep_until - datetime.now(UTC)
    assert timedelta(days=6.9) < kept < timedelta(days=7.1)

    assert site.space == new
    assert site.find("number17", limit=1) == ["17"]
    assert site.standing(old) == site.standing(new) == (30, 30)
    assert count_points(site.workspace, site.store, site.tenant) == (30, 30)
    (row,) = [row for row in coverage(site.workspace, site.tenant) if row.table == TABLE]
    assert (row.space_id, row.embedded, row.stale, row.migration) == (new.space_id, 30, 0, "stub kept")
    assert site.backfill().unchanged == 30


def test_indexes_of_a_table_change_together_or_one_by_one(site: Arena) -> None:
    pushes = PushSite.of(site.workspace, site.store, site.tenant)
    kinds = ["content", "metadata"]
    rows = [{"id": n, "summary": f"row number{n}", "status": f"status{n}"} for n in range(1, 6)]
    for row in rows:
        site.sql(
            "INSERT INTO issues (client_id, id, summary, status) VALUES (1, :id, :summary, :status)", **row
        )
    pushes.push(*rows, kinds=kinds)
    new = other_space(site)

    def spaces() -> dict[str, str]:
        pinned = list_indexes(site.workspace.ledger, site.tenant.incarnation)
        return {kind: index.space.space_id for (table, kind), index in pinned.items() if table == "issues"}

    assert site.migrations.run("acme", "issues", to=NEW, vector_types=["metadata"]).switched
    assert spaces() == {"content": site.space.space_id, "metadata": new.space_id}
    assert site.migrations.rollback("acme", "issues", vector_types=["metadata"]).switched
    assert set(spaces().values()) == {site.space.space_id}
    # One begins anew and one goes back to what was kept.
    done = site.migrations.run("acme", "issues", to=NEW)
    assert done.switched
    assert [status.vector_type for status in done.indexes] == kinds
    assert spaces() == dict.fromkeys(kinds, new.space_id)
    assert (done.job.counts.embedded, done.job.counts.unchanged) == (5, 5)
    assert pushes.find("number4", limit=1) == ["4"]
    assert site.migrations.finish("acme", "issues") == []


def test_spaces_are_named_by_id_model_and_setting(site: Arena) -> None:
    providers = site.workspace.providers
    assert providers.named(providers.named(NEW).space_id) == providers.named(NEW)
    assert providers.named("local") == providers.named("stub") == site.space
    with pytest.raises(ConfigError, match="No space") as caught:
        site.migrations.run("acme", TABLE, to="nonesuch")
    assert site.space.space_id in str(caught.value.hint)
    with pytest.raises(ConflictError, match="already"):
        site.migrations.run("acme", TABLE, to="local")
    with pytest.raises(InputError, match="no index of table issues"):
        site.migrations.run("acme", "issues", to=NEW)


def test_the_new_one_follows_what_is_pushed_and_taken_out_while_it_is_built(site: Arena) -> None:
    pushes = PushSite.of(site.workspace, site.store, site.tenant)

    def meanwhile() -> None:
        site.jobs.between = lambda: None
        site.retitle(1, "a pushed zebra")
        pushes.push({"id": 1, "title": "a pushed zebra"}, table=TABLE)
        site.sql("DELETE FROM pull_requests WHERE id = 2")
        # The row of the second stays, so it comes back, as with the next backfill.
        for record in ("2", "3"):
            scope = site.workspace.registry.scope(site.tenant)
            delete_record(pushes.directory, site.tenant, scope, TABLE, record)

    def afterwards() -> None:
        site.jobs.after = lambda: None
        site.retitle(4, "a silent walrus")  # nobody tells Rowbeam
        site.insert((40, "a new okapi"))
        pushes.push({"id": 40, "title": "a new okapi"}, table=TABLE)

    site.jobs.between, site.jobs.after = meanwhile, afterwards
    assert site.migrations.run("acme", TABLE, to=NEW).switched
    assert site.find("zebra", limit=1) == ["1"]
    assert site.find("walrus", limit=1) == ["4"]
    assert site.find("okapi", limit=1) == ["40"]
    assert "2" not in site.find("number2", limit=30)
    assert site.find("number3", limit=1) == ["3"]


def test_what_is_written_after_the_verification_is_followed_too(
    site: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushes, verify = PushSite.of(site.workspace, site.store, site.tenant), operations.verify

    def verify_and_write(*arguments: Any) -> Verification:
        found = verify(*arguments)
        site.retitle(11, "a last lynx")
        pushes.push({"id": 11, "title": "a last lynx"}, table=TABLE)
        site.sql("DELETE FROM pull_requests WHERE id = 12")
        scope = site.workspace.registry.scope(site.tenant)
        delete_record(pushes.directory, site.tenant, scope, TABLE, "12")
        site.retitle(13, "a last stoat")
        assert site.backfill().embedded == 1
        return found

    monkeypatch.setattr(operations, "verify", verify_and_write)
    assert site.migrations.run("acme", TABLE, to=NEW).switched
    assert site.find("lynx", limit=1) == ["11"]
    assert site.find("stoat", limit=1) == ["13"]
    assert "12" not in site.find("number12", limit=30)
    assert count_points(site.workspace, site.store, site.tenant) == (29, 29)


def test_a_push_that_began_before_the_switch_lands_where_the_index_is_then(site: Arena) -> None:
    pushes = PushSite.of(site.workspace, site.store, site.tenant)

    def meanwhile() -> None:
        pushes.meanwhile = lambda: None
        assert site.migrations.run("acme", TABLE, to=NEW).switched
        site.retitle(5, "a late heron")

    pushes.meanwhile = meanwhile
    assert pushes.push({"id": 5, "title": "a late heron"}, table=TABLE)["content"]["5"].outcome == "embedded"
    assert site.find("heron", limit=1) == ["5"]
    assert count_points(site.workspace, site.store, site.tenant) == (30, 30)


def test_a_part_for_the_former_space_is_refused(site: Arena) -> None:
    site.retitle(6, "a stale gnu")
    job = site.start()
    parts: list[Part] = list(site.parts(job))
    assert site.migrations.run("acme", TABLE, to=NEW).switched
    with pytest.raises(IndexMoved):
        site.write(parts[0])


def test_the_way_back_brings_in_what_changed_since(site: Arena) -> None:
    old, new = site.space, other_space(site)
    site.migrations.run("acme", TABLE, to=NEW)
    pushes = PushSite.of(site.workspace, site.store, site.tenant)
    site.retitle(7, "a newer ibis")
    pushes.push({"id": 7, "title": "a newer ibis"}, table=TABLE)
    site.sql("DELETE FROM pull_requests WHERE id = 8")
    scope = site.workspace.registry.scope(site.tenant)
    delete_record(pushes.directory, site.tenant, scope, TABLE, "8")
    assert site.standing(old) == (29, 29), "what is taken out is taken out of both at once"

    back = site.migrations.rollback("acme", TABLE)
    assert back.switched
    assert (back.job.counts.embedded, back.job.counts.unchanged) == (1, 28)
    assert site.space == old
    assert site.find("ibis", limit=1) == ["7"]
    assert "8" not in site.find("number8", limit=30)
    assert site.standing(old) == site.standing(new) == (29, 29)
    # Forward again is cheap too: what was kept is brought up to date.
    again = site.migrations.run("acme", TABLE, to=NEW)
    assert again.switched
    assert again.job.counts.unchanged == 29


def test_giving_up_leaves_nothing_of_the_new_one(site: Arena) -> None:
    old, new = site.space, other_space(site)

    def stop() -> None:
        raise Killed

    site.jobs.after = stop
    with pytest.raises(Killed):
        site.migrations.run("acme", TABLE, to=NEW)
    assert site.standing(new) == (30, 30)
    assert site.migrations.status("acme")[0].stage is Stage.BUILDING
    with pytest.raises(ConflictError, match="no former generation"):
        site.migrations.rollback("acme", TABLE)
    assert site.migrations.abort("acme", TABLE) == []
    assert site.standing(new) == (0, 0)
    assert site.space == old
    assert site.find("number9", limit=1) == ["9"]
    with site.workspace.ledger.connect() as connection:
        left = connection.scalar(text("SELECT count(*) FROM rowbeam.index_changes"))
    assert left == 0
    with pytest.raises(ConflictError, match="No change of model"):
        site.migrations.abort("acme", TABLE)


def test_a_way_back_that_is_given_up_keeps_both(site: Arena) -> None:
    old, new = site.space, other_space(site)
    site.migrations.run("acme", TABLE, to=NEW)

    def stop() -> None:
        raise Killed

    site.jobs.after = stop
    with pytest.raises(Killed):
        site.migrations.rollback("acme", TABLE)
    assert site.migrations.status("acme")[0].stage is Stage.RETURNING
    (status,) = site.migrations.abort("acme", TABLE)
    assert (status.stage, status.space_id) == (Stage.KEPT, new.space_id)
    assert site.standing(old) == (30, 30)


def test_a_build_whose_driver_dies_goes_on(site: Arena) -> None:
    old = site.space

    def die() -> None:
        raise Killed

    site.jobs.between = die
    with pytest.raises(Killed):
        site.migrations.run("acme", TABLE, to=NEW)
    assert site.space == old
    assert site.find("number9", limit=1) == ["9"]
    with pytest.raises(ConflictError, match="still being built"):
        site.migrations.finish("acme", TABLE)
    site.jobs.between = lambda: None
    # Its owner is this very process, which lives; a dead one's job is told to be interrupted.
    site.sql("UPDATE rowbeam.jobs SET state = 'interrupted' WHERE kind = 'migrate'")
    site.sql("DELETE FROM rowbeam.job_locks")
    billed = site.texts_billed()
    done = site.migrations.run("acme", TABLE, to=NEW)
    assert done.switched
    assert site.jobs.seen == [done.job.job_id] * 2
    assert site.texts_billed() - billed <= 30
    assert site.find("number9", limit=1) == ["9"]


@pytest.mark.parametrize("step", ["compare", "follow", "_swap"])
def test_who_dies_later_has_changed_nothing_and_goes_on(
    site: Arena, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it verifies, and while it holds writes up for the switch."""
    old, new = site.space, other_space(site)

    def die(*_: object) -> None:
        raise Killed

    owner = {"compare": verifying, "follow": Follower, "_swap": switching}[step]
    if step == "follow":
        site.jobs.after = lambda: (
            PushSite.of(site.workspace, site.store, site.tenant).push(
                {"id": 1, "title": "a pushed zebra"}, table=TABLE
            )
            and None
        )
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, die)
        with pytest.raises(Killed):
            site.migrations.run("acme", TABLE, to=NEW)
    assert site.space == old
    assert site.find("number9", limit=1) == ["9"]
    site.jobs.after = lambda: None
    done = site.migrations.run("acme", TABLE, to=NEW)
    assert done.switched
    assert done.job.counts.embedded == 0, "what was built is not built again"
    assert site.space == new


def test_dead_letters_hold_the_switch_up(site: Arena) -> None:
    old = site.space
    site.retitle(10, f"bad {POISON}")
    with pytest.raises(ConflictError, match="1 records could not be embedded, and 0 are allowed") as caught:
        site.migrations.run("acme", TABLE, to=NEW)
    assert "--allow-dead" in str(caught.value.hint)
    assert site.space == old
    found = site.migrations.status("acme")[0].verification
    assert found is not None
    assert (found.dead, found.records) == (1, 29)
    site.retitle(10, "good again")
    assert site.migrations.run("acme", TABLE, to=NEW).switched
    assert site.find("again", limit=1) == ["10"]


def test_dead_letters_may_be_allowed(site: Arena) -> None:
    site.retitle(10, f"bad {POISON}")
    assert site.migrations.run("acme", TABLE, to=NEW, allow_dead=1).switched


def test_points_that_are_missing_hold_the_switch_up(site: Arena) -> None:
    new, scope = other_space(site), site.workspace.registry.scope(site.tenant)
    site.jobs.after = lambda: site.store.delete(scope, IndexKey(TABLE, KIND, new), [("3", 0)])
    with pytest.raises(ConflictError, match="the ledger has 30 points and the store 29"):
        site.migrations.run("acme", TABLE, to=NEW)


def test_vectors_that_find_nothing_hold_the_switch_up(site: Arena) -> None:
    new = other_space(site)

    def spoil() -> None:
        provider = site.workspace.providers.provider_for(new)
        embed = provider.embed_query
        provider.embed_query = lambda text: embed("nothing of " + text[::-1])  # type: ignore[method-assign]

    site.jobs.after = spoil
    with pytest.raises(ConflictError, match="are found by their own text"):
        site.migrations.run("acme", TABLE, to=NEW)


def test_two_changes_of_one_index_do_not_mix(site: Arena) -> None:
    def second() -> None:
        site.jobs.between = lambda: None
        with pytest.raises(ConflictError, match="Another process changes the model"):
            site.migrations.run("acme", TABLE, to=NEW)
        # The pinned generation has a lock of its own: it is kept in step meanwhile.
        assert site.backfill().unchanged == 30

    site.jobs.between = second
    assert site.migrations.run("acme", TABLE, to=NEW).switched


def test_what_was_kept_is_dropped_when_asked_or_over(site: Arena) -> None:
    old, new = site.space, other_space(site)
    site.migrations.run("acme", TABLE, to=NEW)
    assert site.migrations.sweep() == 0
    site.sql("UPDATE rowbeam.index_migrations SET keep_until = now() - interval '1 second'")
    assert site.migrations.sweep() == 1
    assert site.standing(old) == (0, 0)
    assert site.migrations.status("acme") == []
    assert site.find("number9", limit=1) == ["9"]
    site.migrations.run("acme", TABLE, to="local")
    assert site.migrations.finish("acme", TABLE) == []
    assert site.standing(new) == (0, 0)


def test_a_removed_tenant_leaves_nothing_of_either(site: Arena) -> None:
    site.migrations.run("acme", TABLE, to=NEW)
    report = remove_tenant(site.workspace, site.store, "acme")
    assert report.proven
