"""Traces and logs of a server that runs: one tree from a request to the store, and its id in the log."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from ray_app.db.engine import engine_for
from ray_app.stack.postgres import embedded_url
from tests.support.collector import Collector, Span, path_of
from tests.support.fake_gateway import FakeGateway
from tests.support.serve_site import ServeSite, new_site
from tests.support.waiting import wait_for

pytestmark = pytest.mark.ray

TENANT = "heliotrope-works"
TABLE = "pull_requests"
ROW_TEXT = "the quarterly ferry seal is broken"
GATEWAY_KEY = "sk-test-5512"
GATEWAY_MODEL = "text-embedding-3-small"
LEDGER_TABLE = "rowbeam.qdrant_vectors"


class Traced:
    """A request with a trace of its own, and what came of it."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-01"}

    def wait_for(self, *names: str) -> list[Span]:
        """All spans, once those named are among them and every one's parent: each process sends its own."""

        def complete() -> bool:
            spans = self._collector.trace(self.trace_id)
            known = {self.span_id, *(span.span_id for span in spans)}
            whole = all(span.parent_id in known for span in spans)
            return whole and set(names) <= {span.name for span in spans}

        wait_for(complete)
        return self._collector.trace(self.trace_id)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def site(collector: Collector) -> Iterator[ServeSite]:
    with (
        FakeGateway(api_key=GATEWAY_KEY, dimensions=8) as gateway,
        pytest.MonkeyPatch.context() as patch,
        new_site(
            local_model="stub:3000",
            otlp_endpoint=collector.url,
            gateway={"url": gateway.url, "api_key": GATEWAY_KEY, "model": GATEWAY_MODEL, "dimensions": 8},
        ) as site,
    ):
        # The SDK's own variable: milliseconds between two sendings.
        patch.setitem(os.environ, "OTEL_BSP_SCHEDULE_DELAY", "200")
        site.up()
        yield site


@pytest.fixture(scope="module")
def key(site: ServeSite) -> str:
    with site.client() as admin:
        answer = admin.post("/v1/tenants", json={"name": TENANT})
    return str(answer.json()["key"]["api_key"])


@pytest.fixture(scope="module")
def client(site: ServeSite, key: str) -> Iterator[httpx.Client]:
    with site.client(key) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def backfilled(client: httpx.Client, site: ServeSite, collector: Collector) -> tuple[Traced, str]:
    """The trace and the job of a backfill. It pins its index to the local model; small tables are the
    gateway's otherwise."""
    insert_rows(site, 20)
    traced = Traced(collector)
    body = {"tables": [TABLE], "prefer": "fast"}
    answer = client.post("/v1/backfills", json=body, headers=traced.headers)
    assert answer.status_code == 202, answer.text
    job = str(answer.json()["job"]["job_id"])
    wait_for(lambda: client.get(f"/v1/backfills/{job}").json()["job"]["state"] == "succeeded")
    return traced, job


def one(spans: list[Span], name: str) -> Span:
    (span,) = [span for span in spans if span.name == name]
    return span


def check_tree(traced: Traced, spans: list[Span]) -> None:
    """Every span hangs below another of the trace, and the outermost below the caller's own."""
    ids = {span.span_id for span in spans}
    assert [span.name for span in spans if span.parent_id not in ids] == ["proxy POST"]
    assert one(spans, "proxy POST").parent_id == traced.span_id
    assert all(span.began <= span.ended for span in spans)


