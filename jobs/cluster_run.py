"""One pass of a job over its pending ranges on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from jobs.heart import Heart
from jobs.stages import JobContext
from ray_app.actors.cluster import connected, has_server
from ray_app.actors.metrics import process_exporter
from ray_app.actors.progress import start_progress_actor
from ray_app.actors.stores import start_store
from ray_app.db import job_budgets
from ray_app.db.indexes import PinnedIndex
from ray_app.db.jobs import TakenJob
from ray_app.db.ranges import RangeSpec
from ray_app.errors import RowbeamError
from ray_app.metrics.counting import count_records
from ray_app.metrics.declared import JOB
from ray_app.reports import Counts
from ray_app.tenants import Tenant
from ray_app.tracing.spans import traceparent
from ray_app.workspace import Workspace

#: Seconds to wait for the progress actor before the last answer is good enough.
PROGRESS_TIMEOUT: Final = 2.0


def run_on_cluster(
    workspace: Workspace,
    job: TakenJob,
    tenant: Tenant,
    pinned: dict[Any, PinnedIndex],
    work: Sequence[RangeSpec],
    heart: Heart,
    settled: Mapping[str, Counts],
) -> None:
    """Do ``work`` in one pass, provider by provider. Ranges may be left over; the ledger knows.

    ``settled`` has the outcomes, by table, of records that the driver has settled before and not counted.

    Raises:
        RowbeamError: what stopped a stage, freed from Ray's wrapping.
    """
    settings = workspace.settings
    wanted = {(item.table, item.vector_type) for item in work}
    indexes = [index for where, index in pinned.items() if where in wanted]
    context = JobContext(settings.fingerprint(), job.job_id, job.run, tenant, indexes, traceparent())
    if job_budgets.account_of(workspace.ledger, job.job_id) is not None:
        context = replace(context, budgeted=True)
    with connected(settings), process_exporter().running(heart.sample):
        if not has_server():  # whose reporter counts them, as it does those of jobs that need no cluster
            for table, counts in settled.items():
                count_records(JOB, table, "", counts)
        # Not the tenant's as it was when the job began: it may have been moved since.
        start_store(settings, workspace.registry.scope(tenant).placement)
        progress = start_progress_actor(context.fingerprint, job.job_id)
        heart.snapshot = _snapshots(progress)
        from jobs.pipeline import run_pipeline  # a second of imports, while the actors do theirs

        try:
            for provider, group in _by_provider(workspace, pinned, work).items():
                run_pipeline(context, group, provider, progress, shared=settings.ray_address is not None)
        except RayTaskError as error:
            raise _cause(error) from error
        finally:
            last = heart.snapshot()
            heart.snapshot = lambda: last


def _by_provider(
    workspace: Workspace, pinned: dict[Any, PinnedIndex], work: Sequence[RangeSpec]
) -> dict[str, list[RangeSpec]]:
    """The ranges of each provider, providers in the order of their first range."""
    groups: dict[str, list[RangeSpec]] = {}
    for item in work:
        space = pinned[item.table, item.vector_type].space
        groups.setdefault(workspace.providers.provider_name(space), []).append(item)
    return groups


def _snapshots(progress: Any) -> Callable[[], dict[str, Any]]:
    """Asks the progress actor, and repeats its last answer while it is being restarted."""
    last: dict[str, Any] = {}

    def snapshot() -> dict[str, Any]:
        try:
            last.update(ray.get(progress.snapshot.remote(), timeout=PROGRESS_TIMEOUT))
        except (GetTimeoutError, RayActorError):
            return dict(last)
        return dict(last)

    return snapshot


def _cause(error: BaseException) -> BaseException:
    """The Rowbeam error inside Ray's wrapping, or the error itself when there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RowbeamError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error
