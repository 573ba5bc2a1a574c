"""The bulk job through ``ray job submit``, on the stack that ``rowbeam up`` keeps running."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from ray_app import Rowbeam
from ray_app.reports import Counts, JobState
from ray_app.settings import Settings, child_environment
from ray_app.stack.embedded import Stack
from tests.support.scrape import Family, add_up, by, scrape
from tests.support.waiting import wait_for

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="rb-job-") as home:
        settings = Settings(home=Path(home), local_model="stub")
        Stack(settings).up()
        try:
            yield settings
        finally:
            Stack(settings).down()


def _check_metrics(settings: Settings, rowbeam: Rowbeam) -> None:
    """Without a server the jobs' own processes tell what they did, and nobody reports on the ledger."""
    head = Stack(settings).status().head
    assert head is not None
    seen: dict[str, Family] = {}
    usage = rowbeam.usage("acme")

    def all_there() -> bool:
        seen.update(scrape(head.metrics_url))
        return add_up(seen, "ray_rowbeam_tokens_total") >= sum(row.tokens for row in usage.rows)

    wait_for(all_there)
    assert by(seen, "ray_rowbeam_texts_total", "source", "table", "outcome") == {
        ("job", "pull_requests", "embedded"): 501,
        ("job", "pull_requests", "reused"): 0,
    }
    assert sum(row.texts for row in usage.rows) == 501
    assert add_up(seen, "ray_rowbeam_records_total", outcome="embedded", provider="stub") == 501
    assert {"ray_rowbeam_job_records", "ray_rowbeam_job_heartbeat_age_seconds"} <= seen.keys()
    assert add_up(seen, "ray_rowbeam_isolation_violations_total") == 0
    assert "ray_rowbeam_jobs" not in seen


def submit(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["job", "submit", "--working-dir", ".", "--", sys.executable, "-m", "jobs.backfill", *arguments]
    return subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", *command],
        cwd=ROOT,
        env=child_environment(settings) | Stack(settings).connection_env() | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_submitted_job_is_the_same_job(settings: Settings) -> None:
    with Rowbeam.open(settings) as rowbeam:
        rowbeam.add_tenant("acme", client_id=1)
        with rowbeam.workspace.ledger.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO pull_requests (id, client_id, title)"
                    " SELECT n, 1, 'change ' || n FROM generate_series(1, 500) AS n"
                )
            )
        done = submit(settings, "--tenant", "acme", "--tables", "pull_requests")
        assert done.returncode == 0, done.stdout + done.stderr
        (job,) = rowbeam.jobs(include_ended=True)
        assert job.state is JobState.SUCCEEDED
        assert job.counts == Counts(read=500, embedded=500, chunks=500)
        assert f"{job.job_id} succeeded: 500 read = 500 embedded" in done.stdout
        # The owner actor of this cluster has the store open; searches and counts go through it.
        assert rowbeam.count_points("acme") == (500, 500)
        assert rowbeam.search("acme", "pull_requests", "change 77", limit=1)[0].record_id == "77"

        again = rowbeam.backfill("acme", tables=["pull_requests"])
        assert again.counts == Counts(read=500, unchanged=500)
        with rowbeam.workspace.ledger.begin() as connection:
            connection.execute(text("UPDATE pull_requests SET title = 'other' WHERE id = 5"))
        changed = rowbeam.backfill("acme", tables=["pull_requests"])
        assert changed.counts == Counts(read=500, embedded=1, unchanged=499, chunks=1), "on the same cluster"

        _check_metrics(settings, rowbeam)

        unknown = submit(settings, "--tenant", "nobody")
        assert unknown.returncode != 0
        assert "no tenant named 'nobody'" in unknown.stdout
        assert os.fspath(settings.home) not in unknown.stdout
