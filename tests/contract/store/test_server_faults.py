"""The server adapter against HTTP answers that a healthy server does not give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from ray_app.errors import StoreRefused, StoreUnavailable
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import DataChange, IndexKey
from ray_app.store.server import ServerStore
from ray_app.tenants import Placement, TenantScope
from tests.support.scripted_qdrant import Answer, ScriptedServer, collection_info
from tests.support.vector_store_world import DIMENSIONS, SECRET, batch, meta, unit

SPACE = EmbeddingSpace("test", "1", DIMENSIONS)
INDEX = IndexKey("issues", "content", SPACE)
ALIAS = f"es_{SPACE.space_id}"
KEY = "a-key-that-must-not-be-told"
POINTS = rf"PUT /collections/{ALIAS}/points\?"
BATCH = rf"POST /collections/{ALIAS}/points/batch\?"
APPLIED = {"operation_id": 1, "status": "completed"}


@pytest.fixture
def qdrant() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def store(qdrant: ScriptedServer) -> Iterator[ServerStore]:
    made = ServerStore.connect(qdrant.url, retry_budget=2.0)
    yield made
    made.close()


def tenant(placement: Placement = Placement.POOLED) -> TenantScope:
    return TenantScope(uuid4(), placement, SECRET)


def write(store: ServerStore, scope: TenantScope | None = None) -> None:
    store.upsert(scope or tenant(), INDEX, batch([meta("1")], [unit(1)], version=7))


def test_a_write_waits_names_its_tenant_and_guards_its_version(
    qdrant: ScriptedServer, store: ServerStore
) -> None:
    scope = tenant()
    write(store, scope)
    (request,) = qdrant.sent(POINTS)
    assert "wait=true" in request.line
    assert "ordering=medium" in request.line
    (point,) = request.body["points"]
    assert point["payload"]["_t"] == str(scope.incarnation)
    assert [condition["key"] for condition in request.body["update_filter"]["must"]] == ["_t", "_v"]
    tenant_condition, version_condition = request.body["update_filter"]["must"]
    assert tenant_condition["match"] == {"value": str(scope.incarnation)}
    assert version_condition["range"]["lte"] == 7


@pytest.mark.parametrize(
    ("erase", "keys"), [(False, ["_p", "_t", None]), (True, ["_t"])], ids=["delete", "erase"]
)
def test_every_delete_names_its_tenant(
    qdrant: ScriptedServer, store: ServerStore, erase: bool, keys: list[str | None]
) -> None:
    qdrant.will(".*/points/scroll", Answer(result={"points": [], "next_page_offset": None}))
    scope = tenant()
    if erase:
        assert store.erase(scope, [SPACE]) == 0
    else:
        store.delete(scope, INDEX, [("1", 0)])
    (request,) = qdrant.sent(rf"POST /collections/{ALIAS}/points/delete")
    assert "wait=true" in request.line
    assert [condition.get("key") for condition in request.body["filter"]["must"]] == keys


def test_new_columns_are_one_request_that_names_its_tenant_and_guards_its_version(
    qdrant: ScriptedServer, store: ServerStore
) -> None:
    qdrant.will(BATCH, Answer(result=[APPLIED, APPLIED]))
    scope = tenant()
    store.set_data(scope, INDEX, [DataChange("1", 2, {"status": "done"}), DataChange("2", 1, {})], 7)
    (request,) = qdrant.sent(BATCH)
    assert "wait=true" in request.line
    assert "ordering=medium" in request.line
    first, second = (operation["set_payload"] for operation in request.body["operations"])
    assert first["payload"] == {"_v": 7, "d": {"status": "done"}}
    assert second["payload"] == {"_v": 7, "d": {}}
    assert [len(change["filter"]["must"][2]["has_id"]) for change in (first, second)] == [2, 1]
    for change in (first, second):
        assert "points" not in change, "an id alone would reach anyone's point"
        assert [condition.get("key") for condition in change["filter"]["must"]] == ["_p", "_t", None, "_v"]
        assert change["filter"]["must"][1]["match"] == {"value": str(scope.incarnation)}
        assert change["filter"]["must"][3]["range"]["lte"] == 7


@pytest.mark.parametrize(
    "answer",
    [
        Answer(503),
        Answer(drop=True),
        Answer(result=[]),
        Answer(result=[APPLIED, {"operation_id": 1, "status": "wait_timeout"}]),
    ],
    ids=["unavailable", "dropped connection", "no results", "half applied"],
)
def test_new_columns_not_known_to_be_applied_are_sent_again(
    qdrant: ScriptedServer, store: ServerStore, answer: Answer
) -> None:
    qdrant.will(BATCH, answer, Answer(result=[APPLIED, APPLIED]))
    store.set_data(tenant(), INDEX, [DataChange("1", 1, {}), DataChange("2", 1, {})], 7)
    first, second = qdrant.sent(BATCH)
    assert first.body == second.body


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_faults_are_tried_again(qdrant: ScriptedServer, store: ServerStore, status: int) -> None:
    qdrant.will(POINTS, Answer(status), Answer(result={"operation_id": 1, "status": "completed"}))
    write(store)
    assert len(qdrant.sent(POINTS)) == 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer(drop=True),
        Answer(429, headers={"Retry-After": "0"}),
        Answer(429, headers={"Retry-After": "Mon, 23 Nov 2026 10:00:00 GMT"}),
        Answer(result={"operation_id": 1, "status": "wait_timeout"}),
        Answer(result={"operation_id": 1, "status": "acknowledged"}),
    ],
    ids=["dropped connection", "throttled", "throttled until", "wait timeout", "not applied"],
)
def test_a_write_not_known_to_be_applied_is_sent_again(
    qdrant: ScriptedServer, store: ServerStore, answer: Answer
) -> None:
    qdrant.will(POINTS, answer, Answer(result={"operation_id": 1, "status": "completed"}))
    write(store)
    first, second = qdrant.sent(POINTS)
    assert first.body == second.body


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 507])
def test_refusals_are_not_tried_again(qdrant: ScriptedServer, store: ServerStore, status: int) -> None:
    qdrant.will(POINTS, Answer(status))
    with pytest.raises(StoreRefused) as caught:
        write(store)
    assert not caught.value.retryable
    assert "secret row text" not in str(caught.value)
    assert len(qdrant.sent(POINTS)) == 1


def test_a_refused_key_is_named_as_such_and_not_told(qdrant: ScriptedServer) -> None:
    with pytest.warns(UserWarning, match="insecure connection"):
        store = ServerStore.connect(qdrant.url, KEY)
    qdrant.will("GET /collections", Answer(401))
    with pytest.raises(StoreRefused, match=r"refuses the API key.*ROWBEAM_QDRANT_API_KEY") as caught:
        store.check()
    assert KEY not in f"{caught.value!r} {store!r}"
    assert qdrant.requests[-1].api_key == KEY
    store.close()


def test_an_outage_past_the_budget_is_reported(qdrant: ScriptedServer, store: ServerStore) -> None:
    qdrant.will(POINTS, Answer(503))
    with pytest.raises(StoreUnavailable, match="503") as caught:
        write(store)
    assert caught.value.retryable
    assert len(qdrant.sent(POINTS)) > 1


def test_a_wait_longer_than_the_budget_is_not_begun(qdrant: ScriptedServer, store: ServerStore) -> None:
    qdrant.will(POINTS, Answer(429, headers={"Retry-After": "3600"}))
    with pytest.raises(StoreUnavailable, match="throttles"):
        write(store)
    assert len(qdrant.sent(POINTS)) == 1


def test_no_server_at_all_is_a_clear_error(qdrant: ScriptedServer) -> None:
    qdrant.close()
    store = ServerStore.connect(qdrant.url, retry_budget=0.1)
    with pytest.raises(StoreUnavailable, match=r"cannot be reached.*ROWBEAM_QDRANT_URL"):
        store.check()
    store.close()


def test_an_older_server_would_ignore_a_wall_of_ours(qdrant: ScriptedServer, store: ServerStore) -> None:
    qdrant.will("GET /$", Answer(body=json.dumps({"title": "qdrant", "version": "1.18.3"})))
    for act in (
        store.check,
        lambda: store.ensure_index(tenant(), INDEX, []),
        lambda: store.search_words(tenant(), INDEX, "login", limit=1),
    ):
        with pytest.raises(StoreRefused, match=r"1\.18\.3.*1\.19 or later"):
            act()
    assert not qdrant.sent("PUT ")
    assert not qdrant.sent("POST ")


def test_a_search_by_words_counts_rarity_among_the_tenants_points_alone(
    qdrant: ScriptedServer, store: ServerStore
) -> None:
    qdrant.will(".*/points/query", Answer(result={"points": []}))
    scope = tenant()
    assert store.search_words(scope, INDEX, "login", limit=3) == []
    (request,) = qdrant.sent(rf"POST /collections/{ALIAS}/points/query")
    assert request.body["using"] == "bm25"
    assert request.body["query"]["nearest"] == {"indices": [0xAA08CB10], "values": [1.0]}
    own = {"key": "_t", "match": {"value": str(scope.incarnation)}}
    assert [_named(condition) for condition in request.body["params"]["idf"]["corpus"]["must"]] == [own]
    assert own in [_named(condition) for condition in request.body["filter"]["must"]]


def _named(condition: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in condition.items() if value is not None}


def test_a_collection_without_room_for_words_is_given_some_at_set_up(
    qdrant: ScriptedServer, store: ServerStore
) -> None:
    info = collection_info(DIMENSIONS, {"space_id": SPACE.space_id}, words=False)
    qdrant.will(rf"GET /collections/{ALIAS}_v1$", Answer(result=info))
    qdrant.will("PUT .*/index", Answer(result=APPLIED))
    store.ensure_index(tenant(), INDEX, [])
    (added,) = qdrant.sent(rf"PUT /collections/{ALIAS}_v1/vectors/bm25")
    assert "wait=true" in added.line
    assert added.body["sparse"]["modifier"] == "idf"


@pytest.mark.parametrize("act", ["write", "search"])
def test_a_collection_without_room_for_words_that_was_not_set_up_again_is_a_clear_error(
    qdrant: ScriptedServer, store: ServerStore, act: str
) -> None:
    error = {"status": {"error": "Wrong input: Not existing vector name error: bm25"}, "time": 0.0}
    qdrant.will("(PUT|POST) .*/points", Answer(400, body=json.dumps(error)))
    acts = {"write": write, "search": lambda store: store.search_words(tenant(), INDEX, "login", limit=3)}
    with pytest.raises(StoreRefused, match=r"earlier release.*Run the backfill again"):
        acts[act](store)


def test_a_collection_removed_by_another_process_reads_as_empty(
    qdrant: ScriptedServer, store: ServerStore
) -> None:
    qdrant.will(".*/points/(query|scroll|delete|batch)", Answer(404))
    assert store.search(tenant(), INDEX, unit(1), limit=3) == []
    assert store.count(tenant(), INDEX) == 0
    store.delete(tenant(), INDEX, [("1", 0)])
    store.set_data(tenant(), INDEX, [DataChange("1", 1, {})], 1)


@pytest.mark.parametrize("body", ["not found", "<html>", "[]", '{"detail": "no"}', '{"status": "error"}'])
def test_the_404_of_something_else_does_not_pass_for_an_empty_index(
    qdrant: ScriptedServer, store: ServerStore, body: str
) -> None:
    qdrant.will(".*/points/scroll", Answer(404, body=body))
    with pytest.raises(StoreRefused, match="ROWBEAM_QDRANT_URL"):
        store.count(tenant(), INDEX)


@pytest.mark.parametrize("body", ['{"hello": "world"}', "<html>", '{"result": {"status": "new"}}', ""])
def test_an_answer_that_is_no_qdrant_answer_is_a_clear_error(
    qdrant: ScriptedServer, store: ServerStore, body: str
) -> None:
    qdrant.will(POINTS, Answer(body=body))
    with pytest.raises(StoreRefused, match="cannot be read"):
        write(store)
    assert len(qdrant.sent(POINTS)) == 1


def test_a_collection_made_by_somebody_else_is_not_written_to(
    qdrant: ScriptedServer, store: ServerStore
) -> None:
    qdrant.will(
        rf"GET /collections/{ALIAS}_v1$", Answer(result=collection_info(DIMENSIONS, {"space_id": "another"}))
    )
    with pytest.raises(StoreRefused, match="not made by Rowbeam"):
        store.ensure_index(tenant(), INDEX, [])


def test_set_up_makes_indexes_before_the_alias_lets_points_in(
    qdrant: ScriptedServer, store: ServerStore
) -> None:
    """Also when another process was a moment quicker to make the collection."""
    made = rf"PUT /collections/{ALIAS}_v1(\?|$)"
    info = collection_info(DIMENSIONS, {"space_id": SPACE.space_id})
    qdrant.will(rf"GET /collections/{ALIAS}_v1$", Answer(result=info))
    qdrant.will("GET .*/exists", Answer(result={"exists": False}))
    qdrant.will(made, Answer(409))
    qdrant.will("PUT .*/index", Answer(result={"operation_id": 1, "status": "completed"}))

    store.ensure_index(tenant(), INDEX, ["status"])

    (created,) = qdrant.sent(made)
    assert created.body["hnsw_config"] == {"m": 0, "payload_m": 16, "ef_construct": 100}
    assert created.body["strict_mode_config"]["search_allow_exact"] is False
    assert created.body["metadata"]["space_id"] == SPACE.space_id
    fields = {
        request.body["field_name"]: request.body["field_schema"] for request in qdrant.sent("PUT .*/index")
    }
    assert list(fields) == ["_p", "_t", "_v", "_h", "d.status"]
    assert fields["_p"]["is_tenant"] is True
    assert "aliases" in qdrant.requests[-1].line
