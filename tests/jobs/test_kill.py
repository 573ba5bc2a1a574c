"""kill -9 of everything a job is made of, in mid-job. Afterwards, or after a resume, counts are exact."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from ray_app import Rowbeam
from ray_app.db.engine import engine_for
from ray_app.reports import Counts, JobState
from ray_app.settings import Settings
from ray_app.stack.postgres import embedded_url
from tests.support.site import JobSite, RunningJob

pytestmark = pytest.mark.ray

ROWS = 3000
#: Of each Ray node, holding nothing of a job; they look for a head that is gone for a minute before they end.
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def finished_ranges(site: JobSite) -> dict[int, datetime]:
    with site.database.connect() as connection:
        done = text("SELECT seq, finished_at FROM rowbeam.ranges WHERE state = 'done'")
        return {row.seq: row.finished_at for row in connection.execute(done)}


def test_driver(open_site: Callable[..., JobSite]) -> None:
    site = open_site(local_model="stub:300")
    site.insert(ROWS)
    running = RunningJob(site, {})
    seen = running.wait_for(lambda job: job.processed_records >= 300)
    driver = running.driver()
    children = driver.children(recursive=True)
    agents = [child for child in children if child.name() in AGENTS]
    driver.kill()

    broken = running.end()
    assert broken.state is JobState.INTERRUPTED
    assert 0 < broken.processed_records < ROWS
    before = finished_ranges(site)
    assert len(before) == broken.current_batch

    resumed = site.backfill(resume=seen.job_id)
    assert resumed.state is JobState.SUCCEEDED
    assert resumed.counts == Counts(read=ROWS, embedded=ROWS, chunks=ROWS)
    after = finished_ranges(site)
    assert {seq: after[seq] for seq in before} == before, "what had ended was not done again"
    site.check_exact(ROWS)
    _, alive = psutil.wait_procs({driver, *children} - {*agents}, timeout=60)
    assert alive == [], "a private cluster dies with its driver"
    for agent in agents:
        with suppress(psutil.NoSuchProcess):
            agent.kill()


@pytest.mark.parametrize(
    "title", ["MapBatches(EncodeStage)", "MapBatches(WriteStage)", "VectorOwner", "JobProgressActor"]
)
def test_actor(open_site: Callable[..., JobSite], title: str) -> None:
    site = open_site(local_model="stub:200")
    site.insert(ROWS)
    running = RunningJob(site, {})
    running.wait_for(lambda job: job.processed_records >= 300)
    running.worker(title).kill()

    job = running.end()
    if job.state is not JobState.SUCCEEDED:
        job = site.backfill(resume=job.job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.counts.balanced
    assert job.counts.read == ROWS
    site.check_exact(ROWS)


def test_postgres(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    settings = make_settings(database_url=None, local_model="stub:200")
    with Rowbeam.open(settings) as rowbeam:
        rowbeam.add_tenant("acme", client_id=1)
        database = engine_for(embedded_url(settings))
        site = JobSite(rowbeam, database)
        site.insert(ROWS)
        running = RunningJob(site, {})
        running.wait_for(lambda job: job.processed_records >= 300)
        pid = int((settings.postgres_dir / "postmaster.pid").read_text().splitlines()[0])
        psutil.Process(pid).kill()
        job = running.end()
        if job.state is not JobState.SUCCEEDED:
            job = site.backfill(resume=job.job_id)
        assert job.state is JobState.SUCCEEDED, job.error
        assert job.counts == Counts(
            read=ROWS, embedded=job.counts.embedded, chunks=job.counts.chunks
        ) + Counts(unchanged=ROWS - job.counts.embedded)
        site.check_exact(ROWS)
        database.dispose()
