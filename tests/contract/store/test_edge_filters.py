"""What filters mean, against an oracle in plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.store.edge import EdgeStore
from ray_app.store.port import Condition
from tests.support.edge_store import INDEX, tenant
from tests.support.vector_store_world import batch, meta, unit

NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.0, 0.5, 1.0, -2.0, 2.5]))
START = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.integers(-3, 3).map(lambda hours: (START + timedelta(hours=hours)).isoformat())
TEXTS = st.one_of(st.sampled_from(["", "a", "b", "1", "true"]), TIMES)
MIXED = st.one_of(st.booleans(), NUMBERS, TEXTS)
COLUMN = st.one_of(MIXED, st.lists(MIXED, max_size=3))
ROW = st.fixed_dictionaries({}, optional={"x": COLUMN, "y": COLUMN})
NAMES = st.sampled_from("xy")
CONDITION = st.one_of(
    st.tuples(NAMES, st.just("eq"), MIXED),
    st.tuples(NAMES, st.just("in"), st.lists(MIXED, min_size=1, max_size=4)),
    st.tuples(NAMES, st.sampled_from(["gt", "gte", "lt", "lte"]), st.one_of(NUMBERS, TIMES)),
)


def meets(row: dict[str, Any], condition: tuple[str, str, Any]) -> bool:
    """What a condition means, in plain Python."""
    name, op, wanted = condition
    value = row.get(name)
    items = value if isinstance(value, list) else [] if value is None else [value]
    return any(_compare(item, op, wanted) for item in items)


def _compare(item: Any, op: str, wanted: Any) -> bool:
    if op == "in":
        return any(_compare(item, "eq", one) for one in wanted)
    if op == "eq":
        return isinstance(item, bool) == isinstance(wanted, bool) and item == wanted
    if isinstance(wanted, str):
        try:
            item, wanted = datetime.fromisoformat(item), datetime.fromisoformat(wanted)
        except (TypeError, ValueError):
            return False
    elif isinstance(item, bool | str):
        return False
    return bool({"gt": item > wanted, "gte": item >= wanted, "lt": item < wanted, "lte": item <= wanted}[op])


@pytest.fixture(scope="module")
def oracle_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeStore]:
    store = EdgeStore(tmp_path_factory.mktemp("oracle"))
    store.ensure_index(tenant(), INDEX, ["x"])
    yield store
    store.close()


@settings(max_examples=150)
@given(rows=st.lists(ROW, min_size=1, max_size=6), conditions=st.lists(CONDITION, max_size=3))
def test_filters_mean_what_they_mean_in_python(
    oracle_store: EdgeStore, rows: list[dict[str, Any]], conditions: list[tuple[str, str, Any]]
) -> None:
    """On columns of mixed types too, x being indexed and y not."""
    oracle_store.drop_index(tenant(), INDEX)
    metas = [meta(str(n), **row) for n, row in enumerate(rows)]
    oracle_store.upsert(tenant(), INDEX, batch(metas, [unit(1)] * len(rows)))

    compiled = [Condition(*condition) for condition in conditions]
    hits = oracle_store.search(tenant(), INDEX, unit(1), limit=10, conditions=compiled)

    expected = {str(n) for n, row in enumerate(rows) if all(meets(row, c) for c in conditions)}
    assert {hit.record_id for hit in hits} == expected
