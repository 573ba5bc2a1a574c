"""Backfills asked for again under their idempotency key, in turn, at once, and after a failed start."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, text, update

from ray_app.backfilling import QueuedJob, create_backfill, queue_backfill
from ray_app.db import jobs
from ray_app.db.idempotency import Asked
from ray_app.db.job_owners import LEASE
from ray_app.db.progress import job_progress, list_jobs
from ray_app.db.schema import jobs as jobs_table
from ray_app.errors import ConflictError, InputError, JobConflict
from ray_app.reports import JobState
from ray_app.settings import Settings
from ray_app.spaces import Preference
from ray_app.tenants import Placement, Tenant
from ray_app.workspace import Workspace


@pytest.fixture
def workspace(make_settings: Callable[..., Settings]) -> Iterator[Workspace]:
    opened = Workspace(make_settings())
    yield opened
    opened.close()


@pytest.fixture
def acme(workspace: Workspace) -> Tenant:
    return workspace.registry.create("acme", 1, Placement.EMBEDDED)[0]


def ask(workspace: Workspace, tenant: Tenant, key: str = "k", *tables: str) -> QueuedJob:
    return queue_backfill(workspace, tenant, tables=tables or ["issues"], idempotency_key=key)


def count_jobs(workspace: Workspace) -> int:
    return len(list_jobs(workspace.ledger, include_ended=True))


def let_lease_run_out(workspace: Workspace) -> None:
    with workspace.ledger.begin() as connection:
        connection.execute(update(jobs_table).values(heartbeat_at=func.now() - LEASE - timedelta(seconds=1)))


def test_a_repeated_request_finds_its_job_also_when_it_has_ended(workspace: Workspace, acme: Tenant) -> None:
    first = ask(workspace, acme)
    assert first.to_start
    assert ask(workspace, acme) == QueuedJob(first.job_id, to_start=False)
    taken = jobs.take_job(workspace.ledger, first.job_id, new=True)
    assert ask(workspace, acme) == QueuedJob(first.job_id, to_start=False)
    for end in (JobState.FAILED, JobState.SUCCEEDED):
        jobs.finish_job(workspace.ledger, taken, end)
        assert ask(workspace, acme) == QueuedJob(first.job_id, to_start=False)
        assert job_progress(workspace.ledger, first.job_id).state is end
    assert count_jobs(workspace) == 1
    assert ask(workspace, acme, "another key").job_id != first.job_id


def test_neither_order_nor_repetition_of_names_makes_another_request(
    workspace: Workspace, acme: Tenant
) -> None:
    first = ask(workspace, acme, "k", "issues", "pull_requests")
    assert ask(workspace, acme, "k", "pull_requests", "issues", "issues").job_id == first.job_id


@pytest.mark.parametrize(
    "other",
    [
        {"tables": ["pull_requests"]},
        {"tables": None},
        {"tables": ["issues", "pull_requests"]},
        {"tables": ["issues"], "vector_types": ["content"]},
        {"tables": ["issues"], "prefer": Preference.FAST},
    ],
)
def test_a_key_cannot_be_used_for_another_request(
    workspace: Workspace, acme: Tenant, other: dict[str, object]
) -> None:
    ask(workspace, acme)
    with pytest.raises(ConflictError, match="different request") as refusal:
        create_backfill(workspace, acme, idempotency_key="k", **other)  # type: ignore[arg-type]
    assert not isinstance(refusal.value, JobConflict)
    assert count_jobs(workspace) == 1


def test_a_key_belongs_to_its_tenant(workspace: Workspace, acme: Tenant) -> None:
    globex, _ = workspace.registry.create("globex", 2, Placement.EMBEDDED)
    assert ask(workspace, acme).job_id != ask(workspace, globex, "k", "pull_requests").job_id


def test_without_a_key_a_second_request_is_a_second_job(workspace: Workspace, acme: Tenant) -> None:
    first = create_backfill(workspace, acme, tables=["issues"])
    with pytest.raises(JobConflict) as refusal:
        create_backfill(workspace, acme, tables=["issues"])
    assert refusal.value.job_id == first


def test_the_same_request_made_many_times_at_once_makes_one_job(workspace: Workspace, acme: Tenant) -> None:
    callers = 4
    together = threading.Barrier(callers)

    def call(_: int) -> QueuedJob:
        together.wait()
        return ask(workspace, acme)

    with ThreadPoolExecutor(callers) as threads:
        queued = list(threads.map(call, range(callers)))
    assert len({job.job_id for job in queued}) == 1
    assert sorted(job.to_start for job in queued) == [False] * (callers - 1) + [True]
    assert count_jobs(workspace) == 1


def test_the_database_settles_the_race_that_a_look_cannot(workspace: Workspace, acme: Tenant) -> None:
    """A rival's row is inserted and not committed: nobody can see it, and the index waits for it."""
    rival = workspace.ledger.connect()
    transaction = rival.begin()
    rival.execute(
        text(
            "INSERT INTO rowbeam.jobs (job_id, incarnation, kind, state, request, idempotency_key)"
            " VALUES ('job-rival', :incarnation, 'backfill', 'failed', CAST(:request AS jsonb), 'k')"
        ),
        {
            "incarnation": acme.incarnation,
            "request": '{"tables": ["issues"], "vector_types": ["content"], "prefer": null, "asked": '
            '{"kind": "backfill", "tables": ["issues"], "vector_types": null, "prefer": null}}',
        },
    )
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, workspace, acme)
        wait_until_blocked(workspace)
        transaction.commit()
        queued = asked.result(timeout=30)
    rival.close()
    assert queued.job_id == "job-rival"
    assert count_jobs(workspace) == 1


