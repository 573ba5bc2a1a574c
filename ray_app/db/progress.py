"""Jobs as they stand, read from the ledger alone, so also after they have ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, Row, case, func, select

from ray_app.budgets import JobBudget
from ray_app.db import job_budgets, usage
from ray_app.db.job_owners import heartbeat_age, owner_alive
from ray_app.db.schema import jobs, ranges, tenants
from ray_app.errors import UnknownJob
from ray_app.reports import Counts, JobProgress, JobState

#: What can be looked for; Postgres refuses some texts, such as one with a NUL.
_JOB_ID: Final = re.compile(r"[!-~]{1,64}")


def job_progress(engine: Engine, job_id: str, incarnation: UUID | None = None) -> JobProgress:
    """One job, of whichever tenant unless one is named.

    Raises:
        UnknownJob: there is none of that id, or it is another tenant's; which one is not said.
    """
    mine = [jobs.c.incarnation == incarnation] if incarnation else []
    found = _read(engine, [jobs.c.job_id == job_id, *mine]) if _JOB_ID.fullmatch(job_id) else []
    if not found:
        raise UnknownJob(f"There is no job {job_id!r}.", hint="rowbeam jobs --all lists them.")
    return found[0]


def list_jobs(
    engine: Engine, *, include_ended: bool, incarnation: UUID | None = None, limit: int | None = None
) -> list[JobProgress]:
    """The newest ``limit`` jobs, newest first, of all tenants or of one."""
    conditions: list[ColumnElement[bool]] = []
    if not include_ended:
        conditions.append(jobs.c.state.in_([state for state in JobState if state.active]))
    if incarnation is not None:
        conditions.append(jobs.c.incarnation == incarnation)
    return _read(engine, conditions, limit)


def _read(
    engine: Engine, conditions: Sequence[ColumnElement[bool]], limit: int | None = None
) -> list[JobProgress]:
    query = (
        select(
            jobs,
            heartbeat_age(),
            func.clock_timestamp().label("read_at"),
            tenants.c.name.label("tenant_name"),
        )
        .join_from(jobs, tenants, jobs.c.incarnation == tenants.c.incarnation)
        .where(*conditions)
        .order_by(jobs.c.created_at.desc(), jobs.c.job_id)
        .limit(limit)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
        ids = [row.job_id for row in rows]
        work, spent = _work(connection, ids), usage.spent_by_jobs(connection, ids)
        accounts = job_budgets.read(connection, ids)
    return [
        _progress(
            row,
            work.get(row.job_id, _Work()),
            spent.get(row.job_id, usage.JobUsage()),
            accounts.get(row.job_id),
        )
        for row in rows
    ]


@dataclass(frozen=True)
class _Work:
    """A job's ranges, added up."""

    batches: int = 0
    batches_done: int = 0
    #: Records expected; of ranges that are done, those that were found.
    total: int = 0
    counts: Counts = field(default_factory=Counts)


def _work(connection: Connection, job_ids: Sequence[str]) -> dict[str, _Work]:
    names = tuple(Counts.__dataclass_fields__)
    done = ranges.c.state == "done"
    query = (
        select(
            ranges.c.job_id,
            func.count().label("batches"),
            func.count().filter(done).label("batches_done"),
            func.sum(case((done, ranges.c.read), else_=ranges.c.expected)).label("total"),
            *(func.sum(ranges.c[name]).label(name) for name in names),
        )
        .where(ranges.c.job_id == func.any(list(job_ids)))
        .group_by(ranges.c.job_id)
    )
    return {
        row.job_id: _Work(
            *(row.batches, row.batches_done, int(row.total)),
            Counts(**{name: int(getattr(row, name)) for name in names}),
        )
        for row in connection.execute(query)
    }


def _progress(
    row: Row[Any], work: _Work, spent: usage.JobUsage, account: job_budgets.Account | None
) -> JobProgress:
    counts = work.counts
    state = JobState(row.state)
    if state.active and not owner_alive(row):
        state = JobState.INTERRUPTED
    seconds = _seconds(row)
    ended = not state.active
    eta = row.progress.get("estimated_completion")
    rate = counts.read / seconds if ended and seconds else row.progress.get("records_per_second", 0.0)
    return JobProgress(
        job_id=row.job_id,
        tenant=row.tenant_name,
        kind=row.kind,
        state=state,
        tables=tuple(row.request["tables"]),
        vector_types=tuple(row.request["vector_types"]),
        prefer=row.request["prefer"],
        total_records=work.total,
        processed_records=counts.read,
        successful_records=counts.read - counts.dead,
        failed_records=counts.dead,
        current_batch=work.batches_done,
        total_batches=work.batches,
        counts=counts,
        tokens=spent.tokens,
        cost=spent.cost,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        estimated_completion=datetime.fromisoformat(eta) if eta and not ended else None,
        records_per_second=float(rate),
        seconds=seconds,
        encoding_seconds=spent.seconds,
        provider=row.progress.get("provider"),
        errors=tuple(row.progress.get("errors", ())),
        error=row.error,
        budget=None if account is None else _budget(account, work, spent),
    )


def _budget(account: job_budgets.Account, work: _Work, spent: usage.JobUsage) -> JobBudget:
    done, left = work.counts.read, max(work.total - work.counts.read, 0)
    return JobBudget(
        account.limits.cost,
        account.limits.tokens,
        account.cost,
        account.tokens,
        rows_left=left,
        tokens_left=spent.tokens * left // done if done else 0,
        cost_left=spent.cost * left / done if done else Decimal(0),
    )


def _seconds(row: Row[Any]) -> float:
    if row.started_at is None:
        return 0.0
    end = row.finished_at or row.read_at
    # Less than nothing where the clock was set back meanwhile.
    return max(0.0, float((end - row.started_at).total_seconds()))
