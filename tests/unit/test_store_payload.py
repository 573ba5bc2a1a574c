"""Stamping, cleaning and cutting of points."""

from __future__ import annotations

import json
import math
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.errors import InputError, IsolationViolation
from ray_app.identity import partition_id, point_id
from ray_app.spaces import EmbeddingSpace
from ray_app.store import payload
from ray_app.store.payload import Found, NewPoint, clean_data, clean_text
from ray_app.store.port import IndexKey, PointBatch, PointMeta
from ray_app.store.sizing import WRITE_BYTES, WRITE_POINTS, sub_batches
from ray_app.store.words import WordVector
from ray_app.tenants import Placement, TenantScope

SCOPE = TenantScope(UUID(int=1, version=4), Placement.EMBEDDED, b"secret")
INDEX = IndexKey("issues", "summary", EmbeddingSpace("model", "1", 2))
META = PointMeta("7", 3, "snippet", "hash", "local", "2026-11-23T10:00:00+00:00", {"status": "open"})


def test_a_stamped_point_says_everything_once() -> None:
    (point,) = payload.stamp(SCOPE, INDEX, PointBatch([META], np.ones((1, 2), np.float32), 9))
    assert point.point_id == str(point_id(b"secret", SCOPE.incarnation, "issues", "summary", "7", 3))
    assert point.vector == [1.0, 1.0]
    assert point.payload == {
        "_t": str(SCOPE.incarnation),
        "_p": str(partition_id(b"secret", SCOPE.incarnation, "issues", "summary")),
        "_v": 9,
        "_h": "hash",
        "pk": "7",
        "c": 3,
        "vt": "summary",
        "text": "snippet",
        "at": "2026-11-23T10:00:00+00:00",
        "provider": "local",
        "model": "model",
        "d": {"status": "open"},
    }


@pytest.mark.parametrize("record_id", ["a\x00", "\ud800"])
def test_a_record_id_that_would_name_another_once_cleaned_is_refused(record_id: str) -> None:
    with pytest.raises(InputError, match="record id"):
        payload.point_key(SCOPE, INDEX, record_id, 0)


@given(st.text(st.characters(exclude_categories=())))
def test_cleaned_text_survives_json_and_utf8_and_cleaning_again(text: str) -> None:
    cleaned = clean_text(text)
    assert "\x00" not in cleaned
    assert json.loads(json.dumps(cleaned).encode()) == cleaned
    assert clean_text(cleaned) == cleaned
    if "\x00" not in text and text.isprintable():
        assert cleaned == text


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (True, True),
        (2**63 - 1, 2**63 - 1),
        (2**63, str(2**63)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (1.5, 1.5),
        ([1, "a\x00", None, math.nan, True], [1, "a", True]),
        (("x",), ["x"]),
    ],
)
def test_values_become_what_every_engine_takes(value: Any, stored: Any) -> None:
    (cleaned,) = clean_data({"x": value}).values()
    assert cleaned == stored
    assert type(cleaned) is type(stored)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_values_json_lacks_are_left_out(value: Any) -> None:
    assert clean_data({"x": value, "y": 1}) == {"y": 1}


@pytest.mark.parametrize("value", [{"a": 1}, b"bytes", object(), [{"a": 1}]])
def test_values_that_are_no_scalars_are_refused_by_name(value: Any) -> None:
    with pytest.raises(InputError, match="'column'"):
        clean_data({"column": value})


@given(
    st.lists(st.integers(0, 400_000), max_size=60).map(
        lambda sizes: [NewPoint(str(n), [0.0], None, {"text": "x" * size}) for n, size in enumerate(sizes)]
    )
)
def test_sub_batches_keep_order_and_limits(points: list[NewPoint]) -> None:
    parts = list(sub_batches(points))
    assert [point for part in parts for point in part] == points
    for part in parts:
        assert 1 <= len(part) <= WRITE_POINTS
        assert len(part) == 1 or sum(point.wire_bytes for point in part) <= WRITE_BYTES


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=30)),
    st.lists(st.floats(width=32), max_size=5),
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.floats(0, 2.2)), max_size=20),
)
def test_the_estimate_of_a_points_size_is_an_upper_bound_of_its_text(
    data: dict[str, str], vector: list[float], words: list[tuple[int, float]]
) -> None:
    sparse = WordVector([number for number, _ in words], [weight for _, weight in words])
    point = NewPoint("id", vector, sparse, data)
    text = "".join([*data, *data.values()])
    numbers = sum(len(repr(x)) for x in vector) * 0.8 + sum(len(f"{n},{x},") for n, x in words)
    assert point.wire_bytes >= len(text.encode("utf-8", "replace")) + numbers


@pytest.mark.parametrize(
    "foreign", [{"_t": "another"}, {}, {"_t": None}, {"d": {"_t": str(SCOPE.incarnation)}}]
)
def test_the_result_wall_lets_nothing_past_that_is_not_the_tenants(foreign: dict[str, Any]) -> None:
    own = Found("1", {"_t": str(SCOPE.incarnation)})
    payload.check_tenant(SCOPE, [own, own])
    with pytest.raises(IsolationViolation, match="1 of 2"):
        payload.check_tenant(SCOPE, [own, Found("2", foreign)])
