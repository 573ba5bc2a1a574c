"""Spaces: what makes two vectors comparable, and how one is chosen."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.spaces import BATCH_SIZE, EmbeddingSpace, Preference, preference_for

SPACE = EmbeddingSpace("org/model", "0123456789ab", 384)
spaces = st.builds(
    EmbeddingSpace,
    model=st.text(max_size=20),
    revision=st.text(max_size=12),
    dimensions=st.integers(1, 4096),
    normalized=st.booleans(),
    document_prefix=st.text(max_size=10),
    query_prefix=st.text(max_size=10),
    max_tokens=st.integers(1, 8192),
)


@pytest.mark.parametrize(
    ("rows", "preference", "batch"),
    [
        (0, Preference.QUALITY, 100),
        (10_000, Preference.QUALITY, 100),
        (10_001, Preference.BALANCED, 150),
        (50_000, Preference.BALANCED, 150),
        (50_001, Preference.FAST, 200),
        (10**9, Preference.FAST, 200),
    ],
)
def test_the_size_of_a_table_chooses(rows: int, preference: Preference, batch: int) -> None:
    assert preference_for(rows) is preference
    assert BATCH_SIZE[preference] == batch


@given(st.integers(0, 10**7), st.sampled_from(Preference))
def test_what_is_asked_for_wins(rows: int, asked: Preference) -> None:
    assert preference_for(rows, asked) is asked


@given(st.lists(st.integers(0, 100_000), min_size=2, max_size=2))
def test_a_larger_table_is_never_embedded_slower(rows: list[int]) -> None:
    small, large = (BATCH_SIZE[preference_for(size)] for size in sorted(rows))
    assert small <= large


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "org/other"},
        {"revision": "ba9876543210"},
        {"dimensions": 385},
        {"normalized": False},
        {"document_prefix": "passage: "},
        {"query_prefix": "query: "},
    ],
)
def test_what_changes_vectors_changes_the_space(changes: dict[str, object]) -> None:
    assert replace(SPACE, **changes).space_id != SPACE.space_id


def test_every_field_but_the_window_was_tried_above() -> None:
    tried = {"model", "revision", "dimensions", "normalized", "document_prefix", "query_prefix"}
    assert {field.name for field in fields(SPACE)} == tried | {"max_tokens"}
    assert replace(SPACE, max_tokens=100).space_id == SPACE.space_id


@given(spaces)
def test_a_space_survives_json(space: EmbeddingSpace) -> None:
    back = EmbeddingSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert back == space
    assert back.space_id == space.space_id
    assert len(space.space_id) == 12


@given(spaces, spaces)
def test_prefixes_are_not_confused(first: EmbeddingSpace, second: EmbeddingSpace) -> None:
    same = replace(first, max_tokens=1) == replace(second, max_tokens=1)
    assert (first.space_id == second.space_id) == same


def test_stored_space_ids_do_not_change() -> None:
    assert SPACE.space_id == "42b4e62635e3"
