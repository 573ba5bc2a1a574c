"""From a request to a job with a driver, or to neither.

A job that was made and has no driver would hold its tables until its lease runs out. So what is
begun here is ended, also when the client hangs up; a job that could not be handed over ends as
failed; and one that was never handed over, because the server died, is by the next request under
the same idempotency key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, overload

from ray_app.api.services import Services
from ray_app.backfilling import QueuedJob
from ray_app.db import jobs
from ray_app.db.progress import job_progress
from ray_app.reports import JobProgress, JobState
from ray_app.tenants import Tenant

T = TypeVar("T")

log = logging.getLogger(__name__)

_NOT_HANDED_OVER: Final = "It could not be handed to Ray."
#: The event loop itself keeps no task alive.
_under_way: set[asyncio.Task[Any]] = set()


@overload
async def start_job(services: Services, tenant: Tenant, queue: Callable[[], QueuedJob]) -> JobProgress: ...


@overload
async def start_job(
    services: Services, tenant: Tenant, queue: Callable[[], QueuedJob | None]
) -> JobProgress | None: ...


async def start_job(
    services: Services, tenant: Tenant, queue: Callable[[], QueuedJob | None]
) -> JobProgress | None:
    """Queue a job with ``queue``, in a thread, and see that it is driven; None when it queued none.

    Raises:
        RayUnavailable: nobody could be found to drive it; it has ended as failed.
    """
    return await _to_its_end(_start(services, tenant, queue))


async def _start(
    services: Services, tenant: Tenant, queue: Callable[[], QueuedJob | None]
) -> JobProgress | None:
    # Cutting the work looks at whole tables.
    queued = await services.surveys.run(tenant, lambda: services.in_thread(queue))
    if queued is None:
        return None
    if queued.to_start:
        await _hand_over(services, tenant, queued.job_id)
    return await services.in_thread(job_progress, services.workspace.ledger, queued.job_id)


async def _hand_over(services: Services, tenant: Tenant, job_id: str) -> None:
    try:
        await services.jobs.submit(job_id, tenant)
    except BaseException:
        # Whatever went wrong, a job nobody drives must not hold its tables.
        ledger = services.workspace.ledger
        await services.in_thread(jobs.fail_pending, ledger, job_id, _NOT_HANDED_OVER)
        if not await services.in_thread(_has_driver, services, job_id):
            raise
        log.warning("Job %s was submitted, though its submission failed", job_id, exc_info=True)


def _has_driver(services: Services, job_id: str) -> bool:
    """Whether a driver took the job, and so refuses to be failed as pending."""
    job = job_progress(services.workspace.ledger, job_id)
    return job.state is not JobState.FAILED or job.started_at is not None


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, which goes on when the caller is cancelled."""
    task = asyncio.create_task(work)
    _under_way.add(task)
    task.add_done_callback(_settled)
    return await asyncio.shield(task)


def _settled(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # seen, so that asyncio does not report it for a client that hung up
