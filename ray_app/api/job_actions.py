"""What can be done with a tenant's jobs, whoever asks: the tenant by the API, the operator in the console."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ray_app import backfilling
from ray_app.api.job_starts import start_job
from ray_app.api.services import Services
from ray_app.backfilling import QueuedJob
from ray_app.budgets import JobLimits
from ray_app.db import jobs
from ray_app.db.progress import job_progress
from ray_app.errors import ConflictError
from ray_app.reports import JobProgress, JobState
from ray_app.spaces import Preference, VectorType
from ray_app.tenants import Tenant


async def backfill(
    services: Services,
    tenant: Tenant,
    *,
    tables: Sequence[str] | None = None,
    vector_types: Sequence[VectorType] | None = None,
    prefer: Preference | None = None,
    idempotency_key: str | None = None,
    limits: JobLimits | None = None,
) -> JobProgress:
    """Start embedding what is new or changed, within ``limits``.

    Raises:
        InputError, ConflictError: as ``backfilling.queue_backfill``.
        RayUnavailable: nobody could be found to drive the job; it has ended as failed.
    """

    def queue() -> QueuedJob:
        return backfilling.queue_backfill(
            services.workspace,
            tenant,
            tables=tables,
            vector_types=vector_types,
            prefer=prefer,
            idempotency_key=idempotency_key,
            limits=limits,
        )

    return await start_job(services, tenant, queue)


async def resume(
    services: Services, tenant: Tenant, job_id: str, limits: JobLimits | None = None
) -> JobProgress:
    """Go on with a job that stopped, its limits changed to those of ``limits`` that are given.

    Raises:
        UnknownJob: the tenant has none of that id.
        InputError: as ``backfilling.change_limits``.
        ConflictError: it has succeeded, is being cancelled, or another works on one of its tables.
        RayUnavailable: nobody could be found to drive it; it has ended as failed.
    """

    def queue() -> QueuedJob:
        job = job_progress(services.workspace.ledger, job_id, tenant.incarnation)
        if job.state is JobState.CANCEL_REQUESTED:
            raise ConflictError("The job is being cancelled.", hint="Resume it when it has stopped.")
        if job.state.resumable:
            backfilling.change_limits(services.workspace, tenant, job_id, limits or JobLimits())
        return QueuedJob(job_id, jobs.requeue(services.workspace.ledger, job_id))

    return await start_job(services, tenant, queue)


async def redrive(services: Services, tenant: Tenant) -> JobProgress | None:
    """Try the tenant's open dead letters again, as a job; None when there are none.

    Raises:
        JobConflict: another job works on one of their tables.
        RayUnavailable: nobody could be found to drive the job; it has ended as failed.
    """

    def queue() -> QueuedJob | None:
        job_id = backfilling.create_redrive(services.workspace, tenant)
        return QueuedJob(job_id, to_start=True) if job_id else None

    return await start_job(services, tenant, queue)


async def cancel(services: Services, tenant: Tenant, job_id: str) -> JobProgress:
    """Ask a job to stop at the end of the batches in flight; one that has ended stays as it is.

    Raises:
        UnknownJob: the tenant has none of that id.
    """
    return await services.in_thread(_cancel, services, tenant, job_id)


def _cancel(services: Services, tenant: Tenant, job_id: str) -> JobProgress:
    ledger = services.workspace.ledger
    job = job_progress(ledger, job_id, tenant.incarnation)
    if job.state.active or job.state is JobState.INTERRUPTED:
        with suppress(ConflictError):  # it has just ended by itself
            jobs.request_cancel(ledger, job_id)
    return job_progress(ledger, job_id, tenant.incarnation)
