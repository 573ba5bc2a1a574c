"""Filters: what they compile to, and that none leaves without its tenant."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
import qdrant_edge
from qdrant_client import models

from ray_app.errors import InvalidFilter, IsolationViolation
from ray_app.store import edge_models, server_models
from ray_app.store.conditions import MAX_CLAUSES, MAX_VALUES, compile_conditions
from ray_app.store.filters import AllOf, AnyOf, Bounds, Match, Where, require_tenant, translate
from ray_app.store.port import Condition

TENANT = UUID(int=1, version=4)
DIALECTS = [pytest.param(edge_models.DIALECT, id="edge"), pytest.param(server_models.DIALECT, id="server")]


@pytest.mark.parametrize(
    ("op", "value", "clause"),
    [
        ("eq", "a\x00b", Match("d.x", ("ab",))),
        ("eq", True, Match("d.x", (True,))),
        ("eq", 2**53 + 1, Match("d.x", (2**53 + 1,))),
        ("eq", 3, Bounds("d.x", (("gte", 3.0), ("lte", 3.0)))),
        ("in", ["a", "b"], Match("d.x", ("a", "b"))),
        ("in", ["a", False], AnyOf((Match("d.x", ("a",)), Match("d.x", (False,))))),
        ("in", [1.5], Bounds("d.x", (("gte", 1.5), ("lte", 1.5)))),
        ("lt", 2, Bounds("d.x", (("lt", 2.0),))),
        ("gte", "2026-11-23T10:00:00+02:00", Bounds("d.x", (("gte", "2026-11-23T08:00:00+00:00"),))),
        ("gt", "2026-11-23", Bounds("d.x", (("gt", "2026-11-23T00:00:00+00:00"),))),
        ("gt", date(2026, 11, 23), Bounds("d.x", (("gt", "2026-11-23T00:00:00+00:00"),))),
        ("lte", datetime(2026, 1, 1, tzinfo=UTC), Bounds("d.x", (("lte", "2026-01-01T00:00:00+00:00"),))),
    ],
    ids=str,
)
def test_conditions_compile_to_clauses_under_d(op: str, value: Any, clause: Any) -> None:
    assert compile_conditions([Condition("x", op, value)]) == AllOf((clause,))


def test_no_conditions_are_no_clause() -> None:
    assert compile_conditions([]) is None


@pytest.mark.parametrize(
    ("op", "value"),
    [
        ("eq", None),
        ("eq", ["a"]),
        ("eq", {"gte": 1}),
        ("eq", math.nan),
        ("eq", 2**63),
        ("in", "text"),
        ("in", []),
        ("in", ["x"] * (MAX_VALUES + 1)),
        ("in", list(range(MAX_CLAUSES + 1))),
        ("in", [["nested"]]),
        ("in", None),
        ("gt", True),
        ("gt", "yesterday"),
        ("gt", math.inf),
        ("gt", 2**53 + 1),
        ("gt", None),
        ("gt", "0001-01-01T00:00:00+10:00"),
        ("ne", 1),
        ("must_not", 1),
        ("", 1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_compared_is_refused(op: str, value: Any) -> None:
    with pytest.raises(InvalidFilter):
        compile_conditions([Condition("x", op, value)])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_users_conditions_stay_one_nested_condition_beside_the_tenant(dialect: Any) -> None:
    user = compile_conditions([Condition("_t", "eq", "x"), Condition("a", "in", [1, "b"])])
    compiled = translate(Where(TENANT, uuid4(), user=user, without=("r",)), dialect)
    assert [getattr(condition, "key", None) for condition in compiled.must] == ["_p", "_t", None]
    assert not compiled.should
    assert [condition.key for condition in compiled.must_not] == ["pk"]
    assert [getattr(condition, "key", None) for condition in compiled.must[2].must] == ["d._t", None]


@pytest.mark.parametrize("engine", [models, qdrant_edge], ids=["server", "edge"])
def test_a_filter_without_its_tenant_is_refused(engine: Any) -> None:
    def names(key: str, value: str) -> Any:
        return engine.FieldCondition(key=key, match=engine.MatchValue(value=value))

    ours = names("_t", str(TENANT))
    require_tenant(engine.Filter(must=[names("_p", "x"), ours]), TENANT)
    for lax in (
        engine.Filter(),
        engine.Filter(must=[]),
        engine.Filter(should=[ours]),
        engine.Filter(must_not=[ours]),
        engine.Filter(must=[engine.Filter(should=[ours])]),
        engine.Filter(must=[names("_t", str(uuid4()))]),
        engine.Filter(must=[names("d._t", str(TENANT))]),
        None,
    ):
        with pytest.raises(IsolationViolation):
            require_tenant(lax, TENANT)
