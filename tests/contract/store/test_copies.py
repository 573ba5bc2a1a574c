"""Whole points, read in one place and written in another: all but their ids and their tenant comes along."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ray_app.errors import InputError
from ray_app.store.port import PointCopy
from tests.support.vector_store_world import World, batch, copied, meta, slanted, unit

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
#: Floats of few digits: Edge reads long ones to within their last digit.
DATA = st.dictionaries(
    TEXTS.map(lambda name: f"d{name}"),
    st.one_of(
        TEXTS,
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False, width=16),
    ),
    max_size=3,
)


def said(copy: PointCopy) -> tuple[object, ...]:
    """All that a copy says, whoever's it is."""
    return (
        *(copy.record_id, copy.chunk, copy.version, copy.content_hash, copy.snippet, copy.provider),
        *(copy.embedded_at, dict(copy.data), copy.vector.round(6).tolist(), copy.words),
    )


def everything(world: World, scope, index) -> list[PointCopy]:  # type: ignore[no-untyped-def]
    return sorted(world.store.copies_after(scope, index, None, 100), key=lambda it: (it.record_id, it.chunk))


def test_a_copy_is_found_as_its_original_is(world: World) -> None:
    theirs, ours, index = world.tenant(), world.tenant(), world.index()
    metas = [
        replace(meta("1", chunk, f"disk full on host{chunk}"), data={"status": "open"}) for chunk in (0, 1)
    ]
    world.filled(theirs, index, batch([*metas, meta("2")], [unit(1), slanted(0.4), unit(0, 1)], 7))
    world.store.ensure_index(ours, index, [])

    world.store.write_copies(ours, index, world.store.copies_after(theirs, index, None, 100))

    assert list(map(said, everything(world, ours, index))) == list(
        map(said, everything(world, theirs, index))
    )
    assert world.store.search(ours, index, unit(1), limit=9) == world.store.search(
        theirs, index, unit(1), limit=9
    )
    (hit,) = world.store.search_words(ours, index, "host1", limit=9)
    assert (hit.record_id, hit.chunk) == ("1", 1)
    ids = [{copy.point_id for copy in everything(world, scope, index)} for scope in (ours, theirs)]
    assert not ids[0] & ids[1], "each tenant has ids of its own"


def test_pages_go_by_ascending_id_and_end(world: World) -> None:
    scope, index = world.tenant(), world.index()
    world.filled(scope, index, batch([meta(str(n)) for n in range(25)], [unit(1, n / 25) for n in range(25)]))
    seen: list[UUID] = []
    while page := world.store.copies_after(scope, index, seen[-1] if seen else None, 10):
        seen += [copy.point_id for copy in page]
    assert len(seen) == 25
    assert seen == sorted(seen, key=lambda point_id: point_id.int)
    assert world.store.copies_after(scope, index, UUID(int=2**128 - 1), 10) == []
    for limit in (0, 1_001):
        with pytest.raises(InputError, match="Pages"):
            world.store.copies_after(scope, index, None, limit)


def test_copies_of_keys_are_the_tenants_own(world: World) -> None:
    scope, other, index = world.tenant(), world.tenant(), world.index()
    for tenant in (scope, other):
        world.filled(tenant, index, batch([meta("1"), meta("2")], [unit(1), unit(0, 1)]))
    found = world.store.copies_of(scope, index, [("2", 0), ("2", 1), ("9", 0)])
    assert [copy.record_id for copy in found] == ["2"]
    assert world.store.copies_of(scope, world.index("projects"), [("2", 0)]) == []
    assert world.store.copies_of(scope, index, []) == []


def test_a_copy_replaces_what_is_there_whatever_its_version(world: World) -> None:
    scope, index = world.tenant(), world.index()
    world.filled(scope, index, batch([meta("1")], [unit(1)], 9))
    world.store.write_copies(scope, index, [copied("1", unit(0, 1), version=3)])
    (copy,) = everything(world, scope, index)
    assert (copy.version, copy.vector.tolist(), copy.words) == (3, unit(0, 1).tolist(), None)
    world.store.write_copies(scope, index, [])
    with pytest.raises(InputError, match="NaN"):
        world.store.write_copies(scope, index, [copied("1", np.full(4, np.nan, np.float32))])


@given(text=TEXTS, data=DATA, version=st.integers(0, 2**53 - 1))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_point_says_comes_along(world: World, text: str, data: dict, version: int) -> None:
    theirs, ours, index = world.tenant(), world.tenant(), world.index()
    point = replace(meta("1", 0, text), data=data, provider=text)
    world.filled(theirs, index, batch([point], [unit(1)], version))
    world.store.ensure_index(ours, index, [])
    world.store.write_copies(ours, index, everything(world, theirs, index))
    (copy,), (original,) = everything(world, ours, index), everything(world, theirs, index)
    assert said(copy) == said(original)
    assert (copy.snippet, dict(copy.data), copy.version) == (text, data, version)
