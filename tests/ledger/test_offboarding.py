"""Removals of tenants: rounds until one finds nothing, a second look a day later, and the signed record."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from unittest.mock import ANY
from uuid import UUID, uuid4

import numpy as np
import pytest
from qdrant_client import QdrantClient
from sqlalchemy import select, text

from ray_app.cli.app import run
from ray_app.db import erasures, usage
from ray_app.db.indexes import list_indexes
from ray_app.db.locks import alone
from ray_app.db.schema import qdrant_vectors
from ray_app.errors import ConflictError, StoreUnavailable, UnknownErasure, UnknownTenant
from ray_app.offboarding.purging import MAX_ROUNDS, purge
from ray_app.offboarding.records import canonical, verify
from ray_app.offboarding.removing import Erasures, remove_tenant
from ray_app.offboarding.reports import Erasure, ErasureReport, Stage
from ray_app.reporting import Reporter
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace, VectorType
from ray_app.store.edge import EdgeStore
from ray_app.store.port import IndexKey, PointBatch, VectorStore
from ray_app.tenants import Placement, Tenant, TenantScope, TenantState
from ray_app.workspace import Workspace
from tests.contract.store.conftest import edge_world, server_world
from tests.support.parts_site import TABLE, Site
from tests.support.vector_store_world import World, meta


@dataclass
class Leaving:
    """A tenant ``acme`` (client 1) with three rows embedded, in one of the placements."""

    world: World
    site: Site
    scope: TenantScope
    space: EmbeddingSpace

    @classmethod
    def made(cls, workspace: Workspace, world: World) -> Leaving:
        site = cls._tenant(workspace, world, "acme", 1)
        pinned = list_indexes(workspace.ledger, site.tenant.incarnation)
        space = pinned[TABLE, VectorType.CONTENT].space
        return cls(world, site, workspace.registry.scope(site.tenant), space)

    @staticmethod
    def _tenant(workspace: Workspace, world: World, name: str, client: int) -> Site:
        tenant, _ = workspace.registry.create(name, client, world.placement)
        site = Site(workspace, cast(EdgeStore, world.store), tenant)
        with workspace.source.connect() as connection:
            there = connection.scalar(text(f"SELECT count(*) FROM {TABLE} WHERE client_id = {client}"))
        if not there:
            site.insert(*((client * 100 + n, f"row {n} of {client}") for n in range(3)), client=client)
        site.backfill()
        return site

    def another(self, name: str, client: int) -> Site:
        return self._tenant(self.workspace, self.world, name, client)

    @property
    def workspace(self) -> Workspace:
        return self.site.workspace

    @property
    def incarnation(self) -> UUID:
        return self.site.tenant.incarnation

    @property
    def erasures(self) -> Erasures:
        return Erasures(self.workspace, lambda: nullcontext(self.world.store))

    def remove(self, store: VectorStore | None = None) -> ErasureReport:
        return remove_tenant(self.workspace, store or self.world.store, "acme")

    def now(self) -> Erasure:
        return self.erasures.get(self.incarnation)

    def a_day_later(self) -> Erasure:
        """What is due then is done; the tenant's removal as it stands."""
        self.site.sql("UPDATE rowbeam.erasures SET due_at = now() WHERE final_at IS NULL")
        self.erasures.finish_due()
        return self.now()

    def record(self) -> dict[str, Any]:
        """What the signed record says, checked."""
        signed = self.now().record
        assert signed is not None
        return verify(canonical(signed), self.erasures.public_key())

    def plant(self, record: str = "late") -> None:
        """A point of the tenant, as a writer would leave it that no fence stopped."""
        index = IndexKey(TABLE, "content", self.space)
        vector = np.ones((1, self.space.dimensions), np.float32)
        self.world.store.ensure_index(self.scope, index, ())
        self.world.store.upsert(self.scope, index, PointBatch([meta(record)], vector, 1))

    def damage(self, tenant: Tenant, scope: TenantScope) -> UUID:
        """Empty the payload of one of a tenant's points, as a replica has done."""
        with self.workspace.ledger.connect() as connection:
            point: UUID = connection.scalars(
                select(qdrant_vectors.c.point_id).where(qdrant_vectors.c.incarnation == tenant.incarnation)
            ).first()
        vector = np.ones(self.space.dimensions, np.float32)
        self.world.forge(scope, self.space, str(point), vector, {"text": ""})
        return point

    def nameless(self) -> set[UUID]:
        return set(self.world.store.census(self.scope, self.space, 9).nameless)


