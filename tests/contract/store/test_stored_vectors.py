"""Vectors of single points, read back with the hash that says of which text they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ray_app.errors import InputError
from tests.support.vector_store_world import World, batch, meta, slanted, unit


def test_each_point_has_its_vector_and_hash(world: World) -> None:
    scope, index = world.tenant(), world.index()
    metas = [replace(meta("1", chunk), content_hash=f"hash-{chunk}") for chunk in range(2)]
    world.filled(scope, index, batch(metas, [slanted(0.2) * 3, unit(0, 5)]))

    found = world.store.stored_vectors(scope, index, [("1", 1), ("1", 0), ("1", 2), ("2", 0)])

    assert {key: point.content_hash for key, point in found.items()} == {
        ("1", 0): "hash-0",
        ("1", 1): "hash-1",
    }
    assert found["1", 0].vector == pytest.approx(slanted(0.2), abs=1e-6)
    assert found["1", 1].vector == pytest.approx(unit(0, 1), abs=1e-6)
    assert found["1", 0].vector.dtype == np.float32


def test_more_keys_than_one_condition_holds(world: World) -> None:
    scope, index = world.tenant(), world.index()
    metas = [meta(str(number)) for number in range(1_100)]
    world.filled(scope, index, batch(metas, [unit(1, number / 1_100) for number in range(1_100)]))
    keys = [(str(number), 0) for number in range(1_100)]
    assert world.store.stored_vectors(scope, index, keys).keys() == set(keys)


def test_nothing_of_another_tenant_index_or_point(world: World) -> None:
    scope, index = world.tenant(), world.index()
    assert world.store.stored_vectors(scope, index, [("1", 0)]) == {}
    world.filled(scope, index, batch([meta("1")], [unit(1)]))
    assert world.store.stored_vectors(scope, index, []) == {}
    for other in (world.index("issues", "summary"), world.index("projects", "content")):
        assert world.store.stored_vectors(scope, other, [("1", 0)]) == {}
    assert world.store.stored_vectors(world.tenant(), index, [("1", 0)]) == {}
    with pytest.raises(InputError, match="record id"):
        world.store.stored_vectors(scope, index, [("1\x00", 0)])
