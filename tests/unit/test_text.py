"""From rows to texts: rendering, hashing, windows."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ray_app.spaces import EmbeddingSpace, VectorType
from ray_app.tables import DEFAULT_TEXT, TextMode, TextRule
from ray_app.text import Chunk, content_hash, data_hash, payload_of, render, windows

# Postgres knows NaN, but no signalling one.
decimals = st.decimals().filter(lambda number: not number.is_snan())
SPACE = EmbeddingSpace("m", "1", 8)
CONTENT, SUMMARY, METADATA = (DEFAULT_TEXT[kind] for kind in VectorType)


def joined(value: Any) -> str | None:
    return render(TextRule(TextMode.JOIN, ("a",)), {"a": value})


def test_content_joins_what_is_there_in_the_order_of_the_rule() -> None:
    row = {"title": "T", "description": "D", "summary": "S", "content": None, "other": "no"}
    assert render(CONTENT, row) == "S\nD\nT"


def test_summary_is_the_summary_else_the_title() -> None:
    assert render(SUMMARY, {"summary": "S", "title": "T"}) == "S"
    assert render(SUMMARY, {"summary": "  ", "title": "T"}) == "T"


def test_metadata_names_its_fields() -> None:
    row = {"status": "open", "priority": 0, "type": "", "labels": ["bug", "", None, "ui"]}
    assert render(METADATA, row) == "status: open\npriority: 0\nlabels: bug, ui"


@pytest.mark.parametrize("row", [{}, {"title": None}, {"title": " \n\t"}, {"title": "\x00"}, {"other": "x"}])
def test_a_row_without_text_has_none(row: dict[str, Any]) -> None:
    assert all(render(rule, row) is None for rule in (CONTENT, SUMMARY, METADATA))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" padded\n", "padded"),
        ("a\x00b", "ab"),
        (0, "0"),
        (True, "true"),
        (False, "false"),
        (Decimal("1.50"), "1.50"),
        (date(2026, 11, 23), "2026-11-23"),
        (datetime(2026, 11, 23, 10, 5, tzinfo=UTC), "2026-11-23T10:05:00+00:00"),
        (UUID(int=1), str(UUID(int=1))),
        (["x", ["y", 2]], "x, y, 2"),
        ({"k": "v", "n": None}, "k=v, n="),
        ([], None),
        ({}, None),
        (None, None),
    ],
)
def test_values_as_text(value: Any, text: str | None) -> None:
    assert joined(value) == text


@given(st.dictionaries(st.sampled_from(CONTENT.columns), st.none() | st.text(), max_size=4))
def test_rendered_text_is_stripped_and_holds_every_value(row: dict[str, Any]) -> None:
    text = render(CONTENT, row)
    values = [value.replace("\x00", "").strip() for value in row.values() if value]
    assert (text is None) == (not any(values))
    if text is not None:
        assert text == text.strip()
        assert "\x00" not in text
        assert all(value in text for value in values)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.dates() | decimals | st.floats(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_a_payload_is_json_without_nulls(row: dict[str, Any]) -> None:
    payload = payload_of(list(row), row)
    assert json.loads(json.dumps(payload, allow_nan=False)) == payload
    assert None not in payload.values()
    missing = {name: value for name, value in row.items() if name not in payload}
    assert all(value is None or not math.isfinite(value) for value in missing.values())


def test_a_payload_keeps_types_that_filters_compare() -> None:
    row = {"n": 3, "price": Decimal("1.5"), "open": True, "labels": ["a", None], "day": date(2026, 1, 2)}
    assert payload_of([*row, "absent"], row) == {
        "n": 3,
        "price": 1.5,
        "open": True,
        "labels": ["a"],
        "day": "2026-01-02",
    }


def test_a_snippet_is_the_beginning() -> None:
    assert Chunk("x" * 600, 100).snippet == "x" * 500
    assert Chunk("short", 1).snippet == "short"


@given(st.text(), st.text(), st.text(), st.text())
def test_hashes_differ_when_the_text_or_the_chunker_does(a: str, b: str, c: str, d: str) -> None:
    assume((a, b) != (c, d))
    assert content_hash(a, SPACE, b) != content_hash(c, SPACE, d)


def test_a_hash_says_text_space_and_chunker() -> None:
    base = content_hash("text", SPACE, "words:1")
    assert len(base) == 32
    assert base == content_hash("text", SPACE, "words:1")
    assert base != content_hash("text", EmbeddingSpace("m", "2", 8), "words:1")
    # Parts are length-prefixed: what moves from one to the next is seen.
    assert content_hash("1text", SPACE, "words:") != base
    assert content_hash("\ud800", SPACE, "words:1") != base


scalars = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
payloads = st.dictionaries(st.text(max_size=5), scalars | st.lists(scalars, max_size=3), max_size=5)


@given(payloads, st.randoms())
def test_a_data_hash_knows_no_order_of_columns_and_survives_json(
    data: dict[str, Any], random: Random
) -> None:
    columns = list(data)
    random.shuffle(columns)
    digest = data_hash(data)
    assert len(digest) == 16
    assert digest == data_hash({name: data[name] for name in columns})
    assert digest == data_hash(json.loads(json.dumps(data)))


@given(payloads, payloads)
def test_data_hashes_differ_when_the_data_does(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (data_hash(one) == data_hash(other)) == (repr(sorted(one.items())) == repr(sorted(other.items())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"a": ""}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": "b"}, {"a": ["b"]}),
        ({"a": ["b", "c"]}, {"a": ["c", "b"]}),
        ({"a": "x", "b": "y"}, {"a": "y", "b": "x"}),
    ],
)
def test_a_data_hash_tells_what_filters_tell(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert data_hash(one) != data_hash(other)


@given(st.integers(0, 2000), st.integers(1, 300), st.data())
def test_windows_cover_every_token(length: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    spans = windows(length, size, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(end - start <= size for start, end in spans)
    for (start, end), (following, last) in pairwise(spans):
        assert start < following == end - overlap
        assert last > end, "no window lies inside the one before"


@pytest.mark.parametrize(("size", "overlap"), [(10, 10), (10, 11), (10, -1)])
def test_windows_that_would_not_move_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        windows(100, size, overlap)
