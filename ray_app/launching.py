"""Running a job in a process of its own, and reaching the store beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from ray_app import prescan
from ray_app.db import jobs
from ray_app.db.progress import job_progress
from ray_app.errors import ConflictError, DatabaseUnavailable, RowbeamError
from ray_app.outage import ride_out
from ray_app.reports import JobProgress, JobState
from ray_app.settings import Settings, child_environment, export_environment
from ray_app.stack.embedded import Stack
from ray_app.store.routing import EdgePort, RoutedStore, open_store
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

#: Seconds between looks at a running job.
POLL: Final = 0.5
#: Seconds of looking for unchanged rows before the job gets a process of its own.
SETTLE_SECONDS: Final = 5.0


class JobRunner(Protocol):
    """Drives a job to its end, as ``run_job`` does in a child process."""

    def __call__(
        self,
        workspace: Workspace,
        tenant: Tenant,
        job_id: str,
        on_progress: Callable[[JobProgress], None] | None,
        *,
        new: bool,
    ) -> JobProgress: ...


def run_job(
    workspace: Workspace,
    tenant: Tenant,
    job_id: str,
    on_progress: Callable[[JobProgress], None] | None,
    *,
    new: bool,
) -> JobProgress:
    """Drive the job, just created when ``new``, in a child process and follow it to its end.

    A new job in which nothing has to be written ends here, for starting a child would take longer. The
    child is in a session of its own: a signal to this process (Ctrl-C) or its death does not
    end the job. Its output goes to ``run/jobs/<job>.log`` under the home directory.
    """
    settings = workspace.settings
    if new and _settled_here(workspace, tenant, job_id):
        job = job_progress(workspace.ledger, job_id)
        if on_progress is not None:
            on_progress(job)
        return job
    log_path = settings.run_dir / "jobs" / f"{job_id}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "jobs.backfill", "--tenant", tenant.name, "--resume", job_id]
    if new:
        command.append("--new")
    with log_path.open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=child_environment(settings) | Stack(settings).connection_env(),
            start_new_session=True,
        )
    while child.poll() is None:
        if on_progress is not None:
            with suppress(DatabaseUnavailable):  # the driver waits for it, or ends the job
                on_progress(job_progress(workspace.ledger, job_id))
        with suppress(subprocess.TimeoutExpired):
            child.wait(POLL)
    job = ride_out(
        partial(_ended, workspace, job_id, log_path), budget=settings.outage_budget, what="The ledger"
    )
    if on_progress is not None:
        on_progress(job)
    return job


def _settled_here(workspace: Workspace, tenant: Tenant, job_id: str) -> bool:
    """Settle the job's clean ranges; False when there is more to do, for a driver that has yet to take it."""
    try:
        job = jobs.take_job(workspace.ledger, job_id, new=True)
    except ConflictError:
        return True  # somebody has cancelled it already
    try:
        left = bool(prescan.settle_job(workspace, job_id, tenant, SETTLE_SECONDS).left)
    except RowbeamError:
        left = True  # the driver meets it again: it waits it out, or ends the job with the reason
    except BaseException:
        jobs.finish_job(workspace.ledger, job, JobState.CANCELLED, "Stopped before its driver was started.")
        raise
    if left:
        return not jobs.hand_over(workspace.ledger, job)
    jobs.finish_job(workspace.ledger, job, JobState.SUCCEEDED)
    return True


def _ended(workspace: Workspace, job_id: str, log_path: Path) -> JobProgress:
    jobs.fail_pending(workspace.ledger, job_id, f"Its driver could not start; see {log_path}.")
    return job_progress(workspace.ledger, job_id)


@contextmanager
def open_store_for(settings: Settings) -> Iterator[RoutedStore]:
    """The store in this process; the embedded one through the running cluster, whose owner actor has it open.

    That cluster is joined when a call needs it: tenants on a Qdrant server do without.
    """
    with ExitStack() as joined:

        def owned() -> EdgePort:
            # No addresses: they would outlive the head they name, in this process and in all it starts.
            export_environment(Stack(settings).authentication_env())
            from ray_app.actors.cluster import connected
            from ray_app.actors.vector_owner import OwnedStore

            joined.enter_context(connected(settings))
            return OwnedStore(settings)

        store = open_store(settings, embedded=owned if settings.ray_address else None)
        try:
            yield store
        finally:
            store.close()
