"""Edge's files: reopened, made whole, erased, damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge

from ray_app.errors import StoreUnavailable
from ray_app.spaces import EmbeddingSpace
from ray_app.store import edge as edge_module
from ray_app.store import edge_models
from ray_app.store.edge import EdgeStore
from ray_app.store.payload import NewPoint
from ray_app.store.port import IndexKey
from tests.support.edge_store import INDEX, SPACE, fill, shard_path, tenant
from tests.support.vector_store_world import batch, meta, unit


class TestFiles:
    def test_a_reopened_store_holds_what_was_written(self, store: EdgeStore, tmp_path: Path) -> None:
        fill(store, tenant(), "1", "2")
        store.close()
        again = EdgeStore(tmp_path)
        assert {hit.record_id for hit in again.search(tenant(), INDEX, unit(1), limit=5)} == {"1", "2"}
        again.close()

    def test_more_tenants_than_open_shards(self, store: EdgeStore) -> None:
        for number in range(1, 6):
            fill(store, tenant(number), *map(str, range(number)))
        assert [store.count(tenant(number), INDEX) for number in range(1, 6)] == [1, 2, 3, 4, 5]

    def test_a_scroll_goes_on_when_its_shard_is_closed_under_it(self, store: EdgeStore) -> None:
        fill(store, tenant(1), *map(str, range(10)))
        points = store.scroll(tenant(1), INDEX, page=4)
        seen = [next(points).record_id]
        for number in (2, 3):
            fill(store, tenant(number), "1")
        assert sorted([*seen, *(point.record_id for point in points)]) == sorted(map(str, range(10)))

    def test_erase_removes_the_files_and_no_others(self, store: EdgeStore, tmp_path: Path) -> None:
        fill(store, tenant(1), "1")
        fill(store, tenant(2), "1")
        leftover = shard_path(tmp_path, tenant(1)).with_suffix(".0a.new")
        (leftover / "wal").mkdir(parents=True)

        assert store.erase(tenant(1), [SPACE]) == 0

        assert not [path for path in tmp_path.rglob("*") if str(tenant(1).incarnation) in path.name]
        assert store.count(tenant(2), INDEX) == 1

    def test_a_shard_half_made_by_a_crash_is_not_taken_for_one(
        self, store: EdgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def crash(shard: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(edge_models, "create_own_indexes", crash)
            with pytest.raises(KeyboardInterrupt):
                store.ensure_index(tenant(), INDEX, [])
        assert not shard_path(tmp_path, tenant()).exists()
        assert store.count(tenant(), INDEX) == 0
        fill(store, tenant(), "1")
        assert store.count(tenant(), INDEX) == 1

    def test_a_folder_that_cannot_be_made_is_a_clear_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        store = EdgeStore(tmp_path / "file" / "edge")
        with pytest.raises(StoreUnavailable, match=r"Not a directory.*can be written"):
            fill(store, tenant(), "1")
        with pytest.raises(StoreUnavailable, match="ROWBEAM_HOME"):
            store.check()

    def test_a_damaged_shard_is_a_clear_error(self, store: EdgeStore, tmp_path: Path) -> None:
        fill(store, tenant(), "1")
        store.close()
        (config,) = shard_path(tmp_path, tenant()).glob("segments/*/segment.json")
        config.write_text("{")
        with pytest.raises(StoreUnavailable, match="Qdrant Edge failed"):
            store.count(tenant(), INDEX)

    @pytest.mark.parametrize("interrupted", [False, True])
    def test_a_shard_made_before_there_were_words_is_given_room_for_them(
        self, store: EdgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: bool
    ) -> None:
        """Its points are found by meaning as before, and by words from when they are next written."""
        with monkeypatch.context() as earlier:
            earlier.setattr(edge_models, "config", _config_without_words)
            earlier.setattr(edge_models, "add_words", lambda shard, written: None)
            earlier.setattr(edge_models, "point", _point_without_words)
            before = EdgeStore(tmp_path)
            fill(before, tenant(), "1", "2")
            before.close()
        if interrupted:
            shard = qdrant_edge.EdgeShard.load(str(shard_path(tmp_path, tenant())))
            modifier = qdrant_edge.Modifier.Idf
            shard.update(qdrant_edge.UpdateOperation.create_sparse_vector("bm25", modifier=modifier))
            shard.close()

        assert {hit.record_id for hit in store.search(tenant(), INDEX, unit(1), limit=5)} == {"1", "2"}
        assert store.search_words(tenant(), INDEX, "text", limit=5) == []
        fill(store, tenant(), "2", "3")
        assert {hit.record_id for hit in store.search_words(tenant(), INDEX, "text", limit=5)} == {"2", "3"}
        store.close()
        assert len(EdgeStore(tmp_path).search_words(tenant(), INDEX, "text", limit=5)) == 2

    def test_maintenance_builds_a_graph_and_keeps_the_points(
        self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Over 10 MB of vectors, below which the engine builds none."""
        index = IndexKey("issues", "content", EmbeddingSpace("wide", "1", 1536))
        vectors = np.random.default_rng(3).standard_normal((1750, 1536)).astype(np.float32)
        store.ensure_index(tenant(), index, [])
        assert not store.maintain(tenant(2), index)
        store.upsert(tenant(), index, batch([meta(str(n)) for n in range(1750)], list(vectors)))
        before = [hit.record_id for hit in store.search(tenant(), index, vectors[0], limit=20)]
        assert not store.maintain(tenant(), index)

        monkeypatch.setattr(edge_module, "UNINDEXED_POINTS", 1000)
        assert store.maintain(tenant(), index)
        assert not store.maintain(tenant(), index)

        after = [hit.record_id for hit in store.search(tenant(), index, vectors[0], limit=20)]
        assert after[0] == before[0] == "0"
        assert len(set(after) & set(before)) >= 10
        assert store.count(tenant(), index) == 1750


def _config_without_words(space: EmbeddingSpace) -> qdrant_edge.EdgeConfig:
    vector = qdrant_edge.EdgeVectorParams(size=space.dimensions, distance=qdrant_edge.Distance.Cosine)
    graph = qdrant_edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000)
    return qdrant_edge.EdgeConfig(vectors={"dense": vector}, hnsw_config=graph)


def _point_without_words(new: NewPoint) -> qdrant_edge.Point:
    return qdrant_edge.Point(new.point_id, {"dense": new.vector}, new.payload)
