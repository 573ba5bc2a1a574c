"""The bulk job on a real Ray cluster, a real Postgres and a real Edge store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ray_app.encoders.stub import POISON
from ray_app.errors import ConflictError, JobConflict, UnknownJob
from ray_app.reports import Counts, JobState
from ray_app.store.port import Condition
from tests.support.site import TABLE, JobSite, RunningJob

pytestmark = pytest.mark.ray


def test_first_run_second_run_and_changes(open_site: Callable[..., JobSite]) -> None:
    site = open_site()
    site.insert(1200)
    site.insert(50, client=2)
    first = site.backfill()
    assert first.state is JobState.SUCCEEDED
    assert first.counts == Counts(read=1200, embedded=1200, chunks=1200)
    assert first.tokens > 1200
    assert first.provider == "stub"
    assert (first.current_batch, first.total_batches) == (12, 12)
    site.check_exact(1200)

    second = site.backfill()
    assert second.counts == Counts(read=1200, unchanged=1200)
    assert second.tokens == 0, "no model call"
    logs = site.rowbeam.workspace.settings.run_dir / "jobs"
    assert [log.stem for log in logs.iterdir()] == [first.job_id], "nor a process of its own"

    site.sql("UPDATE pull_requests SET title = title || ' again' WHERE client_id = 1 AND id < 10")
    site.sql("UPDATE pull_requests SET active = false WHERE client_id = 1 AND id BETWEEN 100 AND 104")
    site.sql("UPDATE pull_requests SET updated_at = now() WHERE client_id = 1 AND id > 600")
    site.sql("UPDATE pull_requests SET status = 'closed' WHERE client_id = 1 AND id = 700")
    third = site.backfill()
    assert third.counts == Counts(read=1200, embedded=10, unchanged=1185, deleted=5, chunks=10)
    site.check_exact(1195)
    closed = site.rowbeam.search("acme", TABLE, "change", conditions=[Condition("status", "eq", "closed")])
    assert [hit.record_id for hit in closed] == ["700"], "filters follow the row, without a model call"
    hits = site.rowbeam.search("acme", TABLE, "change number 7 again", limit=3)
    assert hits[0].record_id == "7"
    assert not {hit.record_id for hit in hits} & {"100", "101", "102", "103", "104"}


def test_hard_texts_lose_nothing(open_site: Callable[..., JobSite]) -> None:
    site = open_site()
    texts = {
        1: "word " * 200_000,  # 1 MB
        2: "x" * 1_000_000,
        3: "🚀👩‍👩‍👧‍👦 zażółć gęślą jaźń",
        4: "",
        5: "   \n\t ",
        6: None,
        7: f"a bad one {POISON}",
        8: "plain",
    }
    for key, title in texts.items():
        site.sql(
            "INSERT INTO pull_requests (id, client_id, title) VALUES (:key, 1, :title)", key=key, title=title
        )
    job = site.backfill()
    assert job.state is JobState.SUCCEEDED
    assert job.counts.balanced
    assert (job.counts.embedded, job.counts.no_text, job.counts.dead) == (4, 3, 1)
    assert any("7" in error for error in job.errors)
    (letter,) = site.rowbeam.dead_letters("acme")
    assert (letter.record_id, letter.attempts) == ("7", 1)
    assert POISON not in letter.message.replace(repr(POISON), ""), "no row text in the message"

    again = site.rowbeam.redrive("acme")
    assert again is not None
    assert again.counts == Counts(read=1, dead=1)
    assert site.rowbeam.dead_letters("acme")[0].attempts == 2

    site.sql("UPDATE pull_requests SET title = 'healed' WHERE id = 7")
    healed = site.rowbeam.redrive("acme")
    assert healed is not None
    assert healed.counts == Counts(read=1, embedded=1, chunks=1)
    assert site.rowbeam.dead_letters("acme") == []
    assert site.rowbeam.redrive("acme") is None


def test_cancel_stops_at_range_ends_and_resume_goes_on(open_site: Callable[..., JobSite]) -> None:
    site = open_site(local_model="stub:400")
    site.insert(3000)
    running = RunningJob(site, {})
    seen = running.wait_for(lambda job: job.processed_records > 0)
    with pytest.raises(JobConflict) as refusal:
        site.backfill()
    assert refusal.value.job_id == seen.job_id
    assert [job.job_id for job in site.rowbeam.jobs()] == [seen.job_id]

    site.rowbeam.cancel(seen.job_id)
    cancelled = running.end()
    assert cancelled.state is JobState.CANCELLED
    assert 0 < cancelled.processed_records < 3000
    assert cancelled.counts.balanced
    assert site.rowbeam.jobs() == []

    resumed = site.backfill(resume=seen.job_id)
    assert resumed.state is JobState.SUCCEEDED
    assert resumed.counts == Counts(read=3000, embedded=3000, chunks=3000)
    site.check_exact(3000)
    with pytest.raises(ConflictError, match="nothing to resume"):
        site.backfill(resume=seen.job_id)
    with pytest.raises(UnknownJob):
        site.backfill(resume="job-none")


def test_several_tables_and_vector_types_by_priority(open_site: Callable[..., JobSite]) -> None:
    site = open_site()
    site.insert(30)
    site.sql("INSERT INTO users (id, client_id, name) VALUES (1, 1, 'Ada Lovelace')")
    site.sql("INSERT INTO projects (id, client_id, name) VALUES ('p', 1, 'Engine')")
    job = site.rowbeam.backfill("acme", vector_types=["content", "metadata"])
    assert job.state is JobState.SUCCEEDED
    rows = {(row.table, str(row.vector_type)): row for row in site.rowbeam.coverage("acme")}
    assert rows[TABLE, "content"].embedded == 30
    assert rows[TABLE, "metadata"].embedded == 30
    assert rows["users", "content"].embedded == 1
    assert rows["projects", "content"].embedded == 1
    points, ledger = site.rowbeam.count_points("acme")
    assert points == ledger
    (hit,) = site.rowbeam.search("acme", "users", "Ada Lovelace", limit=1)
    assert hit.snippet.startswith("Ada")


def test_a_removed_tenant_is_gone_and_a_new_one_of_its_name_starts_empty(
    open_site: Callable[..., JobSite],
) -> None:
    site = open_site()
    site.insert(150)
    site.backfill()
    report = site.rowbeam.remove_tenant("acme")
    assert report.proven
    assert report.points_erased == 150
    site.rowbeam.add_tenant("acme", client_id=1)
    assert site.rowbeam.count_points("acme") == (0, 0)
    assert site.backfill().counts.embedded == 150
