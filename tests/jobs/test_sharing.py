"""Jobs that share: a budget that stops one in time, and tenants that take turns on one cluster."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import pytest
from sqlalchemy import text

from ray_app.reports import JobProgress, JobState
from ray_app.settings import child_environment
from ray_app.spaces import BATCH_SIZE, Preference
from ray_app.stack.embedded import Stack
from tests.jobs.test_gateway_job import SECRET, gateway_settings
from tests.support.fake_gateway import FakeGateway
from tests.support.site import TABLE, JobSite
from tests.support.waiting import wait_for

pytestmark = pytest.mark.ray

ROWS = 2000


def test_a_job_stops_at_its_budget_and_goes_on_with_a_higher_one_paying_for_nothing_twice(
    open_site: Callable[..., JobSite],
) -> None:
    with FakeGateway(api_key=SECRET, dimensions=64) as gateway:
        site = open_site(gateway=gateway_settings(gateway))
        site.insert(ROWS)
        # 12,000 tokens, and this endpoint counts 9 for each row.
        budget = Decimal("0.00024")
        ran = command(site, "--tables", TABLE, "--prefer", "quality", "--budget", f"{budget:f}")
        assert ran.returncode == 3, ran.stderr
        assert "--resume job-" in ran.stdout
        (stopped,) = site.rowbeam.jobs(include_ended=True)
        assert stopped.state is JobState.STOPPED_AT_BUDGET, stopped.error
        assert stopped.budget is not None
        assert 0 < stopped.processed_records < ROWS
        assert stopped.processed_records + stopped.budget.rows_left == ROWS
        assert stopped.cost == stopped.budget.cost_spent <= budget
        # A batch may cost what its bytes would as tokens: 80 for each row at most.
        batch = BATCH_SIZE[Preference.QUALITY] * 80 * Decimal("0.02") / 1_000_000
        assert budget - stopped.cost < batch
        assert f"{stopped.processed_records:,} rows are done" in (stopped.error or "")
        assert len(set(gateway.texts)) == len(gateway.texts) == stopped.counts.chunks

        done = command(site, "--resume", stopped.job_id, "--budget", "1")
        assert done.returncode == 0, done.stderr
        assert len(set(gateway.texts)) == len(gateway.texts) == ROWS
        site.check_exact(ROWS)


def command(site: JobSite, *options: str) -> subprocess.CompletedProcess[str]:
    settings = site.rowbeam.workspace.settings
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from ray_app.cli import main; main()",
            "backfill",
            "--tenant",
            "acme",
            *options,
        ],
        env=child_environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_tenants_take_turns_whatever_the_size_of_their_jobs_and_a_broken_one_holds_nobody_up(
    open_site: Callable[..., JobSite],
) -> None:
    with FakeGateway(api_key="another", dimensions=64) as gateway:
        # A range takes 0.6 s: longer than a job on a busy machine takes to bring its next one.
        settings = {"local_model": "stub:600", "gateway": gateway_settings(gateway, outage_budget=30)}
        stack = Stack(open_site(**settings).rowbeam.workspace.settings)
        stack.up()
        try:
            shares, ends = share(open_site(**settings))
        finally:
            stack.down()
    # One for one, however many jobs a tenant has, but for what each had on its way to the ledger.
    assert abs(shares["acme"] - shares["small"]) <= SLACK, shares
    assert [ends[name].state for name in ("acme", "acme too", "small")] == [JobState.CANCELLED] * 3, ends
    assert ends["broken"].state is JobState.FAILED


#: Ranges of each job, more than any does before it is cancelled: the large tenant has two.
RANGES = 80
SLACK = 3
#: Ranges of the small tenant that are watched.
WATCHED = 3 * SLACK


def share(site: JobSite) -> tuple[Counter[str], dict[str, JobProgress]]:
    """A tenant with two jobs, one with one and one whose provider refuses its key, at once.

    Answers the ranges that each tenant finished while all three jobs worked, and how the jobs ended.
    """
    sizes = {"acme": 200 * RANGES, "small": 200 * RANGES, "broken": 400}
    for client, (name, rows) in enumerate(sizes.items(), 1):
        if client > 1:
            site.rowbeam.add_tenant(name, client_id=client)
        site.insert(rows, first=client * 100_000, client=client)
    site.sql(
        "INSERT INTO issues (id, client_id, summary, description) SELECT id, client_id, title, description"
        " FROM pull_requests WHERE client_id = 1"
    )
    ends: dict[str, JobProgress] = {}

    def backfill(name: str, tenant: str, table: str, prefer: Preference) -> None:
        ends[name] = site.rowbeam.backfill(tenant, tables=[table], prefer=prefer)

    jobs = [
        ("acme", "acme", TABLE, Preference.FAST),
        ("acme too", "acme", "issues", Preference.FAST),
        ("small", "small", TABLE, Preference.FAST),
        ("broken", "broken", TABLE, Preference.QUALITY),
    ]
    threads = [threading.Thread(target=backfill, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    shares = Counter[str]()

    def watched() -> bool:
        nonlocal shares
        order = finished(site)
        working = set(order)
        if len(working) == 3:
            last = max(order.index(job) for job in working)
            shares = Counter(tenant for tenant, _ in order[last:])
        return shares["small"] >= WATCHED or not any(thread.is_alive() for thread in threads)

    wait_for(watched)
    for job in site.rowbeam.jobs():
        site.rowbeam.cancel(job.job_id)
    for thread in threads:
        thread.join(60)
    return shares, ends


def finished(site: JobSite) -> list[tuple[str, str]]:
    """Tenant and table of each finished range that held rows, in the order they ended."""
    with site.database.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT t.name, r.table_name FROM rowbeam.ranges r JOIN rowbeam.jobs j USING (job_id)"
                " JOIN rowbeam.tenants t USING (incarnation) WHERE r.state = 'done' AND r.embedded > 0"
                " ORDER BY r.finished_at"
            )
        )
        return [(row.name, row.table_name) for row in rows]