@pytest.fixture(params=["embedded", "pooled", "dedicated"])
def leaving(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings], tmp_path: Path
) -> Iterator[Leaving]:
    workspace = Workspace(make_settings())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Payload indexes have no effect in the local Qdrant")
        world = (
            edge_world(tmp_path / "edge")
            if request.param == "embedded"
            else server_world(QdrantClient(":memory:"), Placement(request.param))
        )
        yield Leaving.made(workspace, world)
    world.store.close()
    workspace.close()


pooled = pytest.mark.parametrize("leaving", ["pooled"], indirect=True)
embedded = pytest.mark.parametrize("leaving", ["embedded"], indirect=True)


def test_a_removal_is_proven_by_a_round_that_finds_nothing(leaving: Leaving) -> None:
    report = leaving.remove()
    assert (report.proven, report.points_erased, report.points_left) == (True, 3, 0)
    record = leaving.record()
    assert record == (report.record or {})["record"]
    first, second = record["rounds"]
    placement = str(leaving.world.placement)
    assert first["points"][placement][leaving.space.space_id] == 3
    assert first["rows"]["qdrant_vectors"] == 3
    assert sum(second["points"][placement].values()) == sum(second["rows"].values()) == 0
    assert record["erased"]["ledger_rows"]["qdrant_vectors"] == 3
    assert record["stage"] == "first_round"
    assert record["final_at"] is None
    assert record["physical"] == {
        placement: "scheduled" if placement == "pooled" else "removed",
        "ledger": "scheduled",
    }
    assert (record["incarnation"], record["retention_hours"]) == (str(leaving.incarnation), 24)
    assert leaving.world.store.census(leaving.scope, leaving.space, 9).points == 0
    with pytest.raises(UnknownTenant):
        leaving.workspace.registry.get("acme")


def test_the_record_names_neither_the_tenant_nor_its_client(make_settings: Any, tmp_path: Path) -> None:
    workspace = Workspace(make_settings())
    world = edge_world(tmp_path / "edge")
    tenant, _ = workspace.registry.create("telltale-name", 987_654_321, Placement.EMBEDDED)
    site = Site(workspace, cast(EdgeStore, world.store), tenant)
    site.insert((555_444_333, "a telltale title"), client=987_654_321)
    site.backfill()
    report = remove_tenant(workspace, world.store, "telltale-name")
    written = canonical(report.record).decode()
    with workspace.ledger.connect() as connection:
        kept = str(connection.execute(text("SELECT * FROM rowbeam.erasures")).all())
    for told in ("telltale", "987654321", "555444333"):
        assert told not in written + kept
    world.store.close()
    workspace.close()


def test_the_record_is_final_when_a_second_round_finds_nothing_after_the_retention(leaving: Leaving) -> None:
    leaving.remove()
    first = leaving.now()
    assert leaving.erasures.finish_due() == [], "the retention is not over"
    assert leaving.now() == first
    assert (first.due_at - cast(Any, first.clean_at)).total_seconds() == 24 * 3600

    last = leaving.a_day_later()
    record = leaving.record()
    assert (last.stage, record["stage"]) == (Stage.FINAL, "final")
    assert record["final_at"] is not None
    assert record["next_round_due_at"] is None
    assert record["supersedes"] == f"sha256:{hashlib.sha256(canonical(first.record)).hexdigest()}"
    assert len(record["rounds"]) == 3
    assert leaving.a_day_later() == last, "it is over"


