"""Search over HTTP: by text, words, vector and likeness, in one table or several."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from ray_app.encoders.stub import POISON
from ray_app.settings import Settings
from tests.support.api_site import ApiSite
from tests.support.fake_gateway import FakeGateway

ISSUES = [
    {"id": 1, "summary": "login fails after update", "status": "open", "labels": ["auth", "ui"]},
    {"id": 2, "summary": "login page is slow", "status": "closed", "created_at": "2026-01-05T00:00:00Z"},
    {"id": 3, "summary": "export to csv is broken", "status": "open", "created_at": "2026-03-05T00:00:00Z"},
]
PULLS = [{"id": 1, "title": "fix login after update"}, {"id": 2, "title": "new colours for charts"}]


def push(http: httpx.Client, table: str, rows: list[dict[str, Any]], **body: Any) -> None:
    answer = http.put(f"/v1/tables/{table}/records", json={"records": rows, **body})
    assert answer.status_code == 200, answer.text


def ask(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def names(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(hit["table"], hit["id"]) for hit in found["hits"]]


def ids(found: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in found["hits"]]


def refused(http: httpx.Client, status: int, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/search", json=body)
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.fixture
def filled(http: httpx.Client) -> httpx.Client:
    push(http, "issues", ISSUES)
    push(http, "pull_requests", PULLS)
    return http


def stub_vector(site: ApiSite, text: str) -> list[float]:
    provider = site.workspace.providers.provider_for(site.services.backend.spaces()[0])
    return [float(number) for number in provider.embed_query(text)]


def test_a_text_finds_the_nearest_records_with_snippet_and_payload(
    site: ApiSite, filled: httpx.Client
) -> None:
    answer = filled.post("/v1/search", json={"text": "login fails after update", "tables": ["issues"]})
    found = answer.json()
    assert (found["scoring"], ids(found)[0]) == ("cosine", "1")
    hit = found["hits"][0]
    assert hit["score"] == pytest.approx(1, abs=1e-5)
    assert hit["snippet"] == "login fails after update"
    assert hit["data"] == {"status": "open", "labels": ["auth", "ui"]}
    assert answer.headers["x-rowbeam-provider"] == "stub"
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert len(found["hits"]) == 3


def test_several_tables_of_one_space_are_merged_by_score(filled: httpx.Client) -> None:
    found = ask(filled, text="login after update")
    assert found["scoring"] == "cosine"
    assert set(names(found)[:2]) == {("issues", "1"), ("pull_requests", "1")}
    assert names(found) == names(ask(filled, text="login after update", tables=["pull_requests", "issues"]))
    assert len(ask(filled, text="login", limit=2)["hits"]) == 2


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([("status", "eq", "open")], {"1", "3"}),
        ([("labels", "eq", "ui")], {"1"}),
        ([("status", "in", ["closed", "other"])], {"2"}),
        ([("created_at", "gte", "2026-02-01T00:00:00Z")], {"3"}),
        ([("created_at", "lt", "2026-02-01T00:00:00Z"), ("status", "eq", "closed")], {"2"}),
        ([("status", "eq", "nothing")], set()),
    ],
)
@pytest.mark.parametrize("hybrid", [False, True])
def test_filters_hold_for_every_hit(
    filled: httpx.Client, filters: list[tuple[str, str, object]], expected: set[str], hybrid: bool
) -> None:
    asked = [{"field": field, "op": op, "value": value} for field, op, value in filters]
    found = ask(filled, text="login csv", tables=["issues"], filters=asked, hybrid=hybrid)
    assert set(ids(found)) == expected


def test_a_threshold_leaves_out_what_is_less_near(filled: httpx.Client) -> None:
    found = ask(filled, text="login fails after update", score_threshold=0.9)
    assert names(found) == [("issues", "1")]
    assert ask(filled, text="zebra quagga", score_threshold=0.9)["hits"] == []


def test_a_vector_finds_what_its_text_finds(site: ApiSite, filled: httpx.Client) -> None:
    vector = stub_vector(site, "export csv")
    by_text, by_vector = ask(filled, text="export csv"), ask(filled, vector=[7 * x for x in vector])
    assert names(by_text) == names(by_vector)
    assert by_vector["hits"][0]["score"] == pytest.approx(by_text["hits"][0]["score"], abs=1e-5)
    ones = ask(filled, vector=[1] * 384)
    assert len(ones["hits"]) == 5


@pytest.mark.parametrize(
    "vector", [[1.0] * 383, [1.0] * 385, [0.0] * 384, [0] * 384, [1.0], [1e39] * 383 + ["x"]]
)
def test_a_vector_that_cannot_be_compared_is_refused(filled: httpx.Client, vector: list[Any]) -> None:
    assert str(refused(filled, 400, vector=vector)["param"]).startswith("vector")


def test_numbers_that_json_does_not_have_are_refused(filled: httpx.Client) -> None:
    for spelled in ("NaN", "Infinity", "-Infinity", "1e400"):
        body = '{"vector": [' + ",".join([spelled] + ["1"] * 383) + "]}"
        answer = filled.post("/v1/search", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
    large = ask(filled, vector=[1e300] * 384)
    assert names(large) == names(ask(filled, vector=[1] * 384))


def test_more_like_a_record_leaves_it_out(filled: httpx.Client) -> None:
    found = ask(filled, like={"table": "issues", "id": 1})
    assert ("issues", "1") not in names(found)
    assert names(found)[0] == ("pull_requests", "1")
    assert len(found["hits"]) == 4
    assert names(ask(filled, like={"table": "issues", "id": "01"}, tables=["issues"], limit=1)) == [
        ("issues", "2")
    ]
    # The twin id of another table is another record.
    assert ("pull_requests", "1") in names(ask(filled, like={"table": "issues", "id": 1}, limit=1))


def test_more_like_a_long_record_is_by_the_mean_of_its_chunks(site: ApiSite, http: httpx.Client) -> None:
    long = " ".join(["alpha beta"] * 127 + ["gamma delta"] * 127)
    push(http, "issues", [{"id": 1, "description": long}, {"id": 2, "summary": "alpha beta"},
                          {"id": 3, "summary": "gamma delta"}, {"id": 4, "summary": "omega"}])  # fmt: skip
    found = ask(http, like={"table": "issues", "id": "1"})
    assert set(ids(found)[:2]) == {"2", "3"}
    chunks = np.stack([stub_vector(site, chunk) for chunk in _chunks(site, long)])
    mean = chunks.mean(axis=0) / np.linalg.norm(chunks.mean(axis=0))
    expected = float(mean @ np.array(stub_vector(site, "alpha beta")))
    (two,) = [hit for hit in found["hits"] if hit["id"] == "2"]
    assert two["score"] == pytest.approx(expected, abs=1e-4)


def _chunks(site: ApiSite, text: str) -> list[str]:
    chunker = site.workspace.providers.chunker_for(site.services.backend.spaces()[0])
    return [chunk.text for chunk in chunker.chunk([text])[0]]


def test_likeness_to_what_is_not_there_is_not_found(site: ApiSite, filled: httpx.Client) -> None:
    assert refused(filled, 404, like={"table": "issues", "id": 99})["code"] == "record_not_found"
    assert refused(filled, 404, like={"table": "issues", "id": "abc"})["code"] == "record_not_found"
    assert refused(filled, 404, like={"table": "users", "id": 1})["code"] == "table_not_found"
    assert refused(filled, 400, like={"table": "issues", "id": ""})["param"] == "like.id"
    with site.http(site.add_tenant("other")) as other:
        push(other, "issues", [{"id": 50, "summary": "theirs"}])
        assert refused(filled, 404, like={"table": "issues", "id": 50})["code"] == "record_not_found"


def test_hybrid_lets_a_rare_word_count(filled: httpx.Client) -> None:
    rows = [{"id": 100 + n, "summary": f"the server answers slowly today {n}"} for n in range(40)]
    push(filled, "issues", [*rows, {"id": 900, "summary": f"error QX7731 seen once {' filler' * 60}"}])
    asked = {"text": "the server answers slowly today with QX7731", "tables": ["issues"], "limit": 100}
    dense, hybrid = ask(filled, **asked), ask(filled, **asked, hybrid=True)
    assert (dense["scoring"], hybrid["scoring"]) == ("cosine", "rrf")
    assert ids(dense).index("900") >= 40
    assert ids(hybrid).index("900") < 30
    assert sorted(ids(dense)) == sorted(ids(hybrid))


def test_hybrid_scores_are_sums_of_reciprocal_ranks(http: httpx.Client) -> None:
    push(http, "issues", [{"id": 1, "summary": "apple"}, {"id": 2, "summary": "pear"}])
    found = ask(http, text="apple", hybrid=True)
    # First in both lists; second in one, as no word of it matches.
    assert [(hit["id"], hit["score"]) for hit in found["hits"]] == [
        ("1", pytest.approx(2 / 61)),
        ("2", pytest.approx(1 / 62)),
    ]


def test_vector_types_are_searched_apart(http: httpx.Client) -> None:
    push(http, "issues", [{"id": 1, "summary": "login", "status": "open"}], vector_types=["metadata"])
    assert ids(ask(http, text="status: open", vector_type="metadata")) == ["1"]
    error = refused(http, 404, text="login")
    assert "backfill" in error["message"]


def test_a_table_without_an_index_says_what_to_do(filled: httpx.Client) -> None:
    error = refused(filled, 404, text="x", tables=["issues", "users"])
    assert (error["code"], error["param"]) == ("table_not_found", "tables")
    assert "users" in error["message"]
    assert "backfill" in error["message"]
    assert refused(filled, 404, text="x", tables=["nonsense"])["code"] == "table_not_found"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": "x", "vector": [1.0]}, "vector"),
        ({"text": "x", "like": {"table": "issues", "id": 1}}, "like"),
        ({"text": ""}, "text"),
        ({"text": " \x00 "}, "text"),
        ({"text": "x" * 32_769}, "text"),
        ({"text": 5}, "text"),
        ({"text": "x", "limit": 0}, "limit"),
        ({"text": "x", "limit": 101}, "limit"),
        ({"text": "x", "limit": "5"}, "limit"),
        ({"text": "x", "score_threshold": 2}, "score_threshold"),
        ({"text": "x", "tables": []}, "tables"),
        ({"text": "x", "vector_type": "colour"}, "vector_type"),
        ({"text": "x", "colour": 1}, "colour"),
        ({"vector": [1.0] * 384, "hybrid": True}, "hybrid"),
        ({"text": "x", "filters": [{"field": "status", "op": "like", "value": "o"}]}, "filters[0].op"),
        ({"text": "x", "filters": [{"field": "status", "op": "eq"}]}, "filters[0].value"),
        ({"text": "x", "filters": [{"field": "a.b", "op": "eq", "value": 1}]}, "filters"),
        ({"text": "x", "filters": [{"field": "status", "op": "eq", "value": {"a": 1}}]}, "filters"),
        ({"text": "x", "filters": [{"field": "status", "op": "in", "value": "open"}]}, "filters"),
        ({"text": "x", "filters": [{"field": "status", "op": "gt", "value": "b"}]}, "filters"),
        ({"text": "x", "filters": [{"field": "_t", "op": "eq", "value": None}]}, "filters"),
        ({"text": f"a {POISON} text"}, "text"),
    ],
)
def test_a_bad_search_is_refused_by_name(filled: httpx.Client, body: dict[str, Any], param: str) -> None:
    assert refused(filled, 400, **body)["param"] == param


def test_odd_texts_are_answered(filled: httpx.Client) -> None:
    for text in ("%s {x} '; --", "é" * 3000, "word " * 6000, "\u200b"):
        body = {"text": text, "hybrid": True}
        ask(filled, **body)


def test_half_a_character_is_refused(filled: httpx.Client) -> None:
    answer = filled.post(
        "/v1/search",
        content=json.dumps({"text": "\ud800 half"}),
        headers={"content-type": "application/json"},
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "text")


def test_twin_tenants_find_their_own_alone(site: ApiSite, filled: httpx.Client) -> None:
    with site.http(site.add_tenant("acme-2")) as other:
        assert refused(other, 404, text="login")["code"] == "table_not_found"
        push(other, "issues", [{"id": 1, "summary": "their login secret"}])
        for body in ({"text": "login"}, {"text": "login", "hybrid": True}, {"vector": [1.0] * 384}):
            assert names(ask(other, **body)) == [("issues", "1")]
            assert all("secret" not in hit["snippet"] for hit in ask(filled, **body)["hits"])
        assert ask(other, like={"table": "issues", "id": 1})["hits"] == []


@pytest.fixture
def two_spaces(make_settings: Callable[..., Settings]) -> Iterator[httpx.Client]:
    """``issues`` indexed by the local model, ``pull_requests`` by the gateway's."""
    with ApiSite(make_settings()) as site:
        key = site.add_tenant("acme")
        with site.http(key) as http:
            push(http, "issues", ISSUES)
    with FakeGateway(api_key="sk-test", dimensions=64) as gateway:
        through = {"url": gateway.url, "api_key": "sk-test", "dimensions": 64}
        with ApiSite(make_settings(gateway=through)) as site, site.http(key) as http:
            push(http, "pull_requests", PULLS)
            yield http