def wait_until_blocked(workspace: Workspace) -> None:
    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
    for _ in range(600):
        with workspace.ledger.connect() as connection:
            if connection.scalar(query):
                return
        threading.Event().wait(0.05)
    raise AssertionError("nothing waits for the rival")


def test_a_job_whose_start_failed_is_started_by_the_repeat(workspace: Workspace, acme: Tenant) -> None:
    first = ask(workspace, acme)
    jobs.fail_pending(workspace.ledger, first.job_id, "It could not be started.")
    assert job_progress(workspace.ledger, first.job_id).state is JobState.FAILED

    assert ask(workspace, acme) == first
    pending = job_progress(workspace.ledger, first.job_id)
    assert (pending.state, pending.error, pending.finished_at) == (JobState.PENDING, None, None)
    assert not ask(workspace, acme).to_start, "one repeat is told to start it"
    with pytest.raises(JobConflict):
        create_backfill(workspace, acme, tables=["issues"])
    assert jobs.take_job(workspace.ledger, first.job_id, new=True).run == 1


def test_a_job_that_was_never_handed_over_is_started_by_the_repeat(
    workspace: Workspace, acme: Tenant
) -> None:
    """The server died between making the job and starting its driver."""
    first = ask(workspace, acme)
    let_lease_run_out(workspace)
    assert ask(workspace, acme) == first
    assert job_progress(workspace.ledger, first.job_id).state is JobState.PENDING


def test_a_cancelled_job_is_not_started_by_a_repeat(workspace: Workspace, acme: Tenant) -> None:
    first = ask(workspace, acme)
    jobs.request_cancel(workspace.ledger, first.job_id)
    assert not ask(workspace, acme).to_start
    assert job_progress(workspace.ledger, first.job_id).state is JobState.CANCELLED


def test_a_repeat_does_not_start_its_job_over_another_that_took_its_table(
    workspace: Workspace, acme: Tenant
) -> None:
    first = ask(workspace, acme)
    jobs.fail_pending(workspace.ledger, first.job_id, "It could not be started.")
    second = create_backfill(workspace, acme, tables=["issues"])
    with pytest.raises(JobConflict) as refusal:
        ask(workspace, acme)
    assert refusal.value.job_id == second
    assert job_progress(workspace.ledger, first.job_id).state is JobState.FAILED


def test_an_ended_job_can_be_queued_again_and_one_that_is_active_is_left(
    workspace: Workspace, acme: Tenant
) -> None:
    job_id = ask(workspace, acme).job_id
    assert not jobs.requeue(workspace.ledger, job_id)
    taken = jobs.take_job(workspace.ledger, job_id)
    assert not jobs.requeue(workspace.ledger, job_id)
    jobs.finish_job(workspace.ledger, taken, JobState.CANCELLED)
    assert jobs.requeue(workspace.ledger, job_id)
    assert jobs.take_job(workspace.ledger, job_id, new=True).run == 2
    jobs.finish_job(workspace.ledger, jobs.take_job(workspace.ledger, job_id), JobState.SUCCEEDED)
    with pytest.raises(ConflictError, match="nothing to resume"):
        jobs.requeue(workspace.ledger, job_id)


def test_a_jobs_indexes_are_pinned_with_it_or_not_at_all(workspace: Workspace, acme: Tenant) -> None:
    from ray_app.db.schema import indexes

    ask(workspace, acme, "k", "issues")
    with pytest.raises(JobConflict):
        ask(workspace, acme, "k2", "issues", "pull_requests")
    with workspace.ledger.connect() as connection:
        assert connection.scalars(select(indexes.c.table_name).distinct()).all() == ["issues"]


@given(key=st.one_of(st.just(""), st.text(min_size=256, max_size=300), st.text(min_size=1, max_size=9)))
def test_a_key_is_1_to_255_printable_characters(key: str) -> None:
    fits = 1 <= len(key) <= 255 and all(" " <= character <= "~" for character in key)
    if fits:
        assert Asked.of(key, "backfill", None, None, None).key == key
    else:
        with pytest.raises(InputError, match="idempotency key"):
            Asked.of(key, "backfill", None, None, None)