def test_a_round_that_is_due_is_overdue_until_it_is_done(leaving: Leaving) -> None:
    def overdue() -> float:
        with leaving.workspace.ledger.connect() as connection:
            return erasures.overdue(connection)

    assert overdue() == 0.0
    leaving.remove()
    assert overdue() == 0.0, "the second look has a day yet"
    leaving.site.sql("UPDATE rowbeam.erasures SET due_at = now() - interval '2 hours'")
    assert 7200 <= overdue() < 7260
    leaving.erasures.finish_due()
    assert overdue() == 0.0, "it is final"


def test_what_a_late_writer_left_is_purged_and_the_retention_begins_anew(leaving: Leaving) -> None:
    leaving.remove()
    before = leaving.now()
    leaving.plant()
    again = leaving.a_day_later()
    assert again.stage is Stage.FIRST_ROUND
    assert cast(Any, again.clean_at) > before.clean_at
    assert again.due_at > before.due_at
    record = leaving.record()
    found = [sum(item["points"][str(leaving.world.placement)].values()) for item in record["rounds"]]
    assert found == [3, 0, 1, 0]
    assert (record["stage"], again.erased.points_total) == ("first_round", 4)
    assert leaving.world.store.census(leaving.scope, leaving.space, 9).points == 0
    assert leaving.a_day_later().stage is Stage.FINAL


def test_a_successor_of_the_same_name_is_not_touched_by_the_second_round(leaving: Leaving) -> None:
    leaving.remove()
    successor = leaving.another("acme", 1)
    leaving.plant()
    leaving.a_day_later()
    assert leaving.a_day_later().stage is Stage.FINAL
    assert successor.find("row 1 of 1", limit=1) == ["101"]
    scope = leaving.workspace.registry.scope(successor.tenant)
    assert leaving.world.store.count(scope, IndexKey(TABLE, "content", leaving.space)) == 3
    assert leaving.world.store.census(leaving.scope, leaving.space, 9).points == 0


@pooled
def test_a_point_that_lost_its_payload_is_found_by_its_id(leaving: Leaving) -> None:
    """No filter on a tenant finds it. Another tenant's, in the same collection, is left alone."""
    other = leaving.another("globex", 2)
    leaving.damage(leaving.site.tenant, leaving.scope)
    theirs = leaving.damage(other.tenant, leaving.scope)
    report = leaving.remove()
    assert (report.proven, report.points_erased) == (True, 3)
    assert leaving.record()["erased"]["nameless_points"] == 1
    assert leaving.nameless() == {theirs}

    stray = uuid4()  # in nobody's ledger: of a late writer, for all we know
    vector = np.ones(leaving.space.dimensions, np.float32)
    leaving.world.forge(leaving.scope, leaving.space, str(stray), vector, {"text": ""})
    assert leaving.a_day_later().stage is Stage.FIRST_ROUND
    assert leaving.nameless() == {theirs}
    assert leaving.a_day_later().stage is Stage.FINAL


class Cut:
    """The store, until the ``after``-th call of ``operation``: that one fails, done or not."""

    def __init__(self, store: VectorStore, operation: str, after: int, *, done: bool) -> None:
        self._store, self._operation, self._left, self._done = store, operation, after, done

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name != self._operation:
            return method

        def call(*args: Any) -> Any:
            self._left -= 1
            if self._left > 0:
                return method(*args)
            if self._done:
                method(*args)
            raise StoreUnavailable("It went away.")

        return call


@pytest.mark.parametrize(
    ("operation", "after", "done"),
    [("census", 1, False), ("erase", 1, False), ("erase", 1, True), ("census", 2, True), ("erase", 2, True)],
)
@pooled
def test_a_removal_that_was_cut_off_is_taken_up_where_it_stopped(
    leaving: Leaving, operation: str, after: int, *, done: bool
) -> None:
    broken = Cut(leaving.world.store, operation, after, done=done)
    with pytest.raises(StoreUnavailable):
        leaving.remove(cast(VectorStore, broken))
    assert leaving.now().stage is Stage.ERASING
    with pytest.raises(UnknownTenant):
        leaving.workspace.registry.scope(leaving.site.tenant)
    report = leaving.remove()
    assert report.proven
    assert (report.points_erased, leaving.record()["erased"]["ledger_rows"]["qdrant_vectors"]) == (3, 3)
    assert leaving.a_day_later().stage is Stage.FINAL


