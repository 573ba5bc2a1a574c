"""Filter conditions, each operator on each engine."""

from __future__ import annotations

from typing import Any

import pytest

from ray_app.errors import InvalidFilter
from ray_app.store.port import Condition
from tests.support.vector_store_world import World, batch, meta, unit

ROWS: dict[str, dict[str, Any]] = {
    "a": {"status": "open", "n": 1, "x": 0.5, "done": False, "at": "2026-01-01T00:00:00+00:00"},
    "b": {"status": "closed", "n": 5, "x": 5.0, "done": True, "at": "2026-06-01T12:00:00"},
    "c": {"status": "Open", "n": -3, "labels": ["bug", "ui"], "at": "2026-11-23T10:00:00.5+02:00"},
    "d": {"_t": "shadow", "_p": "shadow", "labels": ["ui"], "big": 2**60},
}


class TestFilters:
    @pytest.fixture(
        params=[
            pytest.param([], id="undeclared"),
            pytest.param(["status", "n", "x", "big", "done", "labels", "at", "_t"], id="declared"),
        ]
    )
    def filtered(self, world: World, request: pytest.FixtureRequest) -> Any:
        scope, index = world.tenant(), world.index()
        world.store.ensure_index(scope, index, request.param)
        world.store.upsert(
            scope, index, batch([meta(name, **data) for name, data in ROWS.items()], [unit(1)] * len(ROWS))
        )

        def found(*conditions: tuple[str, str, Any]) -> str:
            compiled = [Condition(*condition) for condition in conditions]
            return "".join(sorted(world.found(scope, index, conditions=compiled)))

        return found

    @pytest.mark.parametrize(
        ("condition", "records"),
        [
            (("status", "eq", "open"), "a"),
            (("status", "eq", "nope"), ""),
            (("status", "in", ["open", "closed", "nope"]), "ab"),
            (("n", "eq", 5), "b"),
            (("n", "eq", 5.0), "b"),
            (("n", "in", [5, -3]), "bc"),
            (("n", "in", [5, "open"]), "b"),
            (("x", "eq", 5), "b"),
            (("x", "in", [0.5]), "a"),
            (("n", "gt", 1), "b"),
            (("n", "gte", 1), "ab"),
            (("n", "lt", 1), "c"),
            (("n", "lte", 1.5), "ac"),
            (("done", "eq", True), "b"),
            (("done", "eq", False), "a"),
            (("labels", "eq", "ui"), "cd"),
            (("labels", "in", ["bug"]), "c"),
            (("big", "eq", 2**60), "d"),
            (("big", "eq", 2**60 - 1), ""),
            (("at", "gt", "2026-01-01T00:00:00Z"), "bc"),
            (("at", "gte", "2026-01-01"), "abc"),
            (("at", "lt", "2026-11-23T08:00:00.6Z"), "abc"),
            (("at", "lte", "2026-11-23T08:00:00.4Z"), "ab"),
            (("at", "eq", "2026-06-01T12:00:00"), "b"),
            (("_t", "eq", "shadow"), "d"),
            (("missing", "eq", "x"), ""),
        ],
        ids=str,
    )
    def test_each_operator(self, filtered: Any, condition: tuple[str, str, Any], records: str) -> None:
        assert filtered(condition) == records

    def test_conditions_are_joined_by_and(self, filtered: Any) -> None:
        assert filtered(("n", "gte", -3), ("n", "lt", 5), ("status", "in", ["open", "Open"])) == "ac"
        assert filtered(("status", "eq", "open"), ("status", "eq", "closed")) == ""

    @pytest.mark.parametrize(
        "name", ["", "a.b", "d.status", "a[]", "a b", '"a"', "1a", "a\x00", "ａ", "status\n", "a-b", "$"]
    )
    def test_names_that_mean_something_to_the_engine_are_refused(self, filtered: Any, name: str) -> None:
        with pytest.raises(InvalidFilter):
            filtered((name, "eq", "x"))

    def test_a_column_named_like_ours_shadows_nothing(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        other = world.tenant()
        shadow = {"_t": str(other.incarnation), "_p": "x", "_v": 10**15, "pk": "other"}
        world.filled(scope, index, batch([meta("1", **shadow)], [unit(1)]))
        world.store.ensure_index(other, index, [])
        assert world.found(other, index) == []
        assert world.found(scope, index, conditions=[Condition("pk", "eq", "1")]) == []
        world.store.upsert(scope, index, batch([meta("1", 0, "again")], [unit(1)], 2))
        assert world.store.search(scope, index, unit(1), limit=1)[0].snippet == "again"
