"""What does not fit is refused, and odd text is kept as near as can be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ray_app.errors import InputError
from ray_app.store.port import Condition, PointBatch
from tests.support.vector_store_world import World, batch, meta, unit


class TestBadInput:
    @pytest.mark.parametrize(
        "vectors",
        [
            [[1, 0, 0, math.nan]],
            [[1, 0, 0, math.inf]],
            [[3e38, 3e38, 0, 0]],
            [[1, 0, 0]],
            [[1, 0, 0, 0, 0]],
            [[1, 0, 0, 0]] * 2,
            [1, 0, 0, 0],
            [["a", "b", "c", "d"]],
        ],
        ids=str,
    )
    def test_vectors_that_do_not_fit_are_refused_with_their_batch(self, world: World, vectors: Any) -> None:
        scope, index = world.tenant(), world.index()
        world.store.ensure_index(scope, index, [])
        with pytest.raises(InputError):
            world.store.upsert(scope, index, PointBatch([meta("1")], np.array(vectors), 1))
        assert world.store.count(scope, index) == 0

    @pytest.mark.parametrize("vector", [[1, 0, 0], [math.nan, 0, 0, 0], [[1, 0, 0, 0]]], ids=str)
    def test_a_query_that_does_not_fit_is_refused(self, world: World, vector: Any) -> None:
        with pytest.raises(InputError):
            world.store.search(world.tenant(), world.index(), np.array(vector, np.float32), limit=1)

    @pytest.mark.parametrize("limit", [0, -1, 1001])
    def test_limits_out_of_range_are_refused(self, world: World, limit: int) -> None:
        with pytest.raises(InputError, match=str(limit)):
            world.store.search(world.tenant(), world.index(), unit(1), limit=limit)
        with pytest.raises(InputError, match=str(limit)):
            world.store.scroll(world.tenant(), world.index(), page=limit)

    @pytest.mark.parametrize("version", [-1, 2**53])
    def test_versions_that_do_not_compare_exactly_are_refused(self, world: World, version: int) -> None:
        with pytest.raises(InputError, match="Version"):
            world.store.upsert(world.tenant(), world.index(), batch([meta("1")], [unit(1)], version))

    def test_odd_text_is_stored_as_near_as_can_be(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        long = "ä🎉" * 50_000
        odd = meta(
            "1", 0, "a\x00b\ud800🎉", nul="x\x00y", half="\udfff!", long=long, nan=math.nan, huge=10**30
        )
        world.filled(scope, index, batch([odd, meta("🎉 / ü", 0)], [unit(1), unit(0, 1)]))

        first, second = world.store.search(scope, index, unit(1), limit=2)

        assert first.snippet == "ab?🎉"
        assert first.data == {"nul": "xy", "half": "?!", "long": long, "huge": str(10**30)}
        assert second.record_id == "🎉 / ü"
        assert world.found(scope, index, conditions=[Condition("nul", "eq", "x\x00y")]) == ["1"]
