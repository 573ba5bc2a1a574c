"""kill -9 of the driver of a change of model; the command run again goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from ray_app.launching import open_store_for
from ray_app.migrating.states import Stage
from ray_app.reports import JobProgress, JobState
from tests.support.pushes import PushSite
from tests.support.site import TABLE, JobSite, RunningJob

pytestmark = pytest.mark.ray

ROWS = 600
NEW = "stub@64:300"


class Changing(RunningJob):
    """A change of model in a thread."""

    def _run(self) -> None:
        try:
            done = self.site.rowbeam.migrations.run("acme", TABLE, to=NEW, on_progress=self._look)
            self.result = done.job
        except BaseException as fault:  # noqa: BLE001 - handed to the test's thread by end()
            self.fault = fault


def push_rows(site: JobSite) -> None:
    """Embed all rows in this process: the first index, without a job of its own."""
    with site.database.connect() as connection:
        rows = connection.execute(text(f"SELECT id, title, description FROM {TABLE}")).mappings().all()
    workspace = site.rowbeam.workspace
    with open_store_for(workspace.settings) as store:
        pushes = PushSite.of(workspace, store, workspace.registry.get("acme"))
        pushes.push(*map(dict, rows), table=TABLE, kinds=["content"])


def test_driver(open_site: Callable[..., JobSite]) -> None:
    site = open_site(local_model="stub", other_model=NEW, migration_sample=5)
    site.insert(ROWS)
    push_rows(site)
    running = Changing(site, {})
    seen: JobProgress = running.wait_for(lambda job: job.processed_records >= 100)
    running.driver().kill()
    broken = running.end()
    assert broken.state is JobState.INTERRUPTED
    assert [hit.record_id for hit in site.rowbeam.search("acme", TABLE, "number 77", limit=1)] == ["77"]
    (status,) = site.rowbeam.migrations.status("acme")
    assert (status.stage, status.model) == (Stage.BUILDING, "stub")

    done = site.rowbeam.migrations.run("acme", TABLE, to=NEW)
    assert done.switched
    assert done.job.job_id == seen.job_id
    assert done.job.counts.embedded == ROWS
    assert done.indexes[0].stage is Stage.KEPT
    assert [hit.record_id for hit in site.rowbeam.search("acme", TABLE, "number 77", limit=1)] == ["77"]
    site.check_exact(ROWS)