@embedded
def test_a_removal_that_nobody_takes_up_is_taken_up_by_the_server(leaving: Leaving) -> None:
    broken = Cut(leaving.world.store, "erase", 1, done=False)
    with pytest.raises(StoreUnavailable):
        leaving.remove(cast(VectorStore, broken))
    assert leaving.erasures.finish_due() == [], "whoever began it may still be at it"
    assert leaving.a_day_later().stage is Stage.FIRST_ROUND
    assert leaving.workspace.registry.find_incarnation(leaving.incarnation).state is TenantState.DELETED


@embedded
def test_a_second_round_that_was_cut_off_stays_due(leaving: Leaving) -> None:
    leaving.remove()
    leaving.plant()
    leaving.site.sql("UPDATE rowbeam.erasures SET due_at = now()")
    broken = Cut(leaving.world.store, "erase", 1, done=False)
    cut = Erasures(leaving.workspace, lambda: nullcontext(cast(VectorStore, broken)))
    assert cut.finish_due() == []
    assert leaving.now().stage is Stage.ERASING, "what it found is known, and no record is final"
    assert leaving.a_day_later().stage is Stage.FIRST_ROUND
    assert leaving.now().erased.points_total == 4


@pooled
def test_a_tenant_that_is_written_to_all_the_time_is_not_called_erased(leaving: Leaving) -> None:
    class Restless(Cut):
        def __getattr__(self, name: str) -> Any:
            if name == "census":
                leaving.plant()
            return getattr(self._store, name)

    restless = Restless(leaving.world.store, "", 0, done=False)
    report = leaving.remove(cast(VectorStore, restless))
    assert (report.proven, report.points_left, report.record, report.second_round_at) == (
        False,
        1,
        None,
        None,
    )
    assert len(leaving.now().rounds) == MAX_ROUNDS
    with pytest.raises(UnknownTenant):
        leaving.workspace.registry.get("acme")
    assert leaving.remove().proven


@embedded
def test_a_round_after_which_something_is_left_proves_nothing(leaving: Leaving) -> None:
    class Clinging(Cut):
        def __getattr__(self, name: str) -> Any:
            method = getattr(self._store, name)
            return (lambda *args: method(*args) + self._again()) if name == "erase" else method

        def _again(self) -> int:
            self._left -= 1
            return int(self._left == 0)

    report = leaving.remove(cast(VectorStore, Clinging(leaving.world.store, "erase", 2, done=True)))
    assert report.proven
    assert [item.erased for item in leaving.now().rounds] == [True, False, True]


@embedded
def test_usage_that_is_written_late_does_not_come_to_be_in_the_ledger(leaving: Leaving) -> None:
    leaving.remove()
    with leaving.workspace.ledger.begin() as connection:
        for incarnation in (leaving.incarnation, leaving.another("globex", 2).tenant.incarnation):
            usage.add_online(
                connection,
                incarnation=incarnation,
                provider="local-cpu",
                model="online",
                table="",
                texts=1,
                tokens=2,
                cost=Decimal(0),
                seconds=0.1,
            )
        assert connection.scalar(text("SELECT count(*) FROM rowbeam.usage WHERE model = 'online'")) == 1
    assert leaving.a_day_later().stage is Stage.FINAL


@embedded
def test_ledger_rows_that_came_late_are_found_too(leaving: Leaving) -> None:
    leaving.remove()
    leaving.site.sql(
        "INSERT INTO rowbeam.sync_schedules (incarnation, every_seconds) VALUES (:tenant, 60)",
        tenant=leaving.incarnation,
    )
    again = leaving.a_day_later()
    assert (again.stage, again.rounds[2].rows["sync_schedules"]) == (Stage.FIRST_ROUND, 1)
    assert leaving.a_day_later().stage is Stage.FINAL


@embedded
def test_one_process_at_a_time_erases_a_tenant(leaving: Leaving) -> None:
    with alone(leaving.workspace.ledger, f"rowbeam:erase:{leaving.incarnation}") as taken:
        assert taken
        with pytest.raises(ConflictError, match="Another process"):
            leaving.remove()
        assert leaving.workspace.registry.get("acme").state is TenantState.ACTIVE
    assert leaving.remove().proven


