"""Handing a backfill that was asked for over HTTP to the Ray Jobs API."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shlex
import sys
from typing import Final

from ray.job_submission import JobSubmissionClient
from sqlalchemy import Engine

from ray_app.db import jobs
from ray_app.db.progress import job_progress
from ray_app.errors import RayUnavailable, RowbeamError
from ray_app.reports import JobState
from ray_app.tenants import Tenant
from ray_app.tracing.spans import traceparent

log = logging.getLogger("ray_app.jobs")
#: Seconds between looks whether a driver has taken its job.
_POLL_SECONDS: Final = 1.0


class RayJobSubmitter:
    """A ``JobSubmitter`` over the Jobs API of this cluster; Ray adds the cluster's token.

    The driver runs with the settings of its node's environment, on the head unless it asks for CPUs:
    nothing but the names of the tenant and the job is told to Ray, which shows both to whoever has
    the token.
    """

    def __init__(self, gcs_address: str, ledger: Engine, driver_cpus: float = 0.0) -> None:
        self._address = gcs_address
        self._ledger = ledger
        self._driver_cpus = driver_cpus
        self._watches: set[asyncio.Task[None]] = set()

    async def submit(self, job_id: str, tenant: Tenant) -> None:
        """See ``JobSubmitter``. A driver that ends before it has taken the job fails it in the ledger."""
        submission = await asyncio.to_thread(self._submit, job_id, tenant.name)
        watch = asyncio.create_task(self._watch(job_id, submission))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    def _submit(self, job_id: str, tenant: str) -> str:
        command = [sys.executable, "-m", "jobs.backfill", "--tenant", tenant, "--resume", job_id, "--new"]
        if span_id := traceparent():
            command += ["--traceparent", span_id]
        try:
            # An id is good once; a job may be submitted again, and the ledger admits one driver.
            submission: str = JobSubmissionClient(self._address).submit_job(
                entrypoint=shlex.join(command),
                submission_id=f"{job_id}-{secrets.token_hex(4)}",
                entrypoint_num_cpus=self._driver_cpus,
            )
        except (RuntimeError, OSError) as error:
            # Ray's own text quotes the request.
            raise RayUnavailable(
                f"Ray did not take the job ({type(error).__name__}).",
                hint="Look at the dashboard's log on the head node.",
            ) from error
        return submission

    async def _watch(self, job_id: str, submission: str) -> None:
        try:
            while not await asyncio.to_thread(self._settled, job_id, submission):
                await asyncio.sleep(_POLL_SECONDS)
        except (RowbeamError, RuntimeError, OSError) as error:
            # The job's lease runs out, and the next one for its tables ends it.
            log.warning("Job %s is not watched any more (%s)", job_id, type(error).__name__)

    def _settled(self, job_id: str, submission: str) -> bool:
        """Whether the driver has taken the job, or is known to have ended without."""
        ended: bool = JobSubmissionClient(self._address).get_job_status(submission).is_terminal()
        if job_progress(self._ledger, job_id).state is not JobState.PENDING:
            return True
        if ended:
            jobs.fail_pending(self._ledger, job_id, f"Its driver could not start; see Ray job {submission}.")
        return ended
