"""The server on real Ray Serve: from ``rowbeam up`` to ``rowbeam down``, and what is broken in between."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from jobs.stages import BULK_NICENESS
from ray_app.console.rendering import PAGES
from ray_app.stack.admin_key import ensure_admin_key
from ray_app.stack.serving import HttpServer, _with_drain
from tests.support.console_site import log_in
from tests.support.serve_load import Load, embed, rows
from tests.support.serve_site import ServeSite
from tests.support.waiting import wait_for

pytestmark = pytest.mark.ray


@pytest.fixture
def tenant(site: ServeSite) -> tuple[str, str]:
    """The name and key of a new tenant."""
    return site.add_tenant()


@pytest.fixture
def key(tenant: tuple[str, str]) -> str:
    return tenant[1]


@contextmanager
def slow_request(site: ServeSite, key: str) -> Iterator[httpx.Client]:
    """A request that takes seconds, sent and not answered; leaving the block hangs up."""
    texts = ["word " * 250] * 1500
    client = site.client(key)
    sent = threading.Thread(target=_swallow, args=(client, texts), daemon=True)
    sent.start()
    try:
        yield client
    finally:
        client.close()
        sent.join()


def _swallow(client: httpx.Client, texts: list[str]) -> None:
    try:
        embed(client, texts)
    except (httpx.TransportError, RuntimeError):  # the test closes the client under it
        return


def test_up_is_ready_and_up_again_changes_nothing(site: ServeSite) -> None:
    with site.client() as client:
        assert client.get("/readyz").json() == {"status": "ready", "not_ready": []}
    again = site.up()
    assert again["server"] == {"url": site.url, "not_ready": []}
    assert again["changed"] == []


def test_up_opens_a_server_that_a_killed_down_left_draining(site: ServeSite) -> None:
    head = site.stack.status().head
    assert head is not None
    with HttpServer(site.settings, head) as server:  # as far as down gets before it is killed
        server._put(_with_drain(server._details(), "refuse"))
        server._wait_drained("refuse")
    with site.client() as client:
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        site.up()
        assert client.get("/readyz").status_code == 200


def test_nothing_of_the_cluster_can_be_reached_from_another_machine(site: ServeSite) -> None:
    listening = {
        (connection.laddr.ip, process.name())
        for process in site.processes("")
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) > 5
    assert {each for each in listening if not each[0].removeprefix("::ffff:").startswith("127.")} == set()


def test_the_console_is_reached_through_the_proxy_errors_and_cookies_included(site: ServeSite) -> None:
    key = ensure_admin_key(site.settings).get_secret_value()
    with httpx.Client(base_url=site.url, timeout=60) as http:
        assert http.get("/console").headers["location"] == "/console/login?next=/console"
        assert log_in(http, "wrong").status_code == 401
        assert log_in(http, key).status_code == 303
        assert "Checks passed" in http.get("/console").text
        for path, _ in PAGES:
            assert http.get(f"/console/{path}".rstrip("/")).status_code == 200
        missing = http.get("/console/nothing")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert http.post("/console/search", data={"text": "a"}).status_code == 403


def test_an_answer_names_its_request_once(site: ServeSite, key: str) -> None:
    with site.client(key) as client:
        answer = client.get("/v1/models", headers={"x-request-id": "mine-1"})
        assert answer.headers.get_list("x-request-id") == ["mine-1"]
        (made,) = client.get("/v1/models").headers.get_list("x-request-id")
        assert made


def test_the_provider_is_named(site: ServeSite, key: str) -> None:
    with site.client(key) as client:
        answer = embed(client, ["one", "two"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-rowbeam-provider"] == "stub"
    assert [item["index"] for item in answer.json()["data"]] == [0, 1]


def test_pushed_rows_are_there_when_the_call_returns(site: ServeSite, key: str) -> None:
    with site.client(key) as client:
        put = client.put("/v1/tables/pull_requests/records", json={"records": rows(1, 200)})
        assert put.status_code == 200, put.text
        assert put.json()["counts"]["embedded"] == 200
        state = client.get("/v1/tables/pull_requests/records/200").json()
        assert state["vectors"][0]["provider"] == "stub"
        found = client.post("/v1/search", json={"text": "change number 137", "limit": 1})
        assert [hit["id"] for hit in found.json()["hits"]] == ["137"], found.text


def test_a_backfill_over_http_runs_as_a_ray_job_to_its_end(
    site: ServeSite, tenant: tuple[str, str], tmp_path: Path
) -> None:
    name, key = tenant
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(1, 300)))
    assert site.rowbeam("load", str(file), "--tenant", name, "--table", "pull_requests")["inserted"] == 300
    with site.client(key) as client:
        headers = {"idempotency-key": "once"}
        started = client.post("/v1/backfills", json={"tables": ["pull_requests"]}, headers=headers)
        assert started.status_code == 202, started.text
        job_id = started.json()["job"]["job_id"]
        again = client.post("/v1/backfills", json={"tables": ["pull_requests"]}, headers=headers)
        assert again.json()["job"]["job_id"] == job_id

        def job() -> dict[str, Any]:
            found: dict[str, Any] = client.get(f"/v1/backfills/{job_id}").json()["job"]
            return found

        wait_for(lambda: job()["finished_at"] is not None)
        assert (job()["state"], job()["counts"]["embedded"]) == ("succeeded", 300), job()
        (covered,) = [row for row in client.get("/v1/coverage").json()["coverage"] if row["embedded"]]
        assert (covered["table"], covered["embedded"], covered["stale"]) == ("pull_requests", 300, 0)


def test_a_job_encodes_at_low_priority_beside_a_server(
    site: ServeSite, tenant: tuple[str, str], tmp_path: Path
) -> None:
    name, key = tenant
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(1, 6000)))
    site.rowbeam("load", str(file), "--tenant", name, "--table", "pull_requests")
    with site.client(key) as client:
        started = client.post("/v1/backfills", json={"tables": ["pull_requests"]})
        job = f"/v1/backfills/{started.json()['job']['job_id']}"

        def niceness() -> list[int]:
            """Of all threads of the job's encoders, once they have a text."""
            encoders = site.processes("EncodeStage")
            found = []
            for thread in [thread.id for each in encoders for thread in each.threads()]:
                with suppress(ProcessLookupError):  # it has ended since
                    found.append(os.getpriority(os.PRIO_PROCESS, thread))
            assert client.get(job).json()["job"]["finished_at"] is None, "it was over before it was seen"
            return found

        wait_for(lambda: BULK_NICENESS in niceness())
        assert set(niceness()) == {BULK_NICENESS}
        # The replica that callers wait for has its own.
        assert site.replica("LocalModelCpu").nice() == 0
        client.delete(job).raise_for_status()
        wait_for(lambda: client.get(job).json()["job"]["finished_at"] is not None)


