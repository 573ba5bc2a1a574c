"""Tenants do not meet, and the walls between them stand one by one."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from ray_app.errors import IsolationViolation
from ray_app.identity import partition_id, point_id
from ray_app.store import edge, server
from ray_app.store.filters import Match, Where
from ray_app.store.port import DataChange
from ray_app.tenants import TenantScope
from tests.support.vector_store_world import SECRET, World, batch, meta, unit


class TestIsolation:
    def test_twins_do_not_meet(self, world: World) -> None:
        """Two tenants with the same rows: neither changes what the other sees, nor its erasure."""
        index = world.index()
        ours, theirs = world.tenant(), world.tenant()
        rng = np.random.default_rng(7)
        vectors = list(rng.standard_normal((40, 4)))
        world.filled(ours, index, batch([meta(str(n), 0, "ours") for n in range(40)], vectors))
        # The local double multiplies whole matrices, whose size moves the last bit of a score.
        alone = [pytest.approx(score, abs=1e-6) for score in scores(world, ours)]

        world.filled(theirs, index, batch([meta(str(n), 0, "theirs") for n in range(40)], vectors, 9))
        assert scores(world, ours) == alone
        for scope, snippet in ((ours, "ours"), (theirs, "theirs")):
            hits = world.store.search(scope, index, unit(1), limit=40)
            assert {hit.snippet for hit in hits} == {snippet}
        assert world.store.count(ours, index) == world.store.count(theirs, index) == 40
        assert not _ids(world, ours) & _ids(world, theirs)

        world.store.delete(theirs, index, [("1", 0)])
        world.store.drop_index(theirs, world.index("projects"))
        assert world.store.count(ours, index) == 40

        assert world.store.erase(theirs, [world.space]) == 0
        assert world.store.count(theirs, index) == 0
        assert world.found(theirs, index) == []
        assert scores(world, ours) == alone

    def test_a_tenant_made_again_sees_nothing_of_its_predecessor(self, world: World) -> None:
        index = world.index()
        world.filled(world.tenant(), index, batch([meta("1")], [unit(1)]))
        successor = world.tenant()
        world.store.ensure_index(successor, index, [])
        assert world.found(successor, index) == []

    def test_an_erased_tenant_can_be_filled_again(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        for _ in range(2):
            world.filled(scope, index, batch([meta("1")], [unit(1)]))
            assert world.found(scope, index) == ["1"]
            assert world.store.erase(scope, [world.space]) == 0

    def test_a_foreign_point_in_our_partition_is_not_found_counted_or_deleted(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("own")], [unit(0.5, 0.5)]))
        forge(world, scope)
        assert world.found(scope, index) == ["own"]
        assert world.store.count(scope, index) == 1
        assert [point.record_id for point in world.store.scroll(scope, index)] == ["own"]

    def test_an_id_that_meets_a_foreign_point_does_not_overwrite_it(
        self, world: World, unfiltered: None
    ) -> None:
        scope, index = world.tenant(), world.index()
        world.store.ensure_index(scope, index, [])
        stolen = str(point_id(SECRET, scope.incarnation, "issues", "content", "1", 0))
        forge(world, scope, stolen)
        world.store.upsert(scope, index, batch([meta("1")], [unit(1)], version=99))
        with pytest.raises(IsolationViolation):
            world.store.search(scope, index, unit(1), limit=1)

    def test_new_columns_reach_the_own_twin_only(self, world: World) -> None:
        index = world.index()
        ours, theirs = world.tenant(), world.tenant()
        for scope in (ours, theirs):
            world.filled(scope, index, batch([meta("1", status="open")], [unit(1)]))

        world.store.set_data(ours, index, [DataChange("1", 1, {"status": "done"})], 9)

        for scope, status, version in ((ours, "done", 9), (theirs, "open", 1)):
            (hit,) = world.store.search(scope, index, unit(1), limit=5)
            (point,) = world.store.scroll(scope, index)
            assert (hit.data, point.version) == ({"status": status}, version)

    def test_new_columns_for_an_id_that_meets_a_foreign_point_do_not_reach_it(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.store.ensure_index(scope, index, [])
        stolen = str(point_id(SECRET, scope.incarnation, "issues", "content", "1", 0))
        foreign = forge(world, scope, stolen)
        world.store.set_data(scope, index, [DataChange("1", 1, {"status": "done"})], 99)
        partition = partition_id(SECRET, scope.incarnation, "issues", "content")
        (found,) = world.store._nearest(
            scope, world.space, unit(1).tolist(), Where(foreign, partition), 5, None
        )
        assert found.payload["d"] == {}

    def test_the_result_wall_stands_when_the_filter_fails(self, world: World, unfiltered: None) -> None:
        """With the tenant condition dropped from reads, a foreign point still does not get out."""
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("own")], [unit(1)]))
        assert world.found(scope, index) == ["own"]
        forge(world, scope)
        with pytest.raises(IsolationViolation, match="1 of 2 points"):
            world.found(scope, index)
        with pytest.raises(IsolationViolation):
            list(world.store.scroll(scope, index))

    def test_the_vectors_of_a_record_are_its_own_even_where_a_foreign_point_has_its_id(
        self, world: World
    ) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("1")], [unit(0, 1)]))
        forge(world, scope, str(point_id(SECRET, scope.incarnation, "issues", "content", "1", 1)))
        assert world.store.vectors_of(scope, index, "1").tolist() == [[0, 1, 0, 0]]

    def test_foreign_vectors_do_not_get_out_when_the_filter_fails(
        self, world: World, unfiltered: None
    ) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("1")], [unit(0, 1)]))
        forge(world, scope)
        with pytest.raises(IsolationViolation):
            world.store.vectors_of(scope, index, "1")

    @pytest.fixture
    def unfiltered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Reads that name the partition only: the fault that the result wall is for."""
        for adapter in (edge, server):
            whole = adapter.translate

            def leaky(where: Any, dialect: Any, whole: Any = whole) -> Any:
                if where.max_version is not None:
                    return whole(where, dialect)
                (condition,) = [
                    dialect.matched(clause.key, dialect.value(clause.values[0]))
                    for clause in where.must()
                    if isinstance(clause, Match) and clause.key == "_p"
                ] or [dialect.matched("pk", dialect.value("none"))]
                return dialect.all_and_none([condition], [])

            monkeypatch.setattr(adapter, "translate", leaky)


def forge(world: World, scope: TenantScope, point: str | None = None) -> UUID:
    """A point of somebody else, returned, in ``scope``'s partition, as near to ``unit(1)`` as can be."""
    foreign = uuid4()
    partition = partition_id(SECRET, scope.incarnation, "issues", "content")
    payload = {
        "_t": str(foreign),
        "_p": str(partition),
        "_v": 1,
        "_h": "h",
        "pk": "foreign",
        "c": 0,
        "text": "secret",
        "d": {},
    }
    world.forge(scope, world.space, point or str(uuid4()), unit(1), payload)
    return foreign


def scores(world: World, scope: TenantScope) -> list[float]:
    """The score of each of the records "0" to "39"."""
    hits = world.store.search(scope, world.index(), unit(1), limit=40)
    found = {hit.record_id: hit.score for hit in hits}
    return [found[str(n)] for n in range(40)]


def _ids(world: World, scope: TenantScope) -> set[UUID]:
    return {point.point_id for point in world.store.scroll(scope, world.index())}