@embedded
def test_an_active_tenant_has_no_scope_to_erase_it_with(leaving: Leaving) -> None:
    with pytest.raises(ConflictError):
        leaving.workspace.registry.removal_scope(leaving.incarnation, Placement.EMBEDDED)
    with pytest.raises(UnknownErasure):
        leaving.now()
    assert leaving.erasures.list() == []


@embedded
def test_a_running_server_does_the_rounds_that_are_due(leaving: Leaving) -> None:
    leaving.remove()
    leaving.site.sql("UPDATE rowbeam.erasures SET due_at = now()")
    reporter = Reporter(Workspace(leaving.workspace.settings), leaving.world.store)
    reporter.report()
    reporter.start()
    reporter.stop()
    assert leaving.now().stage is Stage.FINAL


@embedded
def test_nothing_is_left_of_a_tenants_folders(leaving: Leaving, tmp_path: Path) -> None:
    name = str(leaving.incarnation)
    assert list((tmp_path / "edge").rglob(f"{name}*"))
    leaving.remove()
    assert list((tmp_path / "edge").rglob(f"{name}*")) == []


@embedded
def test_the_command_line_removes_lists_verifies_and_checks(
    leaving: Leaving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = leaving.workspace.settings
    shutil.move(tmp_path / "edge", settings.edge_dir)
    monkeypatch.setenv("ROWBEAM_HOME", str(settings.home))
    monkeypatch.setenv("ROWBEAM_DATABASE_URL", cast(Any, settings.database_url).get_secret_value())
    monkeypatch.setenv("ROWBEAM_LOCAL_MODEL", "stub")

    def told(*arguments: str, code: int = 0) -> str:
        assert run(["tenant", *arguments]) == code
        return capsys.readouterr().out

    removed = json.loads(told("remove", "acme", "--yes", "--json"))
    assert (removed["proven"], removed["points_erased"]) == (True, 3)
    (listed,) = json.loads(told("erasures", "--json"))["erasures"]
    assert (listed["stage"], listed["record"]) == ("first_round", removed["record"])
    leaving.site.sql("UPDATE rowbeam.erasures SET due_at = now()")
    assert json.loads(told("erasures", "--json"))["erasures"] == [{**listed, "due_at": ANY}]
    assert "final since" in told("erasures", "--verify")

    file, key = tmp_path / "record.json", tmp_path / "key.pem"
    file.write_text(told("erasure", "record", str(leaving.incarnation)))
    key.write_text(told("erasure", "key"))
    assert json.loads(told("erasure", "key", "--json")) == {"public_key": key.read_text()}
    assert json.loads(told("erasure", "check", str(file), "--key", str(key), "--json"))["stage"] == "final"
    file.write_text(file.read_text().replace('"stage":"final"', '"stage":"first"'))
    told("erasure", "check", str(file), "--key", str(key), code=1)
    told("erasure", "record", str(uuid4()), code=1)
    told("erasure", "record", "acme", code=1)


@embedded
def test_a_removal_that_began_while_another_one_ended_changes_nothing(
    leaving: Leaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving.remove()
    done = leaving.now()
    with monkeypatch.context() as late:  # the name was looked up before the other one had ended
        late.setattr(leaving.workspace.registry, "get", lambda name: leaving.site.tenant)
        with pytest.raises(UnknownTenant):
            leaving.remove()
    assert leaving.now() == done
    assert leaving.workspace.registry.find_incarnation(leaving.incarnation).state is TenantState.DELETED


@embedded
def test_no_round_before_the_retention_is_over_makes_a_record_final(leaving: Leaving) -> None:
    due_at = leaving.remove().second_round_at
    early = purge(leaving.workspace, leaving.world.store, leaving.incarnation)
    assert (early.stage, early.due_at) == (Stage.FIRST_ROUND, due_at)
    assert leaving.record()["stage"] == "first_round"
    assert leaving.a_day_later().stage is Stage.FINAL
