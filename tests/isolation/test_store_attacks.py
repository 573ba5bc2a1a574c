"""One tenant's scope against another's points, call by call, past everything that HTTP would refuse."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from ray_app.errors import InputError, IsolationViolation
from ray_app.store import edge, payload, server
from ray_app.store.port import Condition, DataChange, IndexKey, PointBatch, PointMeta
from ray_app.tenants import Placement, TenantScope
from tests.contract.store.conftest import edge_world, server_world
from tests.isolation.attacks import INJECTIONS, RESERVED
from tests.support.vector_store_world import World, meta

ROUND = 50
ROUNDS = {"edge": 60, "pooled": 60, "dedicated": 20}
IDS = ("1", "2", "3", "only-theirs", *INJECTIONS)
TABLES = ("issues", "issue", "issues_", "users")


@dataclass
class Twins:
    """A store with two tenants of the same rows; the second has one more."""

    kind: str
    world: World
    ours: TenantScope
    theirs: TenantScope


@contextmanager
def twins_in(kind: str, root: Path) -> Iterator[Twins]:
    local = QdrantClient(":memory:")
    world = edge_world(root) if kind == "edge" else server_world(local, Placement(kind))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Payload indexes have no effect in the local Qdrant")
        twins = Twins(kind, world, world.tenant(), world.tenant())
        for scope, word, ids in (
            (twins.ours, "ours", "123"),
            (twins.theirs, "theirs", (*"123", "only-theirs")),
        ):
            for table in TABLES:
                fill(world, scope, world.index(table), [meta(record, 0, word, owner=word) for record in ids])
        yield twins
    world.store.close()


def fill(world: World, scope: TenantScope, index: IndexKey, metas: list[PointMeta]) -> None:
    world.store.ensure_index(scope, index, ["owner"])
    vectors = np.random.default_rng(3).standard_normal((len(metas), 4)).astype(np.float32)
    world.store.upsert(scope, index, PointBatch(metas, vectors, 1))


def is_theirs(vector: np.ndarray[Any, Any]) -> bool:
    """Whether it is the one that ``only-theirs`` was stored with."""
    theirs = np.random.default_rng(3).standard_normal((4, 4)).astype(np.float32)[3]
    return bool(np.allclose(vector, theirs / np.linalg.norm(theirs), atol=1e-5))


def view(world: World, scope: TenantScope) -> list[Any]:
    """Everything a tenant has in the store, scores included."""
    seen: list[Any] = []
    for table in TABLES:
        index = world.index(table)
        hits = world.store.search(scope, index, np.ones(4, np.float32), limit=50)
        words = world.store.search_words(scope, index, "theirs ours", limit=50)
        points = sorted(world.store.scroll(scope, index), key=lambda point: point.point_id)
        # The local double multiplies whole matrices, whose size moves the last bit of a score.
        seen += [
            [(hit.record_id, hit.snippet, round(hit.score, 5), hit.data) for hit in (*hits, *words)],
            points,
        ]
    return seen


CONDITIONS = st.lists(
    st.builds(
        Condition,
        st.sampled_from((*RESERVED, "owner", "status")),
        st.sampled_from(("eq", "in", "gt", "lte", "ne")),
        st.sampled_from(("theirs", "ours", 1, True, ["theirs", "ours"], [], 0.5, *INJECTIONS[:4])),
    ),
    max_size=3,
)
CALLS = st.tuples(
    st.sampled_from(
        (
            "search",
            "search_words",
            "vectors_of",
            "stored_vectors",
            "upsert",
            "set_data",
            "delete",
            "count",
            "scroll",
        )
    ),
    st.sampled_from((*TABLES, *INJECTIONS)),
    st.sampled_from(IDS),
    CONDITIONS,
    st.integers(0, 2**53 - 1),
    st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4),
)


def attempt(world: World, scope: TenantScope, call: tuple[Any, ...]) -> None:
    """One call with our scope; whatever comes back must be ours."""
    method, table, record, conditions, version, components = call
    store, index, vector = world.store, world.index(table), np.array(components, np.float32)
    found: list[Any] = []
    match method:
        case "search":
            found = store.search(scope, index, vector, limit=50, conditions=conditions)
        case "search_words":
            found = store.search_words(scope, index, "theirs ours text", limit=50, conditions=conditions)
        case "vectors_of":
            if record == "only-theirs":  # ours may have it too by now, with a vector of its own
                assert not any(is_theirs(row) for row in store.vectors_of(scope, index, record))
        case "stored_vectors":
            if record == "only-theirs":
                stored = store.stored_vectors(scope, index, [(record, 0), (record, 1)])
                assert not any(is_theirs(point.vector) for point in stored.values())
        case "upsert":
            mine = PointMeta(record, 0, "ours", "h", "p", "2026-11-23T10:00:00+00:00", {"owner": "ours"})
            store.ensure_index(scope, index, [])
            store.upsert(scope, index, PointBatch([mine], vector[None], version))
        case "set_data":
            store.set_data(scope, index, [DataChange(record, 2, {"owner": "ours"})], version)
        case "delete":
            store.delete(scope, index, [(record, 0), (record, 1)])
        case "count":
            assert store.count(scope, index) <= len(IDS)
        case "scroll":
            assert {point.record_id for point in store.scroll(scope, index)} <= set(IDS)
    assert {hit.snippet for hit in found} <= {"ours"}


def storm(twins: Twins) -> int:
    """Rounds of calls with our scope; answers how many."""
    attempts = 0

    @settings(
        max_examples=ROUNDS[twins.kind],
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(CALLS, min_size=ROUND, max_size=ROUND))
    def rounds_of(calls: list[tuple[Any, ...]]) -> None:
        nonlocal attempts
        for call in calls:
            attempts += 1
            try:
                attempt(twins.world, twins.ours, call)
            except InputError:
                continue  # refused, with a reason

    rounds_of()
    return attempts


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ROUNDS)
def test_no_call_reaches_the_twin(kind: str, tmp_path: Path) -> None:
    with twins_in(kind, tmp_path) as twins:
        before = view(twins.world, twins.theirs)
        assert storm(twins) >= ROUND * ROUNDS[kind] * 0.95
        assert view(twins.world, twins.theirs) == before


def test_the_suite_sees_a_store_without_walls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a shared collection: tenants of the other placements have no file in common."""
    with twins_in("pooled", tmp_path) as twins:
        before = view(twins.world, twins.theirs)
        for adapter in (edge, server):
            monkeypatch.setattr(adapter, "translate", lambda where, dialect: dialect.all_and_none([], []))
        with pytest.raises(IsolationViolation):  # the result wall alone still stands
            storm(twins)
        monkeypatch.setattr(payload, "check_tenant", lambda scope, found: None)
        with pytest.raises(AssertionError):
            storm_unseen(twins, before)


def storm_unseen(twins: Twins, before: list[Any]) -> None:
    storm(twins)
    assert view(twins.world, twins.theirs) == before
