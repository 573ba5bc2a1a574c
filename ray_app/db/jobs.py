"""Jobs in the ledger: creation under locks, ownership, cancellation.

The truth about a job is here. Every write of a running job names its ``run``; taking a job over
raises the run, so that whatever an earlier driver still has in flight is refused.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from ray_app.budgets import JobLimits
from ray_app.db import job_budgets, ranges
from ray_app.db.fences import lock_active
from ray_app.db.idempotency import Asked
from ray_app.db.indexes import PinnedIndex, pin
from ray_app.db.job_owners import heartbeat_age, host_id, owner_alive
from ray_app.db.ranges import RangeSpec
from ray_app.db.schema import job_locks, jobs
from ray_app.errors import ConflictError, JobConflict, LostJob, UnknownJob
from ray_app.reports import IMPORT, JobState
from ray_app.tenants import Tenant


@dataclass(frozen=True)
class JobRequest:
    """What was asked for, kept with the job so that a resume does the same."""

    tables: tuple[str, ...]
    vector_types: tuple[str, ...]
    prefer: str | None
    #: The space of the generation that a migration writes; None for the pinned ones.
    space_id: str | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> JobRequest:
        tables, kinds = tuple(value["tables"]), tuple(value["vector_types"])
        return cls(tables, kinds, value["prefer"], value.get("space_id"))

    def to_json(self) -> dict[str, Any]:
        written = {
            "tables": list(self.tables),
            "vector_types": list(self.vector_types),
            "prefer": self.prefer,
        }
        return written if self.space_id is None else {**written, "space_id": self.space_id}


@dataclass(frozen=True)
class TakenJob:
    """A job this process drives."""

    job_id: str
    run: int
    incarnation: UUID
    request: JobRequest


def create_job(
    engine: Engine,
    incarnation: UUID,
    kind: str,
    request: JobRequest,
    work: Sequence[RangeSpec],
    indexes: Sequence[PinnedIndex] = (),
    asked: Asked | None = None,
    limits: JobLimits | None = None,
) -> str:
    """Create a pending job, lock its tables and pin its indexes; ``asked`` has its idempotency key.

    ``limits`` is what it may spend.

    Raises:
        JobConflict: an active job works on one of the tables; it is named.
        sqlalchemy.exc.IntegrityError: the tenant has a job with the idempotency key.
    """
    job_id = f"job-{secrets.token_hex(6)}"
    with engine.begin() as connection:
        lock_active(connection, incarnation)
        connection.execute(
            insert(jobs).values(
                job_id=job_id,
                incarnation=incarnation,
                kind=kind,
                state=JobState.PENDING,
                request={**request.to_json(), **({"asked": asked.to_json()} if asked else {})},
                idempotency_key=asked.key if asked else None,
                owner_host=host_id(),
                owner_pid=os.getpid(),
                heartbeat_at=func.now(),
            )
        )
        if limits is not None and limits.given:
            job_budgets.add(connection, job_id, limits)
        _lock_tables(connection, job_id, incarnation, request)
        ranges.add(connection, job_id, work)
        for index in indexes:
            pin(connection, incarnation, index)
    return job_id


def _lock_tables(connection: Connection, job_id: str, incarnation: UUID, request: JobRequest) -> None:
    generation = request.space_id or ""
    for table in sorted(request.tables):  # one order for all, so that two jobs cannot deadlock
        holder = connection.execute(
            select(jobs, heartbeat_age())
            .join_from(job_locks, jobs, job_locks.c.job_id == jobs.c.job_id)
            .where(
                job_locks.c.incarnation == incarnation,
                job_locks.c.table_name == table,
                job_locks.c.generation == generation,
            )
            .with_for_update()
        ).one_or_none()
        if holder is not None and holder.job_id != job_id:
            if owner_alive(holder):
                raise JobConflict(
                    f"Job {holder.job_id} already works on table {table} of this tenant.",
                    job_id=holder.job_id,
                    hint=f"Wait for it, or stop it: rowbeam cancel {holder.job_id}.",
                )
            _end(connection, holder.job_id, JobState.INTERRUPTED, "Its driver is gone.")
        taken = connection.execute(
            upsert(job_locks)
            .values(incarnation=incarnation, table_name=table, generation=generation, job_id=job_id)
            .on_conflict_do_nothing()
            .returning(job_locks.c.job_id)
        ).one_or_none()
        if taken is None and (holder is None or holder.job_id != job_id):
            raise JobConflict(f"Another job has just started on table {table}.", job_id="", hint="Try again.")


def take_job(engine: Engine, job_id: str, *, new: bool = False, importing: bool = False) -> TakenJob:
    """Become the driver of a pending job, or of one that was cancelled, failed or lost its driver.

    Ranges that are not done start over; what they wrote is recognised as unchanged. A driver that
    was started for a ``new`` job takes no other: one cancelled on its way must not be resumed by it.

    Raises:
        UnknownJob: there is none of that id.
        JobConflict: its driver lives.
        ConflictError: it has succeeded, is new no more, or is an import while ``importing`` was not said.
    """
    with engine.begin() as connection:
        row = _job_row(connection, job_id, lock=True)
        _check_takeable(row, importing=importing)
        if new and row.state != JobState.PENDING:
            raise ConflictError(f"Job {job_id} was {row.state} before its driver took it.")
        request = JobRequest.from_json(row.request)
        lock_active(connection, row.incarnation)
        _lock_tables(connection, job_id, row.incarnation, request)
        run = row.run + 1
        connection.execute(
            update(jobs)
            .where(jobs.c.job_id == job_id)
            .values(
                run=run,
                state=JobState.RUNNING,
                owner_host=host_id(),
                owner_pid=os.getpid(),
                heartbeat_at=func.now(),
                started_at=func.coalesce(jobs.c.started_at, func.now()),
                finished_at=None,
                error=None,
            )
        )
        ranges.reset(connection, job_id)
        job_budgets.begin_run(connection, job_id)
    return TakenJob(job_id, run, row.incarnation, request)


def hand_over(engine: Engine, job: TakenJob) -> bool:
    """Make a job this process has taken pending again, for another driver; False when it is cancelled.

    A cancelled one is ended here.
    """
    with engine.begin() as connection:
        row = _job_row(connection, job.job_id, lock=True)
        if row.run != job.run:
            return False
        if row.state == JobState.CANCEL_REQUESTED:
            _end(connection, job.job_id, JobState.CANCELLED, None)
            return False
        connection.execute(
            update(jobs)
            .where(jobs.c.job_id == job.job_id)
            .values(state=JobState.PENDING, heartbeat_at=func.now())
        )
    return True


def requeue(engine: Engine, job_id: str, *, unstarted: bool = False) -> bool:
    """Make a job pending again, its tables locked; whether its driver now has to be started.

    False for a job that is active: somebody else has seen to it. With ``unstarted`` also for one
    that ever had a driver or was cancelled.

    Raises:
        UnknownJob: there is none of that id.
        JobConflict: another job works on one of its tables.
        ConflictError: it has succeeded.
    """
    with engine.begin() as connection:
        row = _job_row(connection, job_id, lock=True)
        if owner_alive(row) or (unstarted and (row.run or row.state == JobState.CANCELLED)):
            return False
        _check_takeable(row)
        lock_active(connection, row.incarnation)
        _lock_tables(connection, job_id, row.incarnation, JobRequest.from_json(row.request))
        connection.execute(
            update(jobs)
            .where(jobs.c.job_id == job_id)
            .values(
                state=JobState.PENDING,
                owner_host=host_id(),
                owner_pid=os.getpid(),
                heartbeat_at=func.now(),
                finished_at=None,
                error=None,
            )
        )
    return True


def heartbeat(engine: Engine, job: TakenJob, progress: dict[str, Any]) -> JobState:
    """Say that the driver lives and what it sees; answers the job's state, to notice a cancel.

    Raises:
        LostJob: another driver has the job.
    """
    with engine.begin() as connection:
        state = connection.scalar(
            update(jobs)
            .where(jobs.c.job_id == job.job_id, jobs.c.run == job.run)
            .values(heartbeat_at=func.now(), progress=progress)
            .returning(jobs.c.state)
        )
    if state is None:
        raise LostJob(f"Job {job.job_id} was taken over by another driver.")
    return JobState(state)


def finish_job(engine: Engine, job: TakenJob, state: JobState, error: str | None = None) -> None:
    """End the job and unlock its tables, unless another driver has it."""
    with engine.begin() as connection:
        mine = connection.scalar(
            select(jobs.c.run).where(jobs.c.job_id == job.job_id, jobs.c.run == job.run).with_for_update()
        )
        if mine is not None:
            _end(connection, job.job_id, state, error)


def fail_pending(engine: Engine, job_id: str, error: str) -> None:
    """End a job whose driver never took it."""
    with engine.begin() as connection:
        if _job_row(connection, job_id, lock=True).state == JobState.PENDING:
            _end(connection, job_id, JobState.FAILED, error)


def _end(connection: Connection, job_id: str, state: JobState, error: str | None) -> None:
    connection.execute(
        update(jobs).where(jobs.c.job_id == job_id).values(state=state, error=error, finished_at=func.now())
    )
    connection.execute(delete(job_locks).where(job_locks.c.job_id == job_id))


def check_resumable(engine: Engine, job_id: str, tenant: Tenant) -> None:
    """Whether ``take_job`` would take the job for this tenant now.

    Raises:
        UnknownJob: the tenant has none of that id.
        JobConflict, ConflictError: it is running or has succeeded.
    """
    with engine.connect() as connection:
        row = _job_row(connection, job_id)
    if row.incarnation != tenant.incarnation:
        raise UnknownJob(f"Tenant {tenant.name} has no job {job_id!r}.")
    _check_takeable(row)


def _check_takeable(row: Row[Any], *, importing: bool = False) -> None:
    if (row.kind == IMPORT) is not importing:
        # Its ranges are in files, which no driver of another kind has.
        raise ConflictError(
            f"Job {row.job_id} is an import.", hint="Import the same files again, and it goes on."
        )
    if row.state == JobState.SUCCEEDED:
        raise ConflictError(f"Job {row.job_id} has succeeded; there is nothing to resume.")
    if row.state != JobState.PENDING and owner_alive(row) and row.owner_pid != os.getpid():
        hint = f"rowbeam job {row.job_id} shows it."
        raise JobConflict(f"Job {row.job_id} is still running.", job_id=row.job_id, hint=hint)


def request_cancel(engine: Engine, job_id: str) -> JobState:
    """Ask an active job to stop at range ends; one whose driver is gone ends at once.

    Raises:
        UnknownJob: there is none of that id.
        ConflictError: it has ended.
    """
    with engine.begin() as connection:
        row = _job_row(connection, job_id, lock=True)
        if not JobState(row.state).active:
            raise ConflictError(f"Job {job_id} has ended: {row.state}.")
        if not owner_alive(row) or row.state == JobState.PENDING:
            _end(connection, job_id, JobState.CANCELLED, None)
            return JobState.CANCELLED
        connection.execute(
            update(jobs).where(jobs.c.job_id == job_id).values(state=JobState.CANCEL_REQUESTED)
        )
        return JobState.CANCEL_REQUESTED


def is_worked_on(engine: Engine, incarnation: UUID, table: str) -> bool:
    """Whether an active job, its driver alive, has the table locked."""
    query = (
        select(jobs, heartbeat_age())
        .join_from(job_locks, jobs, job_locks.c.job_id == jobs.c.job_id)
        .where(job_locks.c.incarnation == incarnation, job_locks.c.table_name == table)
    )
    with engine.connect() as connection:
        holder = connection.execute(query).one_or_none()
    return holder is not None and owner_alive(holder)


def _job_row(connection: Connection, job_id: str, *, lock: bool = False) -> Row[Any]:
    query = select(jobs, heartbeat_age()).where(jobs.c.job_id == job_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise UnknownJob(f"There is no job {job_id!r}.", hint="rowbeam jobs --all lists them.")
    return row