def test_a_client_that_hangs_up_frees_its_slot(site: ServeSite, tenant: tuple[str, str]) -> None:
    name, key = tenant
    with site.client() as admin:
        admin.patch(f"/v1/tenants/{name}/limits", json={"concurrent_requests": 1}).raise_for_status()
    with site.client(key) as other:
        with slow_request(site, key):
            wait_for(lambda: embed(other, ["x"]).status_code == 429, 10)
        wait_for(lambda: embed(other, ["x"]).status_code == 200, 3)


def test_a_stranger_cannot_give_serve_orders(site: ServeSite, key: str) -> None:
    orders = {"x-request-timeout-seconds": "0.000001", "x-request-id": "not one"}
    with site.client(key) as client:
        answer = client.get("/v1/models", headers=orders)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] != "not one"


@pytest.mark.parametrize("deployment", ["LocalModelCpu", "Router"])
def test_a_killed_replica_is_replaced_and_every_request_is_answered(
    site: ServeSite, key: str, deployment: str
) -> None:
    victim = site.replica(deployment)
    with Load(site, key, clients=6) as load:
        victim.kill()
        wait_for(lambda: site.replicas(deployment) not in ([], [victim]))
        before = load.answered(200)
        wait_for(lambda: load.answered(200) > before + 20)
    assert load.odd == []
    assert set(load.answers) <= {200, 503}


def test_a_killed_postgres_is_started_again(site: ServeSite, key: str) -> None:
    site.postgres().kill()
    with site.client(key) as client:
        wait_for(lambda: client.get("/readyz").status_code == 503)
        wait_for(lambda: client.get("/readyz").status_code == 200)
        wait_for(lambda: embed(client, ["x"]).status_code == 200, 10)
