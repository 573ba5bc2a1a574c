from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select, update

from ray_app.db import jobs, ranges
from ray_app.db.job_owners import LEASE, host_id
from ray_app.db.jobs import JobRequest, create_job, finish_job, heartbeat, take_job
from ray_app.db.progress import job_progress, list_jobs
from ray_app.db.ranges import RangeSpec
from ray_app.db.registry import TenantRegistry
from ray_app.db.schema import jobs as jobs_table
from ray_app.errors import ConflictError, JobConflict, LostJob, UnknownJob
from ray_app.parts import Part, PartKey
from ray_app.reports import Counts, JobState
from ray_app.tenants import Placement, Tenant

REQUEST = JobRequest(("issues",), ("content",), None)
WORK = [
    RangeSpec("rows", "issues", "content", None, "10", 10),
    RangeSpec("rows", "issues", "content", "10", None, 5),
]


@pytest.fixture
def tenant(database: Engine) -> Tenant:
    return TenantRegistry(database).create("acme", 1, Placement.EMBEDDED)[0]


def make_job(database: Engine, tenant: Tenant, *tables: str) -> str:
    request = replace(REQUEST, tables=tables or REQUEST.tables)
    return create_job(database, tenant.incarnation, "backfill", request, WORK)


def part(job: jobs.TakenJob, seq: int, lo: str | None, hi: str | None, counts: Counts) -> Part:
    return Part(PartKey(job.job_id, job.run, seq, lo, hi), "issues", "content", "space", 1, counts)


def settle(database: Engine, item: Part) -> bool:
    with database.begin() as connection:
        return ranges.settle_part(connection, item)


