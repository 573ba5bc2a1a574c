"""New payload columns on their way to an engine."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.identity import point_id
from ray_app.spaces import EmbeddingSpace
from ray_app.store import server_models
from ray_app.store.conditions import MAX_VALUES
from ray_app.store.payload import partition_of
from ray_app.store.port import DataChange, IndexKey
from ray_app.store.updates import stamp_data
from ray_app.tenants import Placement, TenantScope

SCOPE = TenantScope(UUID(int=1, version=4), Placement.POOLED, b"secret")
INDEX = IndexKey("issues", "summary", EmbeddingSpace("model", "1", 2))


@pytest.mark.parametrize("chunks", [[], [0], [1, 3], [1000], [1001, 2], [2500]], ids=str)
def test_updates_name_every_chunk_once_in_conditions_that_a_server_takes(chunks: list[int]) -> None:
    updates = stamp_data(SCOPE, INDEX, [DataChange(str(n), size, {}) for n, size in enumerate(chunks)], 9)
    ids = [update.where.ids or () for update in updates]
    assert all(1 <= len(part) <= MAX_VALUES for part in ids)
    assert [point for part in ids for point in part] == [
        str(point_id(b"secret", SCOPE.incarnation, "issues", "summary", str(n), chunk))
        for n, size in enumerate(chunks)
        for chunk in range(size)
    ]
    for update in updates:
        where = update.where
        assert (where.tenant, where.partition) == (SCOPE.incarnation, partition_of(SCOPE, INDEX))
        assert where.max_version == 9


#: Control characters, six bytes each in JSON, are what "rough" means in the estimate.
texts = st.text(st.characters(exclude_categories=("C",)), max_size=30)


@given(st.integers(1, 30), st.dictionaries(texts, texts | st.integers(-999_999, 999_999)))
def test_the_estimate_of_an_updates_size_is_an_upper_bound(chunks: int, data: dict[str, str | int]) -> None:
    (update,) = stamp_data(SCOPE, INDEX, [DataChange("1", chunks, data)], 2**53 - 1)
    request = server_models.set_payload(update).model_dump_json(exclude_none=True)
    assert update.wire_bytes >= len(request.encode())
