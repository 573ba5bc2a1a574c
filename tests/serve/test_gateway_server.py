"""A server with a gateway: callers and jobs go through its one proxy, and share one budget."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from jobs import gateway as bulk
from ray_app.serving.cost_budget import REFRESH
from tests.support.fake_gateway import FakeGateway
from tests.support.metrics_document import document
from tests.support.scrape import Family, add_up, by, scrape
from tests.support.serve_site import ServeSite, new_site
from tests.support.waiting import wait_for

pytestmark = pytest.mark.ray

MODEL = "text-embedding-3-small"
KEY = "sk-test-77aa"
TENANT = "acme"
TABLE = "pull_requests"


@pytest.fixture(scope="module")
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway(api_key=KEY, dimensions=8) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def site(gateway: FakeGateway) -> Iterator[ServeSite]:
    settings = {
        "url": gateway.url,
        "api_key": KEY,
        "model": MODEL,
        "dimensions": 8,
        "price_per_million": 1_000_000,  # a dollar a token
        "timeout": 10,
        "outage_budget": 120,
    }
    with new_site(gateway=settings) as site:
        site.up()
        yield site


@pytest.fixture(scope="module")
def client(site: ServeSite) -> Iterator[httpx.Client]:
    """A client of the tenant."""
    with site.client() as admin:
        answer = admin.post("/v1/tenants", json={"name": TENANT})
    with site.client(answer.json()["key"]["api_key"]) as client:
        yield client


@pytest.fixture
def add_rows(site: ServeSite, tmp_path: Path) -> Any:
    def add(first: int, last: int) -> None:
        file = tmp_path / "rows.jsonl"
        rows = ({"id": n, "title": f"change number {n}", "status": "open"} for n in range(first, last + 1))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        site.rowbeam("load", str(file), "--tenant", TENANT, "--table", TABLE)

    return add


class Job:
    """A backfill through the API."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        body = {"tables": [TABLE], "prefer": "quality"}
        answer = client.post("/v1/backfills", json=body, headers={"idempotency-key": os.urandom(8).hex()})
        assert answer.status_code == 202, answer.text
        self._id = answer.json()["job"]["job_id"]

    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.get(f"/v1/backfills/{self._id}").json()["job"]
        return found

    def end(self) -> dict[str, Any]:
        wait_for(lambda: self.seen()["finished_at"] is not None)
        return self.seen()


def embed(client: httpx.Client, text: str) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": MODEL, "input": text})


def test_the_proxy_has_the_name_that_jobs_ask_for() -> None:
    names = pytest.importorskip("deployments.names")
    assert (bulk.APPLICATION, bulk.GATEWAY_PROXY) == (names.APPLICATION, names.GATEWAY_PROXY)


def test_callers_and_jobs_go_through_one_proxy(
    site: ServeSite, client: httpx.Client, gateway: FakeGateway, add_rows: Any
) -> None:
    add_rows(1, 400)
    gateway.behaviour.latency = 0.3
    talking: set[int | None] = set()

    def over() -> bool:
        answer = embed(client, "hello there")
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-rowbeam-provider"] == "gateway"
        talking.update(
            it.pid for it in psutil.net_connections("tcp") if it.raddr and it.raddr.port == gateway.port
        )
        return bool(job.seen()["finished_at"])

    job = Job(client)
    wait_for(over)
    gateway.behaviour.latency = 0.0
    ended = job.end()
    assert (ended["state"], ended["counts"]["embedded"]) == ("succeeded", 400), ended
    assert talking - {os.getpid(), None} == {site.replica(bulk.GATEWAY_PROXY).pid}
    assert used(client) == gateway.charged


def used(client: httpx.Client) -> int:
    """Tokens in the ledger."""
    answer = client.get("/v1/usage")
    assert answer.status_code == 200, answer.text
    return int(answer.json()["tokens"])


def test_the_gateways_metrics_are_shown_and_are_what_was_charged(
    site: ServeSite, client: httpx.Client, gateway: FakeGateway
) -> None:
    usage = client.get("/v1/usage").json()
    head = site.stack.status().head
    assert head is not None
    seen: dict[str, Family] = {}

    def all_there() -> bool:
        seen.update(scrape(head.metrics_url))
        return add_up(seen, "ray_rowbeam_tokens_total", provider="gateway") >= usage["tokens"]

    wait_for(all_there)
    assert {name for name in document() if "_gateway_" in name} <= seen.keys()
    assert add_up(seen, "ray_rowbeam_tokens_total", provider="gateway") == usage["tokens"] == gateway.charged
    assert add_up(seen, "ray_rowbeam_cost_dollars_total", provider="gateway") == float(usage["cost"])
    requests = [
        (labels["outcome"], value)
        for name, labels, value in seen["ray_rowbeam_gateway_request_duration_seconds"].samples
        if name.endswith("_count")
    ]
    assert {outcome for outcome, _ in requests} == {"answered"}
    assert sum(value for _, value in requests) == len(gateway.requests)
    circuit = by(seen, "ray_rowbeam_gateway_circuit_state", "state")
    assert {state for (state,), value in circuit.items() if value} == {"closed"}
    assert by(seen, "ray_rowbeam_gateway_circuit_openings_total", "state") == {
        ("failing",): 0,
        ("refused",): 0,
    }
    for name, family in seen.items():
        assert (family.kind, family.labels) == (document()[name].kind, set(document()[name].labels)), name


def test_a_job_outlives_the_proxys_replica(
    site: ServeSite, client: httpx.Client, gateway: FakeGateway, add_rows: Any
) -> None:
    add_rows(401, 900)
    gateway.behaviour.latency = 1.0
    job = Job(client)
    sent = len(gateway.requests)
    wait_for(lambda: len(gateway.requests) > sent)
    site.replica(bulk.GATEWAY_PROXY).kill()
    gateway.behaviour.latency = 0.0
    ended = job.end()
    assert (ended["state"], ended["counts"]["dead"]) == ("succeeded", 0), ended
    assert ended["counts"]["embedded"] == 500


def test_a_spent_budget_stops_callers_and_jobs_until_it_is_raised(
    site: ServeSite, client: httpx.Client, add_rows: Any
) -> None:
    add_rows(901, 1000)
    assert embed(client, "hello there").status_code == 200  # so that a dollar is spent

    def set_budget(dollars: int) -> None:
        with site.client() as admin:
            limits = {"monthly_cost": str(dollars)}
            admin.patch(f"/v1/tenants/{TENANT}/limits", json=limits).raise_for_status()

    set_budget(1)
    wait_for(lambda: embed(client, "hello there").status_code == 429, REFRESH + 30)
    failed = Job(client).end()
    assert failed["state"] == "failed"
    assert "monthly_cost" in site.rowbeam("job", failed["job_id"])["error"]
    assert failed["counts"]["dead"] == 0

    set_budget(10**9)
    wait_for(lambda: embed(client, "hello there").status_code == 200, REFRESH + 30)
    ended = Job(client).end()
    assert (ended["state"], ended["counts"]["embedded"]) == ("succeeded", 100), ended
