"""Driving one job from its pending ranges to its end, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from jobs.heart import Heart
from ray_app import prescan
from ray_app.db import job_budgets, jobs, ranges
from ray_app.db.generations import indexes_of_job
from ray_app.db.jobs import TakenJob
from ray_app.db.progress import job_progress
from ray_app.errors import IndexMoved, LostJob, RowbeamError
from ray_app.outage import ride_out
from ray_app.reports import JobState
from ray_app.spending import stop_reason
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

#: Times the pipeline is run over ranges that did not end; more would hide a fault.
PASSES: Final = 3


def drive(workspace: Workspace, job: TakenJob, tenant: Tenant, revive: Callable[[], None]) -> JobState:
    """Do a taken job's ranges and end it in the ledger; answers the state it ended in.

    A fault of a dependency or of the input ends the job as failed, with the reason; it can be resumed.
    """
    budget = workspace.settings.outage_budget
    state, error = JobState.FAILED, None
    try:
        with Heart(workspace, job, revive) as heart:
            state, error = _work(workspace, job, tenant, heart)
    except RowbeamError as fault:
        error = str(fault)
    except (KeyboardInterrupt, SystemExit):
        state, error = JobState.CANCELLED, "Stopped by a signal."
    except BaseException as fault:
        error = f"{type(fault).__name__}: {fault}"
        raise
    finally:
        with suppress(LostJob):
            ride_out(
                lambda: jobs.finish_job(workspace.ledger, job, state, error), budget=budget, what="The ledger"
            )
    return state


def _work(workspace: Workspace, job: TakenJob, tenant: Tenant, heart: Heart) -> tuple[JobState, str | None]:
    settlement = prescan.settle_job(workspace, job.job_id, tenant)
    work, settled = settlement.left, settlement.counts
    if work:
        from jobs.cluster_run import run_on_cluster  # Ray is loaded only when there is work for it

        for _ in range(PASSES):
            indexes = indexes_of_job(workspace.ledger, job.job_id, tenant.incarnation)
            try:
                run_on_cluster(workspace, job, tenant, indexes, work, heart, settled)
            except IndexMoved:
                # Its model was changed, or its tenant moved, in the middle of a pass: what is left is begun
                # again where it is now.
                with workspace.ledger.begin() as connection:
                    ranges.reset(connection, job.job_id)
            settled = {}
            work = ranges.pending(workspace.ledger, job.job_id)
            if not work or _stops(workspace, job):
                break
    if _cancelled(workspace, job):
        return JobState.CANCELLED, None
    if work and _at_budget(workspace, job):
        return JobState.STOPPED_AT_BUDGET, stop_reason(job_progress(workspace.ledger, job.job_id))
    if work:
        return JobState.FAILED, f"{len(work)} ranges did not end in {PASSES} passes; resume the job."
    return JobState.SUCCEEDED, None


def _stops(workspace: Workspace, job: TakenJob) -> bool:
    return _cancelled(workspace, job) or _at_budget(workspace, job)


def _at_budget(workspace: Workspace, job: TakenJob) -> bool:
    account = job_budgets.account_of(workspace.ledger, job.job_id)
    return account is not None and account.reached


def _cancelled(workspace: Workspace, job: TakenJob) -> bool:
    return job_progress(workspace.ledger, job.job_id).state is JobState.CANCEL_REQUESTED
