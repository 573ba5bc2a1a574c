"""A record's own vectors, read back for "more like this"."""

from __future__ import annotations

import numpy as np
import pytest

from ray_app.errors import InputError
from tests.support.vector_store_world import World, batch, meta, slanted, unit


class TestVectorsOf:
    def test_the_vectors_come_by_chunk_and_of_length_one(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        metas = [meta("1", 1), meta("2", 0), meta("1", 2), meta("1", 0)]
        vectors = [slanted(0.2) * 3, unit(0, 0, 1), slanted(0.9), unit(0, 5)]
        world.filled(scope, index, batch(metas, vectors))

        own = world.store.vectors_of(scope, index, "1")

        assert (own.shape, own.dtype) == ((3, 4), np.float32)
        assert own == pytest.approx(np.array([unit(0, 1), slanted(0.2), slanted(0.9)]), abs=1e-6)

    def test_a_long_record_comes_whole(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        cosines = [n / 200 for n in range(150)]
        metas = [meta("long", chunk) for chunk in range(150)]
        world.filled(scope, index, batch(metas, [slanted(cosine) for cosine in cosines]))
        assert world.store.vectors_of(scope, index, "long")[:, 0] == pytest.approx(cosines, abs=1e-6)

    def test_what_is_not_there_has_no_vectors(self, world: World) -> None:
        scope, index = world.tenant(), world.index()
        assert world.store.vectors_of(scope, index, "1").shape == (0, 4)
        world.filled(scope, index, batch([meta("1")], [unit(1)]))
        for other in (world.index("issues", "summary"), world.index("projects", "content")):
            assert world.store.vectors_of(scope, other, "1").shape == (0, 4)
        assert world.store.vectors_of(scope, index, "2").shape == (0, 4)
        assert world.store.vectors_of(world.tenant(), index, "1").shape == (0, 4)

    def test_a_record_id_that_could_not_have_been_stored_is_refused(self, world: World) -> None:
        with pytest.raises(InputError, match="record id"):
            world.store.vectors_of(world.tenant(), world.index(), "1\x00")
