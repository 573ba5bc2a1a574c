"""Handing a backfill that was asked for over HTTP to the Ray Jobs API."""

from __future__ import annotations

import shlex
import sys

import anyio.to_thread
from ray.job_submission import JobSubmissionClient

from ray_app.errors import RayUnavailable
from ray_app.tenants import Tenant


class RayJobSubmitter:
    """A ``JobSubmitter`` over the Jobs API of this cluster; Ray adds the cluster's token.

    The driver runs on the head with the settings of the head's environment: nothing but the names
    of the tenant and the job is told to Ray, which shows both to whoever has the token.
    """

    def __init__(self, gcs_address: str) -> None:
        self._address = gcs_address

    async def submit(self, job_id: str, tenant: Tenant) -> None:
        """See ``JobSubmitter``."""
        await anyio.to_thread.run_sync(self._submit, job_id, tenant.name)

    def _submit(self, job_id: str, tenant: str) -> None:
        command = [sys.executable, "-m", "jobs.backfill", "--tenant", tenant, "--resume", job_id, "--new"]
        try:
            client = JobSubmissionClient(self._address)
            client.submit_job(entrypoint=shlex.join(command), submission_id=submission_id(job_id))
        except (RuntimeError, OSError) as error:
            # Ray's own text quotes the request.
            raise RayUnavailable(
                f"Ray did not take the job ({type(error).__name__}).",
                hint="Look at the dashboard's log on the head node.",
            ) from error


def submission_id(job_id: str) -> str:
    """One submission for each job, whoever submits it again."""
    return f"rowbeam-{job_id}"
