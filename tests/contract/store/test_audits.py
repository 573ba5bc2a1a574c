"""Digests and ranges of points, and points out of place: what reconciling compares with the ledger."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import xor
from uuid import UUID, uuid4

import pytest

from ray_app.errors import IsolationViolation
from ray_app.identity import partition_id
from ray_app.store.auditing import point_digest
from ray_app.store.port import Census, Digest
from ray_app.text import data_hash
from tests.support.vector_store_world import World, batch, meta, unit

LEAST, GREATEST = UUID(int=0), UUID(int=2**128 - 1)


def filled(world: World, records: int = 40):  # type: ignore[no-untyped-def]
    scope, index = world.tenant(), world.index()
    metas = [replace(meta(str(number)), data={"n": number}) for number in range(records)]
    world.filled(scope, index, batch(metas, [unit(1, number / records) for number in range(records)]))
    return scope, index, sorted(world.store.scroll(scope, index), key=lambda point: point.point_id.int)


def digest_of(points) -> Digest:  # type: ignore[no-untyped-def]
    each = [point_digest(point.point_id, point.content_hash, point.version) for point in points]
    return Digest(len(each), reduce(xor, each, 0))


@pytest.mark.parametrize(("first", "last"), [(0, 39), (0, 0), (7, 30), (39, 39)])
def test_a_range_has_its_own_points_and_their_digest(world: World, first: int, last: int) -> None:
    scope, index, points = filled(world)
    lo, hi = points[first].point_id, points[last].point_id
    inside = points[first : last + 1]
    assert world.store.digest(scope, index, lo, hi) == digest_of(inside)
    found = world.store.points_between(scope, index, lo, hi)
    assert [(point.point_id, point.record_id) for point in found] == [
        (point.point_id, point.record_id) for point in inside
    ]
    assert all(point.data_hash == data_hash({"n": int(point.record_id)}) for point in found)


def test_more_points_than_one_page(world: World) -> None:
    scope, index, points = filled(world, 1_100)
    assert world.store.digest(scope, index, LEAST, GREATEST) == digest_of(points)
    assert len(world.store.points_between(scope, index, LEAST, GREATEST)) == 1_100


def test_points_of_keys_are_the_tenants_own(world: World) -> None:
    scope, index, points = filled(world, 3)
    found = world.store.points_of(scope, index, [("0", 0), ("2", 0), ("2", 1), ("9", 0)])
    assert sorted(point.record_id for point in found) == ["0", "2"]
    other = world.tenant()
    world.filled(other, index, batch([meta("7")], [unit(1)]))
    assert world.store.points_of(other, index, [("0", 0)]) == []
    assert world.store.digest(other, index, LEAST, GREATEST).points == 1
    assert world.store.digest(scope, index, LEAST, GREATEST) == digest_of(points)


def test_points_outside_of_the_named_indexes_are_told_and_removed(world: World) -> None:
    scope, index, _ = filled(world, 3)
    elsewhere = world.index("projects", "content")
    world.store.ensure_index(scope, elsewhere, [])
    world.store.upsert(scope, elsewhere, batch([meta("p")], [unit(2)]))
    mine, other = (
        partition_id(scope.secret, scope.incarnation, item.table, item.vector_type)
        for item in (index, elsewhere)
    )
    assert world.store.strays(scope, world.space, [mine, other], 10) == []
    (stray,) = world.store.strays(scope, world.space, [mine], 10)
    assert (stray.foreign, stray.partition) == (False, other)
    assert len(world.store.strays(scope, world.space, [], 10)) == 4
    world.store.remove_strays(scope, world.space, [stray.point_id, uuid4()])
    assert world.store.strays(scope, world.space, [mine], 10) == []
    assert world.store.count(scope, index) == 3


def test_a_foreign_point_in_a_tenants_own_place_is_told_and_removed(world: World) -> None:
    """In a shared collection other tenants' points are no strays, and out of reach."""
    scope, index, _ = filled(world, 2)
    mine = partition_id(scope.secret, scope.incarnation, index.table, index.vector_type)
    planted = uuid4()
    payload = {"_t": str(uuid4()), "_p": str(mine), "_v": 1, "_h": "x", "pk": "0", "c": 0, "text": "planted"}
    world.forge(scope, world.space, str(planted), unit(3), payload)
    found = world.store.strays(scope, world.space, [mine], 10)
    if world.placement == "pooled":
        assert found == []
        return
    assert [(stray.point_id, stray.foreign) for stray in found] == [(planted, True)]
    world.store.remove_strays(scope, world.space, [planted])
    assert world.store.strays(scope, world.space, [mine], 10) == []
    assert world.store.count(scope, index) == 2


def test_a_foreign_point_under_an_own_partition_never_comes_as_an_own_one(world: World) -> None:
    scope, index, points = filled(world, 2)
    mine = partition_id(scope.secret, scope.incarnation, index.table, index.vector_type)
    payload = {"_t": str(uuid4()), "_p": str(mine), "_v": 1, "_h": "x", "pk": "0", "c": 0, "text": "planted"}
    world.forge(scope, world.space, str(uuid4()), unit(3), payload)
    try:
        assert world.store.digest(scope, index, LEAST, GREATEST) == digest_of(points)
    except IsolationViolation:  # an engine that ignores the filter is caught by the wall
        pytest.fail("the filter let another tenant's point through")


def test_a_shared_collections_other_tenants_are_out_of_reach(world: World) -> None:
    scope, index, _ = filled(world, 2)
    other = world.tenant()
    world.filled(other, index, batch([meta("7")], [unit(1)]))
    (theirs,) = world.store.scroll(other, index)
    world.store.remove_strays(scope, world.space, [theirs.point_id])
    assert world.store.count(other, index) == 1


def test_a_census_counts_every_index_and_names_points_without_a_name(world: World) -> None:
    """A replica that lost a payload leaves a point that no filter on a tenant finds."""
    scope, index, _ = filled(world, 2)
    world.filled(scope, world.index("projects"), batch([meta("p")], [unit(2)]))
    other = world.tenant()
    world.filled(other, index, batch([meta("7")], [unit(1)]))
    assert world.store.census(scope, world.space, 9) == Census(3, ())
    lost = [uuid4(), uuid4()]
    for point in lost:
        world.forge(scope, world.space, str(point), unit(3), {"text": "the rest is gone"})
    found = world.store.census(scope, world.space, 9)
    assert (found.points, set(found.nameless)) == (3, set(lost))
    assert len(world.store.census(scope, world.space, 1).nameless) == 1

    world.store.remove_strays(scope, world.space, lost[:1])
    assert world.store.census(scope, world.space, 9) == Census(3, (lost[1],))
    assert world.store.count(other, index) == 1
    nowhere = replace(world.space, model="never used")
    assert world.store.census(scope, nowhere, 9) == Census(0, ())
