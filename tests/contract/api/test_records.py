"""Rows pushed over HTTP: embedded, kept, looked at, taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import text

from ray_app.encoders.stub import POISON
from ray_app.errors import ProviderUnavailable
from ray_app.onboarding import count_points
from ray_app.serving.local_model import local_model
from ray_app.serving.options import ServingOptions
from ray_app.serving.pool import PricedTarget, ProviderPool
from ray_app.serving.port import EmbedCall, Served
from ray_app.settings import Settings
from ray_app.workspace import Workspace
from tests.support.api_site import ApiSite

URL = "/v1/tables/issues/records"


def put(http: httpx.Client, *rows: dict[str, Any], url: str = URL, **body: Any) -> dict[str, Any]:
    answer = http.put(url, json={"records": rows, **body})
    assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


def outcomes(answer: dict[str, Any]) -> dict[str, str]:
    return {record["id"]: record["outcome"] for record in answer["records"]}


def find(http: httpx.Client, words: str, **body: Any) -> list[str]:
    answer = http.post("/v1/search", json={"text": words, "tables": ["issues"], **body})
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def check_exact(site: ApiSite, name: str = "acme") -> None:
    points, rows = count_points(site.workspace, site.store, site.tenant(name))
    assert points == rows


def test_every_row_has_an_outcome_and_is_found_at_once(site: ApiSite, http: httpx.Client) -> None:
    rows = [
        {"id": 1, "summary": "login fails", "status": "open"},
        {"id": "2", "summary": "slow search"},
        {"id": 3, "status": "open"},
        {"id": 4, "summary": f"bad {POISON}"},
        {"id": 5, "summary": "gone", "active": False},
    ]
    answer = http.put(URL, json={"records": rows})
    body = answer.json()
    assert outcomes(body) == {"1": "embedded", "2": "embedded", "3": "no_text", "4": "dead", "5": "deleted"}
    assert [record["id"] for record in body["records"]] == ["1", "2", "3", "4", "5"]
    assert POISON in body["records"][3]["reason"]
    assert body["counts"] == {
        "embedded": 2, "unchanged": 0, "older": 0, "no_text": 1, "dead": 1, "deleted": 1,
    }  # fmt: skip
    assert answer.headers["x-rowbeam-provider"] == "stub"
    assert find(http, "login fails", limit=1) == ["1"]
    check_exact(site)


def test_the_same_request_again_costs_nothing(site: ApiSite, http: httpx.Client) -> None:
    row = {"id": 1, "summary": "login fails", "updated_at": "2026-01-01T00:00:00Z"}
    assert put(http, row)["tokens"] == 2
    again = put(http, row)
    assert (outcomes(again), again["tokens"]) == ({"1": "unchanged"}, 0)
    site.services.usage.flush()
    with site.workspace.ledger.connect() as connection:
        used = connection.execute(
            text("SELECT provider, table_name, job_id, texts, tokens, cost FROM rowbeam.usage")
        ).all()
    assert used == [("stub", "issues", "", 1, 2, 0)]


def test_an_older_state_never_wins(http: httpx.Client) -> None:
    put(http, {"id": 1, "summary": "new", "updated_at": "2026-01-02T00:00:00Z"})
    late = {"id": 1, "summary": "old", "updated_at": "2026-01-02T00:30:00+01:00"}
    assert outcomes(put(http, late)) == {"1": "older"}
    (state,) = http.get(f"{URL}/1").json()["vectors"]
    assert state["updated_at"] == "2026-01-02T00:00:00Z"


def test_concurrent_calls_end_with_the_newest_state(site: ApiSite, http: httpx.Client) -> None:
    rows = [
        {"id": 1, "summary": f"state number{day}", "updated_at": f"2026-01-{day:02d}T00:00:00Z"}
        for day in range(1, 17)
    ]
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda row: outcomes(put(http, row))["1"], reversed(rows)))
    assert set(done) <= {"embedded", "older"}
    (hit,) = http.post("/v1/search", json={"text": "state"}).json()["hits"]
    assert hit["snippet"] == "state number16"
    check_exact(site)


def test_several_vector_types_have_outcomes_of_their_own(http: httpx.Client) -> None:
    put(http, {"id": 1, "summary": "s", "status": "open"}, vector_types=["metadata"])
    (record,) = put(http, {"id": 1, "summary": "s", "status": "open"})["records"]
    assert record["outcome"] == "embedded"
    assert {kind: done["outcome"] for kind, done in record["vector_types"].items()} == {
        "content": "embedded",
        "metadata": "unchanged",
    }
    kinds = [state["vector_type"] for state in http.get(f"{URL}/1").json()["vectors"]]
    assert kinds == ["content", "metadata"]


def test_a_thousand_rows_in_one_call_and_not_one_more(site: ApiSite, http: httpx.Client) -> None:
    rows = [{"id": number, "summary": f"issue number {number}"} for number in range(1001)]
    assert put(http, *rows[:1000])["counts"]["embedded"] == 1000
    assert find(http, "issue number 777", limit=1) == ["777"]
    error = refused(http.put(URL, json={"records": rows}), 413)
    assert error["param"] == "records"
    check_exact(site)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"records": []}, "records"),
        ({"records": [5]}, "records[0]"),
        ({"records": [{"id": 1}], "colour": 1}, "colour"),
        ({"records": [{"id": 1}], "vector_types": []}, "vector_types"),
        ({"records": [{"id": 1}], "vector_types": ["colour"]}, "vector_types[0]"),
        ({"records": [{"id": 1}, {"id": "1"}]}, "records[1].id"),
        ({"records": [{"id": 1}, {"summary": "x"}]}, "records[1].id"),
        ({"records": [{"id": 1, "updated_at": "yesterday"}]}, "records[0].updated_at"),
        ({"records": [{"id": 1, "labels": {"a": 1}}]}, "records[0].labels"),
    ],
)
def test_a_bad_request_is_refused_by_name_and_writes_nothing(
    http: httpx.Client, body: dict[str, Any], param: str
) -> None:
    put(http, {"id": 9, "summary": "there"})
    assert refused(http.put(URL, json=body), 400)["param"] == param
    assert http.get(f"{URL}/1").status_code == 404


def test_unknown_tables_are_not_found(http: httpx.Client) -> None:
    for table in ("secrets", "pg_catalog.pg_user", "issues;--"):
        url = f"/v1/tables/{quote(table)}/records"
        assert refused(http.put(url, json={"records": [{"id": 1}]}), 404)["code"] == "table_not_found"
        assert http.get(f"{url}/1").status_code == http.delete(f"{url}/1").status_code == 404


def test_another_clients_row_is_forbidden_and_nothing_is_written(http: httpx.Client) -> None:
    rows = [{"id": 1, "summary": "mine"}, {"id": 2, "summary": "theirs", "client_id": 999}]
    assert refused(http.put(URL, json={"records": rows}), 403)["code"] == "permission_denied"
    assert http.get(f"{URL}/1").status_code == 404


def test_too_long_a_text_is_refused_with_its_row(make_settings: Callable[..., Settings]) -> None:
    options = ServingOptions(max_record_tokens=100)
    with ApiSite(make_settings(), options=options) as site, site.http(site.add_tenant("acme")) as http:
        rows = [{"id": 1, "summary": "fine"}, {"id": 2, "summary": "word " * 101}]
        assert refused(http.put(URL, json={"records": rows}), 413)["param"] == "records[1]"
        assert http.get(f"{URL}/1").status_code == 404


def test_a_records_state_says_who_embedded_it_and_when(http: httpx.Client) -> None:
    long = " ".join(f"word{number}" for number in range(600))
    put(http, {"id": 7, "description": long, "updated_at": "2026-01-01T00:00:00Z"})
    body = http.get(f"{URL}/7").json()
    (state,) = body.pop("vectors")
    assert body == {"table": "issues", "id": "7"}
    assert state.pop("embedded_at") > "2026-01-01"
    assert len(state.pop("space")) == 12
    assert state == {
        "vector_type": "content", "model": "stub", "provider": "stub", "chunks": 3,
        "updated_at": "2026-01-01T00:00:00Z", "dead_reason": None,
    }  # fmt: skip


def test_a_dead_records_state_says_why(http: httpx.Client) -> None:
    put(http, {"id": 1, "summary": POISON})
    (state,) = http.get(f"{URL}/1").json()["vectors"]
    assert (state["chunks"], state["provider"]) == (0, None)
    assert POISON in state["dead_reason"]
    assert http.delete(f"{URL}/1").json()["deleted"] == 0
    assert refused(http.get(f"{URL}/1"), 404)["code"] == "record_not_found"


def test_a_deleted_record_is_gone_and_deleting_it_again_is_fine(site: ApiSite, http: httpx.Client) -> None:
    put(http, {"id": 1, "summary": "one"}, {"id": 2, "summary": "two"}, vector_types=["content", "summary"])
    assert http.delete(f"{URL}/1").json() == {"table": "issues", "id": "1", "deleted": 2}
    assert http.delete(f"{URL}/1").json()["deleted"] == 0
    assert http.get(f"{URL}/1").status_code == 404
    assert find(http, "one") == ["2"]
    check_exact(site)


@pytest.mark.parametrize("record", ["a/b", "50% off", "a?b#c", "..", "é\U0001f600", "a%2Fb", " x ", "'; --"])
def test_ids_in_paths_are_taken_as_they_are(http: httpx.Client, record: str) -> None:
    url = "/v1/tables/projects/records"
    put(http, {"id": record, "name": "odd one"}, {"id": "plain", "name": "plain"}, url=url)
    path = f"{url}/{quote(record, safe='')}"
    # httpx would tidy dots away before they are sent.
    assert http.get(path if record != ".." else f"{url}/%2E%2E").json()["id"] == record
    assert http.delete(path if record != ".." else f"{url}/%2E%2E").json()["deleted"] == 1
    assert http.get(f"{url}/plain").status_code == 200


@pytest.mark.parametrize("path", ["a%00b", "x" * 513, ""])
def test_what_no_record_can_be_called_is_refused(http: httpx.Client, path: str) -> None:
    for method in ("GET", "DELETE"):
        assert refused(http.request(method, f"{URL}/{path}"), 400)["param"] == "record_id"


def test_an_id_that_the_key_column_cannot_hold_is_not_found(http: httpx.Client) -> None:
    put(http, {"id": 1, "summary": "one"})
    for record in ("abc", "1.5", "%FF", "%ED%A0%80", "99999999999999999999"):
        assert http.get(f"{URL}/{record}").status_code == 404
        assert http.delete(f"{URL}/{record}").json()["deleted"] == 0
    assert http.get(f"{URL}/0001").json()["id"] == "1"


def test_twin_tenants_with_the_same_ids_never_see_each_other(site: ApiSite, http: httpx.Client) -> None:
    with site.http(site.add_tenant("acme2")) as theirs:
        put(http, {"id": 1, "summary": "ours alone"})
        put(theirs, {"id": 1, "summary": "theirs alone"}, {"id": 2, "summary": "theirs too"})
        assert find(http, "theirs alone") == ["1"]
        assert http.get(f"{URL}/2").status_code == 404
        assert http.delete(f"{URL}/2").json()["deleted"] == 0
        assert http.delete(f"{URL}/1").json()["deleted"] == 1
        assert find(theirs, "ours alone", limit=9) == ["1", "2"]


def test_acknowledged_rows_survive_a_restart(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    with ApiSite(settings) as site:
        key = site.add_tenant("acme")
        with site.http(key) as http:
            put(http, *({"id": number, "summary": f"issue number {number}"} for number in range(50)))
    with ApiSite(settings) as site, site.http(key) as http:
        assert find(http, "issue number 31", limit=1) == ["31"]
        assert outcomes(put(http, {"id": 31, "summary": "issue number 31"})) == {"31": "unchanged"}
        check_exact(site)


class Flaky(ProviderPool):
    """The stub model, down when told to be."""

    down = False

    async def embed(self, call: EmbedCall) -> Served:
        if self.down:
            raise ProviderUnavailable("http://10.0.0.7 is down.", retry_after=3)
        return await super().embed(call)


@pytest.fixture
def flaky(make_settings: Callable[..., Settings]) -> Iterator[tuple[httpx.Client, Flaky]]:
    settings = make_settings()
    model = local_model(settings)
    backend = Flaky([PricedTarget(model)])

    def make(_workspace: Workspace) -> Flaky:
        return backend

    with ApiSite(settings, backend=make) as site, site.http(site.add_tenant("acme")) as http:
        yield http, backend
    model.close()


def test_a_provider_that_is_down_is_503_and_nothing_is_half_written(
    flaky: tuple[httpx.Client, Flaky],
) -> None:
    http, backend = flaky
    put(http, {"id": 1, "summary": "old text", "status": "open"})
    backend.down = True
    rows = [{"id": 1, "summary": "new text"}, {"id": 2, "active": False}, {"id": 3, "summary": "x"}]
    answer = http.put(URL, json={"records": rows})
    error = refused(answer, 503)
    assert (error["code"], answer.headers["retry-after"]) == ("provider_unavailable", "3")
    assert "10.0.0.7" not in answer.text
    assert refused(http.post("/v1/search", json={"text": "old"}), 503)["code"] == "provider_unavailable"
    assert outcomes(put(http, {"id": 1, "summary": "old text", "status": "open"})) == {"1": "unchanged"}
    assert http.get(f"{URL}/3").status_code == 404
    backend.down = False
    assert outcomes(put(http, *rows)) == {"1": "embedded", "2": "deleted", "3": "embedded"}


def test_no_route_of_records_opens_without_a_tenants_key(site: ApiSite, admin: httpx.Client) -> None:
    calls = [("PUT", URL), ("GET", f"{URL}/1"), ("DELETE", f"{URL}/1"), ("POST", "/v1/search")]
    with site.http() as nobody:
        for method, url in calls:
            assert nobody.request(method, url, json={}).status_code == 401
    body = {"records": [{"id": 1}]}
    assert admin.put(URL, json=body).status_code == 403
    assert admin.post("/v1/search", json={"text": "x"}).status_code == 403


def test_a_tenant_pays_for_the_tokens_that_were_embedded(site: ApiSite) -> None:
    key = site.add_tenant("small", tokens_per_minute=1000)
    row = {"id": 1, "summary": "word " * 250}
    with site.http(key) as http:
        put(http, row)
        for _ in range(8):  # estimated at 417 tokens each, and nothing is embedded
            assert outcomes(put(http, row)) == {"1": "unchanged"}