def orphan(database: Engine, job_id: str) -> None:
    """Give the job an owner process that has died, as kill -9 leaves it."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    with database.begin() as connection:
        connection.execute(
            update(jobs_table).where(jobs_table.c.job_id == job_id).values(owner_pid=child.pid)
        )


def test_a_second_job_on_the_same_table_is_refused_with_the_firsts_id(
    database: Engine, tenant: Tenant
) -> None:
    first = make_job(database, tenant, "issues", "projects")
    with pytest.raises(JobConflict) as refusal:
        make_job(database, tenant, "users", "projects")
    assert refusal.value.job_id == first
    assert first in str(refusal.value)
    make_job(database, tenant, "users")
    assert len(list_jobs(database, include_ended=True)) == 2


def test_another_tenants_job_on_the_same_table_is_not_in_the_way(database: Engine, tenant: Tenant) -> None:
    other, _ = TenantRegistry(database).create("globex", 2, Placement.EMBEDDED)
    make_job(database, tenant)
    make_job(database, other)


def test_parts_end_their_range_when_they_chain_and_count_once(database: Engine, tenant: Tenant) -> None:
    job = take_job(database, make_job(database, tenant))
    counts = Counts(read=4, embedded=4, chunks=4)

    assert settle(database, part(job, 0, "6", "10", counts))
    assert job_progress(database, job.job_id).current_batch == 0
    assert settle(database, part(job, 0, None, "6", counts))
    assert not settle(database, part(job, 0, None, "6", counts)), "Ray repeats calls"

    progress = job_progress(database, job.job_id)
    assert progress.current_batch == 1
    assert progress.counts == Counts(read=8, embedded=8, chunks=8)
    assert [item.seq for item in ranges.pending(database, job.job_id)] == [1]


def test_a_resume_starts_unfinished_ranges_over_and_refuses_the_former_run(
    database: Engine, tenant: Tenant
) -> None:
    job_id = make_job(database, tenant)
    first = take_job(database, job_id)
    counts = Counts(read=10, embedded=10, chunks=10)
    settle(database, part(first, 0, None, "10", counts))
    settle(database, part(first, 1, "10", "12", Counts(read=2, embedded=2, chunks=2)))
    orphan(database, job_id)
    assert job_progress(database, job_id).state is JobState.INTERRUPTED

    second = take_job(database, job_id)

    assert second.run == first.run + 1
    assert job_progress(database, job_id).counts == counts
    with pytest.raises(LostJob):
        settle(database, part(first, 1, "12", None, counts))
    with pytest.raises(LostJob):
        heartbeat(database, first, {})
    assert [(item.lo, item.hi) for item in ranges.pending(database, job_id)] == [("10", None)]


def test_a_job_whose_driver_lives_cannot_be_taken(database: Engine, tenant: Tenant) -> None:
    job_id = make_job(database, tenant)
    take_job(database, job_id)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with database.begin() as connection:
            connection.execute(update(jobs_table).values(owner_pid=sleeper.pid))
        with pytest.raises(JobConflict, match="still running"):
            take_job(database, job_id)
        with database.begin() as connection:
            connection.execute(
                update(jobs_table).values(heartbeat_at=func.now() - LEASE - timedelta(seconds=1))
            )
        assert take_job(database, job_id).run == 2, "a silent driver has lost its lease"
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_new_job_takes_over_the_tables_of_a_dead_one(database: Engine, tenant: Tenant) -> None:
    first = make_job(database, tenant)
    take_job(database, first)
    orphan(database, first)
    second = make_job(database, tenant)
    assert job_progress(database, first).state is JobState.INTERRUPTED
    assert job_progress(database, second).state is JobState.PENDING


def test_cancel_stops_leasing_and_unlocks_at_the_end(database: Engine, tenant: Tenant) -> None:
    job = take_job(database, make_job(database, tenant))
    with database.begin() as connection:
        assert ranges.lease(connection, job.job_id, job.run, 0)
    assert jobs.request_cancel(database, job.job_id) is JobState.CANCEL_REQUESTED
    with database.begin() as connection:
        assert not ranges.lease(connection, job.job_id, job.run, 1)
    assert settle(database, part(job, 0, None, "10", Counts(read=1, unchanged=1))), "what is in flight ends"
    assert heartbeat(database, job, {}) is JobState.CANCEL_REQUESTED
    finish_job(database, job, JobState.CANCELLED)
    assert job_progress(database, job.job_id).finished_at is not None
    make_job(database, tenant)


def test_a_job_that_ended_cannot_be_cancelled_or_resumed(database: Engine, tenant: Tenant) -> None:
    job = take_job(database, make_job(database, tenant))
    finish_job(database, job, JobState.SUCCEEDED)
    with pytest.raises(ConflictError, match="ended"):
        jobs.request_cancel(database, job.job_id)
    with pytest.raises(ConflictError, match="nothing to resume"):
        take_job(database, job.job_id)
    with pytest.raises(LostJob):
        settle(database, part(job, 0, None, "10", Counts()))


def test_a_job_cancelled_before_its_driver_came_is_not_resumed_by_it(
    database: Engine, tenant: Tenant
) -> None:
    job_id = make_job(database, tenant)
    assert jobs.request_cancel(database, job_id) is JobState.CANCELLED
    with pytest.raises(ConflictError, match="before its driver"):
        take_job(database, job_id, new=True)
    assert job_progress(database, job_id).state is JobState.CANCELLED
    assert take_job(database, job_id).run == 1, "but by whoever asks for it"


def test_an_unknown_job_is_named(database: Engine) -> None:
    for call in (job_progress, take_job, jobs.request_cancel):
        with pytest.raises(UnknownJob, match="job-none"):
            call(database, "job-none")  # type: ignore[operator]


def test_a_tenant_sees_its_own_jobs_only_and_no_text_is_refused_by_the_database(
    database: Engine, tenant: Tenant
) -> None:
    other, _ = TenantRegistry(database).create("globex", 2, Placement.EMBEDDED)
    mine, theirs = make_job(database, tenant), make_job(database, other)
    assert job_progress(database, mine, tenant.incarnation).job_id == mine
    for unknown in (theirs, "job-none", "\x00", "\ud800", ""):
        with pytest.raises(UnknownJob) as refusal:
            job_progress(database, unknown, tenant.incarnation)
        assert str(refusal.value).replace(repr(unknown), "X").startswith("There is no job X.")
    second = make_job(database, tenant, "users")
    listed = list_jobs(database, include_ended=False, incarnation=tenant.incarnation)
    assert [job.job_id for job in listed] == [second, mine]
    (newest,) = list_jobs(database, include_ended=True, incarnation=tenant.incarnation, limit=1)
    assert newest.job_id == second


def test_progress_stays_readable_after_the_end(database: Engine, tenant: Tenant) -> None:
    job = take_job(database, make_job(database, tenant))
    heartbeat(database, job, {"records_per_second": 7.5, "provider": "stub", "errors": ["a", "b"]})
    running = job_progress(database, job.job_id)
    assert (running.total_records, running.total_batches, running.records_per_second) == (15, 2, 7.5)
    settle(database, part(job, 0, None, "10", Counts(read=10, embedded=9, dead=1, chunks=9)))
    finish_job(database, job, JobState.FAILED, "why")

    ended = job_progress(database, job.job_id)
    assert ended.state is JobState.FAILED
    assert ended.error == "why"
    assert ended.provider == "stub"
    assert ended.errors == ("a", "b")
    assert (ended.processed_records, ended.successful_records, ended.failed_records) == (10, 9, 1)
    assert ended.estimated_completion is None
    assert list_jobs(database, include_ended=False) == []


def test_this_process_owns_what_it_takes(database: Engine, tenant: Tenant) -> None:
    job = take_job(database, make_job(database, tenant))
    with database.connect() as connection:
        row = connection.execute(select(jobs_table).where(jobs_table.c.job_id == job.job_id)).one()
    assert (row.owner_pid, row.owner_host) == (os.getpid(), host_id())


def test_a_job_that_is_handed_over_keeps_what_is_done_and_waits_for_a_driver(
    database: Engine, tenant: Tenant
) -> None:
    job = take_job(database, make_job(database, tenant), new=True)
    with database.begin() as connection:
        ranges.finish(connection, job.job_id, [(0, Counts(read=10, unchanged=10))])
    assert jobs.hand_over(database, job)
    assert job_progress(database, job.job_id).state is JobState.PENDING
    with pytest.raises(JobConflict):
        make_job(database, tenant)
    driver = take_job(database, job.job_id, new=True)
    assert driver.run == job.run + 1
    assert [item.seq for item in ranges.pending(database, job.job_id)] == [1]
    assert not jobs.hand_over(database, job), "it is another's now"
    assert job_progress(database, job.job_id).state is JobState.RUNNING


def test_a_job_cancelled_before_it_is_handed_over_ends(database: Engine, tenant: Tenant) -> None:
    job = take_job(database, make_job(database, tenant), new=True)
    jobs.request_cancel(database, job.job_id)
    assert not jobs.hand_over(database, job)
    assert job_progress(database, job.job_id).state is JobState.CANCELLED
    make_job(database, tenant)


def test_ranges_finish_with_counts_of_their_own(database: Engine, tenant: Tenant) -> None:
    job = take_job(database, make_job(database, tenant))
    outcomes = [(1, Counts(read=5, no_text=5)), (0, Counts(read=10, unchanged=9, dead=1))]
    with database.begin() as connection:
        ranges.finish(connection, job.job_id, outcomes)
        ranges.finish(connection, job.job_id, [])
    assert ranges.pending(database, job.job_id) == []
    assert job_progress(database, job.job_id).counts == outcomes[0][1] + outcomes[1][1]