def test_tables_of_different_spaces_are_fused_by_rank(two_spaces: httpx.Client) -> None:
    answer = two_spaces.post("/v1/search", json={"text": "fix login after update"})
    found = answer.json()
    assert found["scoring"] == "rrf"
    assert answer.headers["x-rowbeam-provider"] == "gateway,stub"
    assert set(names(found)[:2]) == {("issues", "1"), ("pull_requests", "1")}
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([1 / 61, 1 / 61, 1 / 62, 1 / 62, 1 / 63])
    alone = ask(two_spaces, text="fix login after update", tables=["pull_requests"])
    assert (alone["scoring"], alone["hits"][0]["score"]) == ("cosine", pytest.approx(1, abs=1e-4))


def test_a_vector_means_something_in_one_space_alone(two_spaces: httpx.Client) -> None:
    assert refused(two_spaces, 400, vector=[1.0] * 384)["param"] == "tables"
    assert len(ask(two_spaces, vector=[1.0] * 64, tables=["pull_requests"])["hits"]) == 2
    assert refused(two_spaces, 400, vector=[1.0] * 384, tables=["pull_requests"])["param"] == "vector"
    like = {"table": "issues", "id": 1}
    assert {table for table, _ in names(ask(two_spaces, like=like))} == {"issues"}
    assert refused(two_spaces, 400, like=like, tables=["pull_requests"])["param"] == "tables"
