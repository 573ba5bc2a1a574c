"""A tenant's jobs over HTTP: started once, watched, cancelled, resumed, and nobody else's business."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, text

from ray_app.db import job_budgets, jobs
from ray_app.db.progress import job_progress
from ray_app.db.schema import dead_letters
from ray_app.errors import RayUnavailable
from ray_app.reports import JobState
from ray_app.settings import Settings
from ray_app.spaces import Preference
from ray_app.tenants import Tenant
from tests.support.api_site import ApiSite
from tests.support.waiting import PATIENCE, wait_for

BODY = {"tables": ["issues"]}


class Submissions:
    """A ``JobSubmitter`` that starts nothing and keeps what it was told; ``fault`` is raised instead."""

    def __init__(self) -> None:
        self.submitted: list[str] = []
        self.fault: Exception | None = None
        #: Called before the answer, in the place of a cluster.
        self.meanwhile: Callable[[str], None] = lambda job_id: None

    async def submit(self, job_id: str, tenant: Tenant) -> None:
        assert tenant.name
        await asyncio.to_thread(self.meanwhile, job_id)
        if self.fault is not None:
            raise self.fault
        self.submitted.append(job_id)


@pytest.fixture
def cluster() -> Submissions:
    return Submissions()


@pytest.fixture
def site(make_settings: Callable[..., Settings], cluster: Submissions) -> Iterator[ApiSite]:
    with ApiSite(make_settings(), jobs=cluster) as site:
        yield site


def code_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["code"])


def start(http: httpx.Client, key: str | None = None, body: dict[str, Any] | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return http.post("/v1/backfills", json=BODY if body is None else body, headers=headers)


def started_id(http: httpx.Client, key: str | None = None) -> str:
    answer = start(http, key)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job"]["job_id"])


def test_a_backfill_is_made_handed_over_and_shown(http: httpx.Client, cluster: Submissions) -> None:
    answer = http.post("/v1/backfills", json={"tables": ["issues"], "vector_types": ["content"]})
    assert answer.status_code == 202
    job = answer.json()["job"]
    assert cluster.submitted == [job["job_id"]]
    assert answer.headers["location"] == f"/v1/backfills/{job['job_id']}"
    assert (job["state"], job["tables"], job["vector_types"]) == ("pending", ["issues"], ["content"])
    assert http.get(answer.headers["location"]).json() == {"job": job}
    assert http.get("/v1/backfills").json() == {"jobs": [job]}


def test_without_a_body_all_tables_are_meant(http: httpx.Client) -> None:
    answer = http.post("/v1/backfills")
    assert answer.status_code == 202
    assert len(answer.json()["job"]["tables"]) > 5


def test_a_second_job_for_a_table_is_refused_with_the_first_ones_id(http: httpx.Client) -> None:
    first = started_id(http)
    answer = start(http)
    assert code_of(answer, 409) == "job_conflict"
    assert first in answer.json()["error"]["message"]


def test_a_repeated_request_answers_its_job_and_starts_nothing(
    http: httpx.Client, cluster: Submissions
) -> None:
    first = started_id(http, "k1")
    assert started_id(http, "k1") == first
    http.delete(f"/v1/backfills/{first}")
    assert started_id(http, "k1") == first, "also when it has ended"
    assert cluster.submitted == [first]
    assert code_of(start(http, "k1", {"tables": ["users"]}), 409) == "conflict"
    assert started_id(http, "k2") != first


@pytest.mark.parametrize("unusable", ["", "k" * 256, "é", "a\tb"])
def test_a_key_that_cannot_be_one_is_refused(http: httpx.Client, unusable: str) -> None:
    answer = http.post("/v1/backfills", json=BODY, headers={b"Idempotency-Key": unusable.encode()})
    assert code_of(answer, 400)
    assert http.get("/v1/backfills").json() == {"jobs": []}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tables": ["nowhere"]}, 404),
        ({"tables": ["issues", "\x00"]}, 404),
        ({"tables": []}, 400),
        ({"tables": "issues"}, 400),
        ({"vector_types": ["smell"]}, 400),
        ({"prefer": "best"}, 400),
        ({"tenant": "globex"}, 400),
        ([], 400),
    ],
)
def test_what_cannot_be_backfilled_is_refused(
    http: httpx.Client, cluster: Submissions, body: Any, status: int
) -> None:
    for path in ("/v1/backfills", "/v1/backfills/plan"):
        code_of(http.post(path, json=body), status)
    assert cluster.submitted == []


def test_a_job_nobody_takes_is_failed_and_the_repeat_submits_it_again(
    http: httpx.Client, cluster: Submissions
) -> None:
    cluster.fault = RayUnavailable("The head node ray-head-7.internal:6379 does not answer.")
    refused = start(http, "k1")
    assert code_of(refused, 503) == "jobs_unavailable"
    assert "ray-head" not in refused.text
    (job,) = http.get("/v1/backfills").json()["jobs"]
    assert (job["state"], job["resumable"]) == ("failed", True)
    assert "could not be started" in job["error"]
    assert code_of(start(http, "k1"), 503) == "jobs_unavailable"

    cluster.fault = None
    assert started_id(http, "k1") == job["job_id"]
    assert http.get(f"/v1/backfills/{job['job_id']}").json()["job"]["state"] == "pending"
    assert cluster.submitted == [job["job_id"]]


def test_a_job_nobody_took_does_not_stand_in_the_way(http: httpx.Client, cluster: Submissions) -> None:
    cluster.fault = RayUnavailable("Down.")
    assert start(http).status_code == 503
    cluster.fault = None
    assert start(http).status_code == 202


def test_a_fault_nobody_foresaw_leaves_no_job_behind_either(http: httpx.Client, cluster: Submissions) -> None:
    cluster.fault = ZeroDivisionError("at ray-head-7")
    answer = start(http, "k1")
    assert code_of(answer, 500) == "internal_error"
    assert "ray-head" not in answer.text
    assert http.get("/v1/backfills").json()["jobs"][0]["state"] == "failed"


def test_a_submission_that_worked_though_it_said_not_is_believed_to_the_driver(
    site: ApiSite, http: httpx.Client, cluster: Submissions
) -> None:
    cluster.fault = RayUnavailable("The answer was lost.")
    cluster.meanwhile = lambda job_id: void(jobs.take_job(site.workspace.ledger, job_id, new=True))
    answer = start(http, "k1")
    assert answer.status_code == 202
    assert answer.json()["job"]["state"] == "running"


def void(_: object) -> None:
    """Drop an answer where none is wanted."""


def test_a_client_that_hangs_up_leaves_a_job_that_is_driven(site: ApiSite, cluster: Submissions) -> None:
    key = site.add_tenant("acme", concurrent_requests=1)
    begun, go_on = threading.Event(), threading.Event()
    cluster.meanwhile = lambda job_id: begun.set() or void(go_on.wait(PATIENCE))
    body = json.dumps(BODY)
    head = [
        "POST /v1/backfills HTTP/1.1",
        "host: localhost",
        f"authorization: Bearer {key}",
        "idempotency-key: k1",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    with socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2]))) as line:
        line.sendall("\r\n".join([*head, "", body]).encode())
        assert begun.wait(PATIENCE)
    with site.http(key) as http:
        wait_for(lambda: http.get("/v1/backfills").status_code == 200)
        assert cluster.submitted == [], "its place was free again before the job was handed over"
        go_on.set()
        wait_for(lambda: len(cluster.submitted) == 1)
        assert started_id(http, "k1") == cluster.submitted[0]
    assert len(cluster.submitted) == 1


def test_a_tenant_sees_and_touches_its_own_jobs_only(site: ApiSite, http: httpx.Client) -> None:
    mine = started_id(http, "k1")
    with site.http(site.add_tenant("globex")) as other:
        theirs = started_id(other, "k1")
        assert theirs != mine
        assert [job["job_id"] for job in other.get("/v1/backfills").json()["jobs"]] == [theirs]
        for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/resume")):
            stolen = other.request(method, f"/v1/backfills/{mine}{suffix}")
            unknown = other.request(method, "/v1/backfills/job-000000000000" + suffix)
            assert code_of(stolen, 404) == "job_not_found"
            assert stolen.text.replace(mine, "X") == unknown.text.replace("job-000000000000", "X")
            assert dict(stolen.headers).keys() == dict(unknown.headers).keys()
    assert job_progress(site.workspace.ledger, mine).state is JobState.PENDING


@pytest.mark.parametrize("job_id", ["job-nothing", "%00", "%2e%2e", "a" * 300, "plan", "%ED%A0%80"])
def test_an_id_that_is_none_is_404(http: httpx.Client, job_id: str) -> None:
    for method in ("GET", "DELETE"):
        assert code_of(http.request(method, f"/v1/backfills/{job_id}"), 404)


def test_cancelling_is_idempotent_and_waits_for_what_is_in_flight(site: ApiSite, http: httpx.Client) -> None:
    ledger = site.workspace.ledger
    pending = started_id(http)
    for _ in range(2):
        cancelled = http.delete(f"/v1/backfills/{pending}")
        assert (cancelled.status_code, cancelled.json()["job"]["state"]) == (200, "cancelled")

    running = jobs.take_job(ledger, started_id(http))
    for _ in range(2):
        stopping = http.delete(f"/v1/backfills/{running.job_id}")
        assert (stopping.status_code, stopping.json()["job"]["state"]) == (202, "cancel_requested")
    assert code_of(http.post(f"/v1/backfills/{running.job_id}/resume"), 409) == "conflict"
    jobs.finish_job(ledger, running, JobState.CANCELLED)
    assert http.delete(f"/v1/backfills/{running.job_id}").status_code == 200

    done = jobs.take_job(ledger, started_id(http))
    jobs.finish_job(ledger, done, JobState.SUCCEEDED)
    kept = http.delete(f"/v1/backfills/{done.job_id}")
    assert (kept.status_code, kept.json()["job"]["state"]) == (200, "succeeded")


def test_a_stopped_job_is_resumed_once(site: ApiSite, http: httpx.Client, cluster: Submissions) -> None:
    ledger = site.workspace.ledger
    job = jobs.take_job(ledger, started_id(http))
    jobs.finish_job(ledger, job, JobState.FAILED, "Postgres at db-7.internal is gone.")
    path = f"/v1/backfills/{job.job_id}"
    assert http.get(path).json()["job"]["resumable"] is True
    for _ in range(2):
        resumed = http.post(f"{path}/resume")
        assert (resumed.status_code, resumed.json()["job"]["state"]) == (202, "pending")
    assert cluster.submitted == [job.job_id] * 2, "once to start it and once to resume it"
    again = jobs.take_job(ledger, job.job_id, new=True)
    assert again.run == job.run + 1
    jobs.finish_job(ledger, again, JobState.SUCCEEDED)
    assert code_of(http.post(f"{path}/resume"), 409) == "conflict"


def test_a_jobs_budget_is_set_shown_and_raised(
    site: ApiSite, http: httpx.Client, cluster: Submissions
) -> None:
    ledger, body = site.workspace.ledger, {**BODY, "budget": "2.50", "max_tokens": 1000}
    made = start(http, "once", body).json()["job"]
    assert (made["budget"]["cost_limit"], made["budget"]["token_limit"]) == ("2.50", 1000)
    assert start(http, "once", {**body, "budget": "2.5"}).json()["job"]["job_id"] == made["job_id"]
    assert code_of(start(http, "once", {**body, "budget": "2.51"}), 409) == "conflict"
    assert code_of(start(http, "once"), 409) == "conflict"
    job = jobs.take_job(ledger, made["job_id"])
    assert job_budgets.reserve(ledger, job.job_id, Decimal(2), 900) is True
    job_budgets.settle(ledger, job.job_id, (Decimal(2), 900), (Decimal("1.25"), 800))
    job_budgets.stop(ledger, job.job_id)
    jobs.finish_job(ledger, job, JobState.STOPPED_AT_BUDGET)

    path = f"/v1/backfills/{job.job_id}"
    stopped = http.get(path).json()["job"]
    assert (stopped["state"], stopped["resumable"]) == ("stopped_at_budget", True)
    assert (stopped["budget"]["cost_spent"], stopped["budget"]["tokens_spent"]) == ("1.25", 800)
    for too_low in (None, {"max_tokens": 800}, {"budget": "1.25"}):
        assert http.post(f"{path}/resume", json=too_low).status_code == 400
    resumed = http.post(f"{path}/resume", json={"max_tokens": 5000})
    assert (resumed.status_code, resumed.json()["job"]["budget"]["token_limit"]) == (202, 5000)
    assert cluster.submitted == [job.job_id] * 2


@pytest.mark.parametrize("limits", [{"budget": "0"}, {"budget": "-1"}, {"max_tokens": 0}, {"budget": "NaN"}])
def test_a_budget_that_is_none_is_refused(http: httpx.Client, limits: dict[str, Any]) -> None:
    assert start(http, None, {**BODY, **limits}).status_code in (400, 422)
    assert http.post("/v1/backfills/plan", json={**BODY, "budget": "1"}).status_code in (400, 422)


def test_a_job_tells_its_progress_and_none_of_the_servers_insides(site: ApiSite, http: httpx.Client) -> None:
    ledger = site.workspace.ledger
    job = jobs.take_job(ledger, started_id(http))
    jobs.heartbeat(
        ledger,
        job,
        {
            "records_per_second": 7.5,
            "estimated_completion": "2026-11-23T12:00:00+00:00",
            "provider": "local-cpu",
            "errors": ["issues 7: The text has no words."],
        },
    )
    running = http.get(f"/v1/backfills/{job.job_id}").json()["job"]
    assert (running["state"], running["records_per_second"]) == ("running", 7.5)
    assert running["estimated_completion"].startswith("2026-11-23T12:00:00")
    assert (running["provider"], running["errors"]) == ("local-cpu", ["issues 7: The text has no words."])
    assert running["counts"]["read"] == running["processed_records"] == 0
    assert running["error"] is None

    jobs.finish_job(ledger, job, JobState.FAILED, "See /home/rowbeam/run/jobs/x.log on ray-head-7.")
    for path in (f"/v1/backfills/{job.job_id}", "/v1/backfills"):
        shown = http.get(path).text
        for inside in ("/home", "ray-head-7", socket.gethostname(), str(os.getpid()), "acme"):
            assert inside not in shown.replace(job.job_id, "")
    assert "resume it" in http.get(f"/v1/backfills/{job.job_id}").json()["job"]["error"]


def test_the_list_is_the_newest_and_can_leave_out_what_has_ended(http: httpx.Client) -> None:
    ids = []
    for _ in range(3):
        ids.append(started_id(http))
        http.delete(f"/v1/backfills/{ids[-1]}")
    ids.append(started_id(http))

    def listed(**params: object) -> list[str]:
        return [job["job_id"] for job in http.get("/v1/backfills", params=params).json()["jobs"]]

    assert listed() == ids[::-1]
    assert listed(limit=2) == ids[:1:-1]
    assert listed(active=True) == ids[3:]
    for limit in (0, 101, "x"):
        assert http.get("/v1/backfills", params={"limit": limit}).status_code == 400


def test_a_plan_changes_nothing(site: ApiSite, http: httpx.Client) -> None:
    add_rows(site, 3)
    planned = http.post("/v1/backfills/plan", json={"tables": ["pull_requests"]})
    assert planned.status_code == 200
    plan = planned.json()
    assert (plan["total_rows"], plan["total_to_embed"]) == (3, 3)
    assert [row["table"] for row in plan["tables"]] == ["pull_requests"] * len(plan["tables"])
    assert plan["estimated_cost"] == "0"
    assert "ROWBEAM" not in planned.text
    assert http.get("/v1/backfills").json() == {"jobs": []}
    assert http.post("/v1/backfills/plan", json={"tables": ["pull_requests"]}).json() == plan


def add_rows(site: ApiSite, count: int) -> None:
    with site.workspace.source.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO pull_requests (id, client_id, title) SELECT n, :client, 'row ' || n"
                " FROM generate_series(1, :count) AS n"
            ),
            {"client": site.tenant("acme").client_id, "count": count},
        )


def test_dead_letters_are_listed_and_tried_again(
    site: ApiSite, http: httpx.Client, cluster: Submissions
) -> None:
    assert http.get("/v1/dead-letters").json() == {"dead_letters": []}
    nothing = http.post("/v1/dead-letters/redrive")
    assert (nothing.status_code, nothing.json()) == (200, {"job": None})
    with site.http(site.add_tenant("globex")) as other:
        for name, record in (("acme", "7"), ("globex", "8")):
            add_dead_letter(site, name, record)
        assert [letter["record_id"] for letter in other.get("/v1/dead-letters").json()["dead_letters"]] == [
            "8"
        ]
    (letter,) = http.get("/v1/dead-letters").json()["dead_letters"]
    assert (letter["table"], letter["record_id"], letter["message"]) == ("issues", "7", "Odd.")
    started = http.post("/v1/dead-letters/redrive")
    assert started.status_code == 202
    assert cluster.submitted == [started.json()["job"]["job_id"]]
    assert started.json()["job"]["kind"] == "redrive"
    assert code_of(http.post("/v1/dead-letters/redrive"), 409) == "job_conflict"


def add_dead_letter(site: ApiSite, tenant: str, record: str) -> None:
    with site.workspace.ledger.begin() as connection:
        connection.execute(
            insert(dead_letters).values(
                incarnation=site.tenant(tenant).incarnation,
                table_name="issues",
                vector_type="content",
                space_id=site.workspace.providers.spaces_for(Preference.FAST).space_id,
                record_id=record,
                content_hash="h",
                stage="embed",
                error_class="ItemError",
                message="Odd.",
            )
        )


def test_the_admin_key_starts_no_tenants_job(admin: httpx.Client, cluster: Submissions) -> None:
    assert code_of(start(admin), 403) == "permission_denied"
    assert cluster.submitted == []


@pytest.mark.ray
def test_a_backfill_over_http_runs_to_its_end(make_settings: Callable[..., Settings]) -> None:
    """With a real driver and a Ray of its own."""
    with ApiSite(make_settings()) as site, site.http(site.add_tenant("acme")) as http:
        add_rows(site, 20)
        answer = http.post("/v1/backfills", json={"tables": ["pull_requests"]})
        path = answer.headers["location"]
        wait_for(lambda: http.get(path).json()["job"]["finished_at"] is not None)
        job = http.get(path).json()["job"]
        assert (job["state"], job["counts"]["embedded"], job["successful_records"]) == ("succeeded", 20, 20)
        rows = http.get("/v1/coverage").json()["coverage"]
        assert [(row["rows"], row["embedded"]) for row in rows if row["table"] == "pull_requests"] == [
            (20, 20)
        ]
        usage = http.get("/v1/usage").json()
        assert {row["table"] for row in usage["rows"]} == {"pull_requests"}
        assert usage["texts"] == 20
