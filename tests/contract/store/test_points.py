"""Points written, found, walked and deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ray_app.errors import InputError, StoreRefused
from ray_app.identity import point_id
from ray_app.store.port import Condition, DataChange, PointBatch
from ray_app.tenants import Placement, TenantScope
from tests.support.vector_store_world import SECRET, World, batch, meta, slanted, unit


class TestPoints:
    def test_a_point_is_found_with_all_it_says(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("7", 2, "Fix the login", status="open", n=3)], [unit(1)]))

        (hit,) = world.store.search(scope, index, unit(2), limit=5)

        assert (hit.record_id, hit.chunk, hit.snippet) == ("7", 2, "Fix the login")
        assert hit.data == {"status": "open", "n": 3}
        assert hit.score == pytest.approx(1.0, abs=1e-6)

    def test_hits_are_ordered_by_cosine_and_cut_by_limit_and_threshold(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        cosines = {"c": 0.5, "a": 0.9, "d": -0.3, "b": 0.7}
        vectors = [slanted(cosine) * 10 for cosine in cosines.values()]
        world.filled(scope, index, batch([meta(name) for name in cosines], vectors))

        hits = world.store.search(scope, index, unit(1), limit=10)
        assert {hit.record_id: pytest.approx(hit.score, abs=1e-5) for hit in hits} == cosines
        assert [hit.record_id for hit in hits] == ["a", "b", "c", "d"]
        assert world.found(scope, index, limit=2) == ["a", "b"]
        assert world.found(scope, index, score_threshold=0.6) == ["a", "b"]

    def test_scroll_yields_every_point_once_over_pages(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        metas = [meta(str(n), chunk) for n in range(9) for chunk in range(3)]
        world.filled(scope, index, batch(metas, [unit(1, n) for n in range(27)], version=42))

        points = list(world.store.scroll(scope, index, page=10))

        assert sorted((p.record_id, p.chunk) for p in points) == sorted((m.record_id, m.chunk) for m in metas)
        assert {(p.content_hash, p.version) for p in points} == {("hash", 42)}
        assert {p.point_id for p in points} == {
            point_id(SECRET, scope.incarnation, "issues", "content", m.record_id, m.chunk) for m in metas
        }
        assert world.store.count(scope, index) == 27

    def test_a_batch_larger_than_one_engine_call_is_written_whole(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        metas = [meta(str(n)) for n in range(600)]
        world.filled(scope, index, batch(metas, [unit(1, n) for n in range(600)]))
        assert world.store.count(scope, index) == 600

    def test_an_empty_batch_writes_nothing(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, PointBatch([], np.zeros((0, 4), np.float32), 1))
        assert world.store.count(scope, index) == 0

    def test_delete_removes_the_named_chunks_and_ignores_missing_ones(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("1", 0), meta("1", 1), meta("2", 0)], [unit(1)] * 3))

        world.store.delete(scope, index, [("1", 1), ("2", 0), ("3", 0)])
        world.store.delete(scope, index, [("2", 0)])
        world.store.delete(scope, index, [])

        assert [(p.record_id, p.chunk) for p in world.store.scroll(scope, index)] == [("1", 0)]

    def test_delete_takes_more_keys_than_one_engine_call(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        metas = [meta(str(n)) for n in range(1200)]
        world.filled(scope, index, batch(metas, [unit(1, n) for n in range(1200)]))
        world.store.delete(scope, index, [(str(n), 0) for n in range(1199)])
        assert [p.record_id for p in world.store.scroll(scope, index)] == ["1199"]

    def test_drop_index_leaves_the_tenants_other_indexes(self, world: World) -> None:
        scope = world.tenant()
        kept = [world.index("issues", "summary"), world.index("projects", "content")]
        for index in (world.index(), *kept):
            world.filled(scope, index, batch([meta("1")], [unit(1)]))

        world.store.drop_index(scope, world.index())

        assert world.store.count(scope, world.index()) == 0
        assert [world.found(scope, index) for index in kept] == [["1"], ["1"]]

    def test_the_health_check_answers_a_line(self, world: World) -> None:
        assert "Qdrant" in world.store.check()


class TestIdempotency:
    def test_the_same_batch_twice_is_one_set_of_points(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        points = batch([meta("1"), meta("2")], [unit(1), unit(0, 1)])
        world.filled(scope, index, points)
        world.filled(scope, index, points)
        assert world.store.count(scope, index) == 2

    @pytest.mark.parametrize(
        ("version", "kept"), [(4, "first"), (5, "second"), (6, "second"), (2**53 - 1, "second")]
    )
    def test_an_older_version_never_overwrites(self, world: World, version: int, kept: str) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("1", 0, "first")], [unit(1)], version=5))
        world.store.upsert(scope, index, batch([meta("1", 0, "second")], [unit(1)], version))
        (hit,) = world.store.search(scope, index, unit(1), limit=1)
        assert hit.snippet == kept

    def test_one_newer_point_does_not_keep_the_rest_of_its_batch_out(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        micros = 1_795_000_000_000_000
        world.filled(scope, index, batch([meta("1", 0, "newer")], [unit(1)], micros + 1))
        world.store.upsert(scope, index, batch([meta("1"), meta("2")], [unit(1), unit(1)], micros))
        versions = {point.record_id: point.version for point in world.store.scroll(scope, index)}
        assert versions == {"1": micros + 1, "2": micros}

    def test_a_new_write_replaces_the_whole_payload(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("1", status="open", n=1)], [unit(1)], 1))
        world.store.upsert(scope, index, batch([meta("1", status="done")], [unit(1)], 2))
        (hit,) = world.store.search(scope, index, unit(1), limit=1)
        assert hit.data == {"status": "done"}


class TestNewData:
    """Payload columns that change while the vectors stay."""

    @staticmethod
    def having(world: World, scope: TenantScope, **columns: Any) -> list[str]:
        """Records whose columns have these values, as the filter sees it."""
        conditions = [Condition(name, "eq", value) for name, value in columns.items()]
        return sorted(world.found(scope, world.index(), conditions=conditions))

    def test_filters_see_the_new_values_and_no_removed_ones(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.store.ensure_index(scope, index, ["status", "label", "n", "open"])
        metas = [meta(str(n), status="open", label=["a", "b"], n=n, open=True) for n in (1, 2)]
        world.store.upsert(scope, index, batch(metas, [unit(1), unit(0.9)]))

        world.store.set_data(scope, index, [DataChange("1", 1, {"status": "done", "label": ["b", "c"]})], 2)

        assert self.having(world, scope, status="done") == ["1"]
        for gone in ({"status": "open"}, {"label": "a"}, {"n": 1}, {"open": True}):
            assert "1" not in self.having(world, scope, **gone)
        assert self.having(world, scope, status="open", label="a", n=2, open=True) == ["2"]
        assert self.having(world, scope, label="b") == ["1", "2"]
        assert self.having(world, scope, label="c") == ["1"]
        world.store.set_data(scope, index, [DataChange("1", 1, {})], 3)
        assert self.having(world, scope, label="b") == ["2"]

    def test_everything_but_the_columns_stays(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("1", 0, "words", status="open")], [slanted(0.8)], 1))
        (before,) = world.store.scroll(scope, index)

        world.store.set_data(scope, index, [DataChange("1", 1, {"status": "done", "_t": "x", "pk": "9"})], 2)

        (hit,) = world.store.search(scope, index, unit(1), limit=1)
        assert (hit.record_id, hit.chunk, hit.snippet) == ("1", 0, "words")
        assert hit.score == pytest.approx(0.8, abs=1e-6)
        assert hit.data == {"status": "done", "_t": "x", "pk": "9"}
        (after,) = world.store.scroll(scope, index)
        assert after == replace(before, version=2)

    def test_every_chunk_of_a_record_gets_them_and_a_missing_point_nothing(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        metas = [meta("1", chunk, status="open") for chunk in range(3)]
        world.filled(scope, index, batch(metas, [unit(1), unit(1, 1), unit(0, 1)]))

        changes = [DataChange("absent", 2, {"status": "done"}), DataChange("1", 5, {"status": "done"})]
        world.store.set_data(scope, index, changes, 2)
        world.store.set_data(scope, index, [], 2)

        assert world.store.count(scope, index) == 3
        assert {point.version for point in world.store.scroll(scope, index)} == {2}
        for probe in (unit(1), unit(1, 1), unit(0, 1)):
            (hit,) = world.store.search(scope, index, probe, limit=5)
            assert hit.data == {"status": "done"}

    def test_more_records_and_chunks_than_one_engine_call_takes(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        metas = [meta(str(n), 0, n=n) for n in range(600)] + [meta("long", chunk) for chunk in range(1100)]
        world.filled(scope, index, batch(metas, [unit(1, n) for n in range(len(metas))]))
        changes = [DataChange(str(n), 1, {"n": n + 1}) for n in range(600)]
        world.store.set_data(scope, index, [*changes, DataChange("long", 1100, {"n": 0})], 2)
        assert {point.version for point in world.store.scroll(scope, index)} == {2}
        assert self.having(world, scope, n=600) == ["599"]
        assert self.having(world, scope, n=0) == ["long"]

    @pytest.mark.parametrize(("version", "kept"), [(4, "open"), (5, "done"), (2**53 - 1, "done")])
    def test_an_older_version_never_overwrites(self, world: World, version: int, kept: str) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("1", status="open")], [unit(1)], version=5))
        world.store.set_data(scope, index, [DataChange("1", 1, {"status": "done"})], version)
        (hit,) = world.store.search(scope, index, unit(1), limit=1)
        assert hit.data == {"status": kept}

    def test_a_late_write_does_not_bring_older_columns_back(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("1", status="open")], [unit(1)], version=5))
        world.store.set_data(scope, index, [DataChange("1", 1, {"status": "done"})], 7)
        world.store.upsert(scope, index, batch([meta("1", status="late")], [unit(1)], version=6))
        assert self.having(world, scope, status="done") == ["1"]

    def test_the_tenants_other_indexes_keep_theirs(self, world: World) -> None:
        scope, other = world.tenant(), world.index("issues", "summary")
        for index in (world.index(), other):
            world.filled(scope, index, batch([meta("1", status="open")], [unit(1)]))
        world.store.set_data(scope, world.index(), [DataChange("1", 1, {"status": "done"})], 2)
        (hit,) = world.store.search(scope, other, unit(1), limit=1)
        assert hit.data == {"status": "open"}

    def test_values_are_held_to_the_rules_of_a_write(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("1", status="open")], [unit(1)]))
        world.store.set_data(scope, index, [DataChange("1", 1, {"a": "x\x00y", "b": float("nan")})], 2)
        (hit,) = world.store.search(scope, index, unit(1), limit=1)
        assert hit.data == {"a": "xy"}
        nested: Any = {"status": {"not": "a scalar"}}
        for change, version in (
            (DataChange("1", 1, nested), 3),
            (DataChange("1\x00", 1, {}), 3),
            (DataChange("1", 1, {}), -1),
            (DataChange("1", 1, {}), 2**53),
        ):
            with pytest.raises(InputError):
                world.store.set_data(scope, index, [change], version)


class TestMissingIndex:
    def test_reads_are_empty_and_deletes_do_nothing(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        assert world.found(scope, index) == []
        assert world.store.count(scope, index) == 0
        assert list(world.store.scroll(scope, index)) == []
        world.store.delete(scope, index, [("1", 0)])
        world.store.set_data(scope, index, [DataChange("1", 1, {"n": 1})], 1)
        assert world.store.count(scope, index) == 0
        world.store.drop_index(scope, index)
        assert world.store.erase(scope, [world.space]) == 0

    def test_a_removed_tenants_late_write_cannot_stay(self, world: World) -> None:
        """Refused where the tenant's home is gone; in a shared collection, which stays, erased again."""
        scope, index = world.tenant(), world.index()
        late = batch([meta("1")], [unit(1)])
        world.filled(scope, index, late)
        world.store.erase(scope, [world.space])
        if world.placement is Placement.POOLED:
            world.store.upsert(scope, index, late)
            assert world.store.erase(scope, [world.space]) == 0
        else:
            with pytest.raises(StoreRefused, match="removed, or never set up"):
                world.store.upsert(scope, index, late)
        assert world.store.count(scope, index) == 0

    def test_set_up_is_idempotent_and_takes_new_fields(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        world.filled(scope, index, batch([meta("1", n=1)], [unit(1)]))
        for fields in (["status"], ["status", "n"], ["n", "at"]):
            world.store.ensure_index(scope, index, fields)
        assert world.found(scope, index, conditions=[Condition("n", "gte", 1)]) == ["1"]

    def test_a_field_that_could_not_be_filtered_on_is_refused_at_set_up(self, world: World) -> None:
        with pytest.raises(InputError, match=r"a\.b"):
            world.store.ensure_index(world.tenant(), world.index(), ["a.b"])