def test_a_search_is_one_tree_from_http_to_the_store(client: httpx.Client, collector: Collector) -> None:
    traced = Traced(collector)
    answer = client.post("/v1/search", json={"text": ROW_TEXT, "tables": [TABLE]}, headers=traced.headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["hits"]

    spans = traced.wait_for("proxy POST", "store search", "queue wait", "encode")
    check_tree(traced, spans)
    ways = {tuple(path_of(span, spans)) for span in spans}
    request = ("proxy POST", "router POST /v1/search")
    assert (*request, "store search") in ways
    assert (*request, "embed stub", "local model", "queue wait") in ways
    assert (*request, "embed stub", "local model", "encode") in ways
    assert any(way[:2] == request and way[-1].startswith("SELECT rowbeam.") for way in ways)
    assert {span.part for span in spans} == {"proxy", "router", "local model"}
    router = one(spans, "router POST /v1/search").attributes
    assert router["http.response.status_code"] == 200
    assert router["http.route"] == "/v1/search"


def test_a_pushed_row_is_traced_to_the_write(client: httpx.Client, collector: Collector) -> None:
    traced = Traced(collector)
    rows = [{"id": 77, "title": f"{ROW_TEXT} once more"}]
    answer = client.put(f"/v1/tables/{TABLE}/records", json={"records": rows}, headers=traced.headers)
    assert answer.status_code == 200, answer.text
    spans = traced.wait_for("proxy PUT", "store upsert")
    names = {span.name for span in spans}
    assert f"INSERT {LEDGER_TABLE}" in names
    assert all(span.trace_id == traced.trace_id for span in spans)


def test_a_call_of_the_gateway_is_traced(client: httpx.Client, collector: Collector) -> None:
    traced = Traced(collector)
    body = {"model": GATEWAY_MODEL, "input": ROW_TEXT}
    answer = client.post("/v1/embeddings", json=body, headers=traced.headers)
    assert answer.status_code == 200, answer.text
    spans = traced.wait_for("proxy POST", "gateway request", "gateway wait")
    check_tree(traced, spans)
    sent = one(spans, "gateway request")
    assert path_of(sent, spans)[2:4] == ["embed gateway", "gateway proxy"]
    assert sent.attributes["rowbeam.outcome"] == "answered"


def test_a_large_request_which_goes_another_way_is_one_trace_too(
    client: httpx.Client, collector: Collector
) -> None:
    traced = Traced(collector)
    body = {"model": "stub", "input": ["word " * 200] * 400}
    assert len(json.dumps(body)) > 256 * 1024
    answer = client.post("/v1/embeddings", json=body, headers=traced.headers)
    assert answer.status_code == 200, answer.text
    spans = traced.wait_for("proxy POST", "router POST /v1/embeddings", "encode")
    check_tree(traced, spans)


def test_a_backfill_belongs_to_the_request_that_asked_for_it(backfilled: tuple[Traced, str]) -> None:
    traced, job = backfilled
    spans = traced.wait_for("job", "read part", "encode part", "write part", "store upsert", "proxy POST")
    check_tree(traced, spans)
    request = ["proxy POST", "router POST /v1/backfills"]
    assert path_of(one(spans, "job"), spans) == [*request, "job"]
    for name in ("read part", "encode part", "write part"):
        stages = [span for span in spans if span.name == name]
        assert all(path_of(span, spans) == [*request, "job", name] for span in stages)
        assert {span.attributes["rowbeam.table"] for span in stages} == {TABLE}
    upserts = [span for span in spans if span.name == "store upsert"]
    assert all(path_of(span, spans)[-2] == "write part" for span in upserts)
    assert one(spans, "job").attributes["rowbeam.job"] == job


def test_the_trace_and_the_request_are_found_in_the_log(
    client: httpx.Client, site: ServeSite, collector: Collector
) -> None:
    traced = Traced(collector)
    headers = {**traced.headers, "x-request-id": "search-4711"}
    client.post("/v1/search", json={"text": ROW_TEXT, "tables": [TABLE]}, headers=headers)

    def lines() -> list[dict[str, Any]]:
        return [line for line in log_of(site) if line.get("request_id") == "search-4711"]

    wait_for(lines)
    (line,) = lines()
    assert line["trace_id"] == traced.trace_id
    assert line["span_id"] in {
        span.span_id for span in traced.wait_for("router POST /v1/search", "proxy POST")
    }
    assert line["tenant"] == tenant_of(site)[0]
    assert line["logger"] == "ray_app.api.access"
    assert line["message"].startswith("POST /v1/search 200 ")
    assert (line["levelname"], line["deployment"]) == ("INFO", "Router")


def test_every_line_of_the_replicas_is_an_object(site: ServeSite, client: httpx.Client) -> None:
    assert len(log_of(site)) > 3


def test_ray_s_own_metrics_do_not_go_astray(site: ServeSite) -> None:
    """Ray counts with OpenTelemetry too, whose variables are the same."""
    head = site.stack.status().head
    assert head is not None
    discovery = Path(head.session) / "prom_metrics_service_discovery.json"

    def scraped() -> bool:
        if not discovery.exists():
            return False
        targets = [target for group in json.loads(discovery.read_text()) for target in group["targets"]]
        return any("ray_rowbeam_http_requests_total" in scrape(target) for target in targets)

    wait_for(scraped)


def scrape(target: str) -> str:
    return httpx.get(f"http://{target}/metrics", trust_env=False, timeout=20).text


def test_no_text_and_no_secret_leaves_in_a_trace_or_a_line(
    client: httpx.Client, site: ServeSite, key: str, collector: Collector
) -> None:
    """The last one, of all that the others have sent."""
    assert {"store upsert", "gateway request", "encode part"} <= {span.name for span in collector.spans()}
    logged = "".join(path.read_text(encoding="utf-8") for path in log_files(site))
    admin = (site.settings.home / "secrets" / "admin-key").read_text("ascii").strip()
    assert "rowbeam" in logged
    for hidden in (ROW_TEXT, "ferry", TENANT, key, admin, GATEWAY_KEY, "postgresql://"):
        assert hidden.encode() not in bytes(collector.raw), hidden
        assert hidden not in logged, hidden


def insert_rows(site: ServeSite, count: int) -> None:
    incarnation, client = tenant_of(site)
    assert incarnation
    engine = engine_for(embedded_url(site.settings))
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO {TABLE} (id, client_id, title)"
                f" SELECT n, :client, '{ROW_TEXT} ' || n FROM generate_series(1, CAST(:count AS int)) AS n"
            ),
            {"client": client, "count": count},
        )
    engine.dispose()


def tenant_of(site: ServeSite) -> tuple[str, int]:
    """The tenant's incarnation and client id."""
    engine = engine_for(embedded_url(site.settings))
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT incarnation, client_id FROM rowbeam.tenants WHERE name = :name"), {"name": TENANT}
        ).one()
    engine.dispose()
    return str(found.incarnation), int(found.client_id)


def log_files(site: ServeSite) -> list[Path]:
    head = site.stack.status().head
    assert head is not None
    return sorted(Path(head.session).glob("session_2*/logs/serve/*.log"))


def log_of(site: ServeSite) -> list[dict[str, Any]]:
    """Every line of our replicas."""
    replicas = [path for path in log_files(site) if path.name.startswith("replica_rowbeam")]
    assert replicas
    return [json.loads(line) for path in replicas for line in path.read_text("utf-8").splitlines()]
