"""``--filter`` arguments: what they mean, and that whatever they give can be compiled by the store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.cli.filters import parse_filters
from ray_app.errors import InvalidFilter
from ray_app.store.conditions import compile_conditions
from ray_app.store.port import Condition


@pytest.mark.parametrize(
    ("argument", "condition"),
    [
        ("status=Done", Condition("status", "eq", "Done")),
        ("status = in review ", Condition("status", "eq", "in review")),
        ("repository=encode/httpx", Condition("repository", "eq", "encode/httpx")),
        ("title=a=b>=c", Condition("title", "eq", "a=b>=c")),
        ("points=5", Condition("points", "in", [5, "5"])),
        ("points=-2.50", Condition("points", "in", [-2.5, "-2.50"])),
        ("flag=true", Condition("flag", "in", [True, "true"])),
        ('points="5"', Condition("points", "eq", "5")),
        ("flag='true'", Condition("flag", "eq", "true")),
        ('name=""', Condition("name", "eq", "")),
        ("version=1.2.3", Condition("version", "eq", "1.2.3")),
        ("name=nan", Condition("name", "eq", "nan")),
        ("name=1_000", Condition("name", "eq", "1_000")),
        ("points>=5", Condition("points", "gte", 5)),
        ("points>5", Condition("points", "gt", 5)),
        ("points<=1e3", Condition("points", "lte", 1000.0)),
        ("points<-1", Condition("points", "lt", -1)),
        ("created_at>=2026-01-01", Condition("created_at", "gte", "2026-01-01")),
        ("created_at<2026-01-01T10:00:00+02:00", Condition("created_at", "lt", "2026-01-01T10:00:00+02:00")),
    ],
)
def test_an_argument_means(argument: str, condition: Condition) -> None:
    (parsed,) = parse_filters([argument])
    assert parsed == condition
    assert [type(item) for item in _values(parsed)] == [type(item) for item in _values(condition)]
    assert compile_conditions([parsed]) is not None


def _values(condition: Condition) -> list[object]:
    return condition.value if isinstance(condition.value, list) else [condition.value]


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("", "is not a filter"),
        ("status", "is not a filter"),
        ("=Done", "is not a filter"),
        ("two words=1", "is not a filter"),
        ("status=", "has no value"),
        ("points>=", "has no value"),
        ("status!=Done", "asks for what is not so"),
        ("flag>=true", "compares by size"),
    ],
)
def test_what_is_no_filter_is_refused(argument: str, complaint: str) -> None:
    with pytest.raises(InvalidFilter, match=complaint):
        parse_filters([argument])


def test_all_filters_are_kept_in_order() -> None:
    parsed = parse_filters(["a=x", "b>=1", "b<9"])
    assert [(condition.field, condition.op) for condition in parsed] == [
        ("a", "eq"),
        ("b", "gte"),
        ("b", "lt"),
    ]
    assert parse_filters([]) == []


@given(st.text(min_size=1))
def test_any_quoted_text_stays_that_text(value: str) -> None:
    assert parse_filters([f'name="{value}"']) == [Condition("name", "eq", value)]


@given(st.text())
def test_any_argument_is_a_filter_or_refused(argument: str) -> None:
    try:
        parsed = parse_filters([argument])
    except InvalidFilter:
        return
    assert len(parsed) == 1
