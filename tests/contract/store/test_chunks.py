"""Records found once, by their best chunk."""

from __future__ import annotations

import numpy as np

from tests.support.vector_store_world import World, batch, meta, slanted, unit


class TestChunks:
    def test_a_record_is_found_once_by_its_best_chunk(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        metas = [meta("1", 0), meta("1", 1), meta("2", 0)]
        world.filled(scope, index, batch(metas, [slanted(0.2), slanted(0.9), slanted(0.5)]))
        hits = world.store.search(scope, index, unit(1), limit=2)
        assert [(hit.record_id, hit.chunk) for hit in hits] == [("1", 1), ("2", 0)]

    def test_long_records_do_not_crowd_out_the_others(self, world: World) -> None:
        """Two records of 150 near chunks each, then eight single-chunk records further off."""
        scope, index = world.tenant(), world.index()
        metas = [meta(f"long{n % 2}", n) for n in range(300)] + [meta(f"short{n}") for n in range(8)]
        near = [slanted(0.99 - n / 10_000) for n in range(300)]
        far = [slanted(0.5 - n / 20) for n in range(8)]
        world.filled(scope, index, batch(metas, near + far))
        assert world.found(scope, index, limit=5) == ["long0", "long1", "short0", "short1", "short2"]
        assert len(world.found(scope, index, limit=100)) == 10

    def test_random_chunks_rank_as_brute_force_does(self, world: World) -> None:
        rng = np.random.default_rng(11)
        scope, index = world.tenant(), world.index()
        owners = rng.integers(0, 30, 400)
        vectors = rng.standard_normal((400, 4)).astype(np.float32)
        metas = [meta(str(owner), chunk) for chunk, owner in enumerate(owners)]
        world.filled(scope, index, batch(metas, list(vectors)))
        cosines = vectors[:, 0] / np.linalg.norm(vectors, axis=1)
        best = {str(owner): max(cosines[owners == owner]) for owner in set(owners)}
        expected = sorted(best, key=lambda record: -best[record])
        for limit in (1, 7, 30):
            assert world.found(scope, index, limit=limit) == expected[:limit]
