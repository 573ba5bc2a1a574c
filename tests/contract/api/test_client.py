"""The client against a real server: HTTP, Postgres and the store are those of production."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from ray_app.client import (
    AdminClient,
    AsyncAdminClient,
    AsyncRowbeamClient,
    BadRequest,
    BatchSize,
    Conflict,
    Filter,
    Forbidden,
    Like,
    NotFound,
    RowbeamClient,
    StillRunning,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from ray_app.encoders.stub import POISON
from ray_app.errors import InputError, RayUnavailable
from ray_app.offboarding.reports import Stage
from ray_app.reports import JobState
from ray_app.settings import Settings
from ray_app.tenants import Tenant, TenantState
from tests.support.api_site import ApiSite


class Jobs:
    """A ``JobSubmitter`` that starts nothing; ``fault`` is raised instead."""

    fault: Exception | None = None

    async def submit(self, job_id: str, tenant: Tenant) -> None:
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def site(make_settings: Callable[..., Settings], jobs: Jobs) -> Iterator[ApiSite]:
    with ApiSite(make_settings(), jobs=jobs) as site:
        yield site


@pytest.fixture
def client(site: ApiSite, key: str) -> Iterator[RowbeamClient]:
    with RowbeamClient(site.url, key) as client:
        yield client


@pytest.fixture
def operator(site: ApiSite) -> Iterator[AdminClient]:
    with AdminClient(site.url, site.admin_key) as client:
        yield client


def issues(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": number, "summary": f"change number{number}", "status": "open" if number % 2 else "done"}
        for number in range(first, first + count)
    ]


def test_rows_are_searchable_when_the_upsert_returns(client: RowbeamClient) -> None:
    result = client.upsert("issues", issues(200), batch=BatchSize(rows=64))
    assert result.counts["embedded"] == result.rows == 200
    assert result.complete
    assert result.tokens > 0
    assert set(result.taken[0].indexes) == {"content"}
    hits = client.search("number123", tables=["issues"], limit=1)
    assert [(hit.table, hit.id) for hit in hits] == [("issues", "123")]
    assert hits.scoring == "cosine"
    again = client.upsert("issues", issues(200))
    assert (again.counts["unchanged"], again.tokens) == (200, 0)


def test_each_row_has_the_outcome_that_it_deserves(client: RowbeamClient) -> None:
    now = datetime.now(UTC)
    client.upsert("issues", [{"id": 5, "summary": "newer words", "updated_at": now}])
    result = client.upsert(
        "issues",
        [
            {"id": 1, "summary": "login fails"},
            {"id": 2, "status": "open"},
            {"id": 3, "summary": POISON},
            {"id": 4, "summary": "gone", "active": False},
            {"id": 5, "summary": "older words", "updated_at": now - timedelta(days=1)},
            {"id": 6, "summary": b"bytes"},
            {"id": 7, "summary": "too late", "updated_at": "no time"},
            {"summary": "no key"},
            {"id": 1, "summary": "login fails differently"},
        ],
    )
    assert result.counts == {
        "embedded": 2, "older": 1, "no_text": 1, "deleted": 1, "dead": 1, "failed": 3,
    }  # fmt: skip
    assert sum(result.counts.values()) == result.rows == 9
    assert [(row.id, bool(row.reason)) for row in result.dead] == [("3", True)]
    assert sorted(row.position for row in result.failed) == [5, 6, 7]
    assert [hit.snippet for hit in client.search("login", tables=["issues"], limit=1)] == [
        "login fails differently"
    ]


def test_one_record_can_be_looked_at_and_taken_out(client: RowbeamClient) -> None:
    moment = datetime(2026, 11, 1, 12, tzinfo=UTC)
    client.upsert("issues", [{"id": 1, "summary": "login fails", "updated_at": moment}])
    (vectors,) = client.record("issues", 1).vectors
    assert (vectors.vector_type, vectors.updated_at, vectors.chunks) == ("content", moment, 1)
    assert client.delete("issues", "1").deleted == 1
    assert client.delete("issues", 1).deleted == 0
    with pytest.raises(NotFound) as missing:
        client.record("issues", 1)
    assert (missing.value.code, missing.value.status_code) == ("record_not_found", 404)
    assert missing.value.request_id


@pytest.mark.parametrize("record", ["..", ".", "a/b", "../tenants", "50%", "a b", "ü", "?x=1", "#top"])
def test_ids_that_look_like_paths_stay_ids(client: RowbeamClient, site: ApiSite, record: str) -> None:
    with site.workspace.source.begin() as connection:
        connection.execute(text("ALTER TABLE issues ALTER COLUMN id TYPE text USING id::text"))
    client.upsert("issues", [{"id": record, "summary": "an odd key"}])
    assert client.record("issues", record).id == record
    assert client.delete("issues", record).deleted == 1


def test_searches_by_text_vector_likeness_and_filter(client: RowbeamClient) -> None:
    client.upsert("issues", issues(20))
    client.upsert("issues", [{"id": 50, "summary": "unique zebra crossing", "status": "open"}])
    (model, *_) = client.models()
    vector = client.embed(["unique zebra crossing"], model=model.id).vectors[0]
    assert len(vector) == model.dimensions
    assert math.isclose(sum(number * number for number in vector), 1, rel_tol=1e-5)
    assert client.search(vector=vector, tables=["issues"], limit=1)[0].id == "50"
    assert "3" not in [hit.id for hit in client.search(like=Like("issues", 3), limit=50)]
    done = client.search("change", filters=[Filter("status", "eq", "done")], limit=50)
    assert {hit.data["status"] for hit in done} == {"done"}
    assert len(done) == 10
    assert len(client.search("unique zebra crossing", score_threshold=0.99)) == 1
    assert client.search("zebra", hybrid=True, limit=1)[0].id == "50"
    assert client.search("zebra", hybrid=True).scoring == "rrf"


def test_a_search_for_nothing_or_for_two_things_is_refused(client: RowbeamClient) -> None:
    with pytest.raises(InputError):
        client.search()
    with pytest.raises(InputError):
        client.search("text", vector=[0.1])
    client.upsert("issues", issues(1))
    with pytest.raises(BadRequest) as refused:
        client.search("text", filters=[Filter("status", "gt", "open")])
    assert refused.value.code == "invalid_filter"


def test_many_texts_are_embedded_in_order(client: RowbeamClient) -> None:
    texts = [f"words of text{number}" for number in range(600)]
    model = client.models()[0].id
    found = client.embed(texts, model=model)
    assert len(found.vectors) == 600
    assert found.tokens == 3 * 600
    (alone,) = client.embed([texts[511]], model=model).vectors
    assert list(found.vectors[511]) == pytest.approx(list(alone), abs=1e-6)


def test_a_backfill_is_started_once_watched_and_cancelled(client: RowbeamClient) -> None:
    night = {"idempotency_key": "night", "budget": Decimal("1e-2"), "max_tokens": 5}
    job = client.start_backfill(["issues"], **night)
    assert client.start_backfill(["issues"], **night).job_id == job.job_id
    assert (job.state, job.tables) == (JobState.PENDING, ("issues",))
    assert client.backfill(job.job_id).job_id == job.job_id
    assert [each.job_id for each in client.backfills(active=True)] == [job.job_id]
    with pytest.raises(Conflict) as clash:
        client.start_backfill(["issues"])
    assert clash.value.code == "job_conflict"
    seen: list[JobState] = []
    with pytest.raises(StillRunning) as waited:
        client.wait_for_backfill(
            job.job_id, every=0.05, at_most=0.2, watch=lambda now: seen.append(now.state)
        )
    assert waited.value.job.job_id == job.job_id
    assert len(seen) > 1
    client.cancel_backfill(job.job_id)
    assert client.wait_for_backfill(job.job_id, every=0.05, at_most=20).state is JobState.CANCELLED
    resumed = client.resume_backfill(job.job_id, budget=Decimal("0.5"), max_tokens=10)
    assert resumed.state.active
    assert resumed.budget is not None
    assert (resumed.budget.cost_limit, resumed.budget.token_limit) == (Decimal("0.5"), 10)


def test_a_plan_costs_and_changes_nothing(client: RowbeamClient) -> None:
    plan = client.plan_backfill(["issues"])
    assert [(each.table, each.vector_type) for each in plan.tables] == [("issues", "content")]
    assert plan.estimated_cost == Decimal(0)
    assert client.backfills() == []


def test_a_server_without_a_cluster_says_so(site: ApiSite, key: str, jobs: Jobs) -> None:
    jobs.fault = RayUnavailable("No cluster at 10.0.0.1.")
    with RowbeamClient(site.url, key, max_wait=0) as client, pytest.raises(Unavailable) as refused:
        client.start_backfill(["issues"])
    assert refused.value.code == "jobs_unavailable"
    assert "10.0.0.1" not in str(refused.value)


def test_dead_letters_coverage_and_usage_are_told(client: RowbeamClient, site: ApiSite) -> None:
    client.upsert("issues", [*issues(3), {"id": 9, "summary": POISON}])
    assert [(letter.table, letter.record_id) for letter in client.dead_letters()] == [("issues", "9")]
    (issues_row,) = [row for row in client.coverage() if row.table == "issues"]
    assert (issues_row.points, issues_row.dead) == (3, 1)
    site.services.usage.flush()
    usage = client.usage()
    assert usage.tokens == sum(row.tokens for row in usage.rows) > 0
    assert usage.first.day == 1
    job = client.redrive()
    assert job is not None
    assert job.kind == "redrive"


def test_a_client_that_is_limited_waits_and_gets_through(site: ApiSite) -> None:
    key = site.add_tenant("small", tokens_per_minute=60)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        time.sleep(seconds)

    with RowbeamClient(site.url, key, sleep=sleep) as client:
        assert client.upsert("issues", [{"id": 1, "summary": "wo " * 56}]).complete
        for number in range(100):
            assert client.upsert(
                "issues", [{"id": number, "summary": f"one two three four {number}"}]
            ).complete
            if waits:
                break
    assert len(waits) == 1, "whoever waits as long as it is told is let in"


def test_a_client_that_may_not_wait_is_told_how_long_it_would_be(site: ApiSite) -> None:
    key = site.add_tenant("small", requests_per_minute=1)
    with RowbeamClient(site.url, key, max_wait=1) as client:
        client.backfills()
        with pytest.raises(TooManyRequests) as refused:
            client.backfills()
    assert refused.value.retry_after is not None
    assert 30 < refused.value.retry_after <= 120


def test_clients_together_lose_no_row(site: ApiSite) -> None:
    key = site.add_tenant("busy", concurrent_requests=2)
    results = []

    def push(part: int) -> None:
        with RowbeamClient(site.url, key) as client:
            results.append(client.upsert("issues", issues(20, part * 100), batch=BatchSize(rows=10)))

    threads = [threading.Thread(target=push, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 4
    assert all(result.counts["embedded"] == 20 for result in results)
    with RowbeamClient(site.url, key) as client:
        (row,) = [row for row in client.coverage() if row.table == "issues"]
    assert row.points == 80


def test_wrong_keys_are_told_apart(site: ApiSite, client: RowbeamClient, key: str) -> None:
    with RowbeamClient(site.url, key[:-1]) as stranger, pytest.raises(Unauthorized):
        stranger.models()
    with AdminClient(site.url, key) as tenant, pytest.raises(Forbidden):
        tenant.tenants()
    with RowbeamClient(site.url, site.admin_key) as operator, pytest.raises(Forbidden):
        operator.search("anything")
    with pytest.raises(Forbidden) as refused:
        client.upsert("issues", [{"id": 1, "client_id": 999_999, "summary": "another's"}])
    assert refused.value.result is not None
    assert refused.value.result.counts["failed"] == 1


def test_an_operator_manages_tenants_keys_and_limits(operator: AdminClient, site: ApiSite) -> None:
    new = operator.add_tenant("globex", client_id=77)
    assert (new.tenant.name, new.tenant.client_id, new.tenant.state) == ("globex", 77, TenantState.ACTIVE)
    assert new.api_key.text not in repr(new)
    with pytest.raises(Conflict) as clash:
        operator.add_tenant("globex")
    assert clash.value.code == "tenant_exists"
    assert [tenant.name for tenant in operator.tenants()] == ["globex"]
    limits = operator.set_limits("globex", requests_per_minute=60, monthly_cost=Decimal("1.5"))
    assert (limits.requests_per_minute, limits.monthly_cost) == (60, Decimal("1.5"))
    assert operator.set_limits("globex", monthly_cost=None).monthly_cost is None
    added = operator.add_key("globex")
    rotated = operator.rotate_key("globex", added.key_id, grace=0)
    assert rotated.replaced.key_id == added.key_id
    assert operator.revoke_key("globex", new.api_key.key_id).usable_left == 1
    assert len(operator.keys("globex")) == len(operator.tenant("globex").keys) == 3
    with RowbeamClient(site.url, rotated.api_key.text) as tenant:
        assert tenant.upsert("issues", issues(1)).complete
    with RowbeamClient(site.url, added.text) as old, pytest.raises(Unauthorized):
        old.models()
    report = operator.remove_tenant("globex")
    assert report.proven
    (erasure,) = operator.erasures()
    assert (erasure.stage, erasure.record) == (Stage.FIRST_ROUND, report.record)
    with pytest.raises(NotFound):
        operator.tenant("globex")


def test_the_asynchronous_clients_do_the_same(site: ApiSite, key: str) -> None:
    async def work() -> None:
        async with (
            AsyncRowbeamClient(site.url, key) as client,
            AsyncAdminClient(site.url, site.admin_key) as operator,
        ):
            parts = [client.upsert("issues", issues(20, part * 100)) for part in range(4)]
            results = await asyncio.gather(*parts)
            assert all(result.counts["embedded"] == 20 for result in results)
            hits = await client.search("number303", tables=["issues"], limit=1)
            assert hits[0].id == "303"
            assert (await client.delete("issues", 303)).deleted == 1
            with pytest.raises(NotFound):
                await client.record("issues", 303)
            assert [tenant.name for tenant in await operator.tenants()] == ["acme"]
            limits = await operator.set_limits("acme", concurrent_requests=3)
            assert limits.concurrent_requests == 3

    asyncio.run(work())


def test_a_cancelled_call_leaves_the_client_usable(site: ApiSite, key: str) -> None:
    async def work() -> None:
        async with AsyncRowbeamClient(site.url, key) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.upsert("issues", issues(500)), 0.05)
            assert (await client.upsert("issues", issues(5))).complete

    asyncio.run(work())


@pytest.mark.parametrize(
    ("kind", "twin"), [(RowbeamClient, AsyncRowbeamClient), (AdminClient, AsyncAdminClient)]
)
def test_both_clients_have_the_same_methods(kind: type, twin: type) -> None:
    def methods(of: type) -> dict[str, inspect.Signature]:
        found = inspect.getmembers(of, inspect.isfunction)
        return {name: inspect.signature(method) for name, method in found if not name.startswith("_")}

    assert methods(kind) == methods(twin) | {"close": methods(kind)["close"]}
    assert all(inspect.iscoroutinefunction(getattr(twin, name)) for name in methods(twin))


def test_a_server_that_is_away_is_waited_for(site: ApiSite, key: str) -> None:
    """The first attempts meet a port nobody listens on; then the server is there."""
    attempts: list[int] = []

    class LateTransport(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            attempts.append(1)
            if len(attempts) < 3:
                request.url = request.url.copy_with(port=1)
            return super().handle_request(request)

    with RowbeamClient(site.url, key, transport=LateTransport()) as client:
        assert client.upsert("issues", issues(3)).complete
    assert len(attempts) == 3
