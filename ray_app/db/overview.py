"""What the ledger says of all tenants together, for whoever watches the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Numeric, cast, func, select, true

from ray_app.db import erasures
from ray_app.db.dead_letters import waits
from ray_app.db.job_owners import heartbeat_age, owner_alive
from ray_app.db.schema import dead_letters, indexes, jobs, ranges, tenants, usage
from ray_app.reports import Counts, JobState
from ray_app.tenants import TenantState

#: How long after a job's end its row may still become visible: transactions end later than their time.
_LATE: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Budget:
    """A tenant's monthly budget and what of it is spent, in US dollars."""

    limit: Decimal
    spent: Decimal

    @property
    def left(self) -> Decimal:
        return max(self.limit - self.spent, Decimal(0))

    @property
    def used(self) -> float:
        """The share that is spent, above 1 when it is overspent; 1 of a budget of nothing."""
        return float(self.spent / self.limit) if self.limit else 1.0


@dataclass(frozen=True)
class Overview:
    """The whole ledger at one time."""

    #: Jobs that have not ended, by state, those whose driver is gone as interrupted.
    jobs: Mapping[JobState, int]
    #: Seconds since the ledger heard of that one of them that it has not heard of for longest; 0 for none.
    oldest_heartbeat: float
    #: Open dead letters by table, 0 for tables with an index and without any.
    dead_letters: Mapping[str, int]
    #: Of the active tenants that have one, this month (UTC).
    budgets: Sequence[Budget]
    tenants: int
    #: Seconds that the round of an erasure has been due which has been due for longest; 0 when none is.
    erasure_overdue: float


def read_overview(connection: Connection) -> Overview:
    """Raises DatabaseUnavailable."""
    states, heartbeat = _jobs(connection)
    active = select(func.count()).where(tenants.c.state == TenantState.ACTIVE)
    return Overview(
        jobs=states,
        oldest_heartbeat=heartbeat,
        dead_letters=_dead(connection),
        budgets=_budgets(connection),
        tenants=int(connection.scalar(active) or 0),
        erasure_overdue=erasures.overdue(connection),
    )


def _jobs(connection: Connection) -> tuple[dict[JobState, int], float]:
    active = [state for state in JobState if state.active]
    rows = connection.execute(select(jobs, heartbeat_age()).where(jobs.c.state.in_(active))).all()
    found = Counter(JobState(row.state) if owner_alive(row) else JobState.INTERRUPTED for row in rows)
    states = {state: found[state] for state in (*active, JobState.INTERRUPTED)}
    return states, max((row.heartbeat_age for row in rows if row.heartbeat_age is not None), default=0.0)


def _dead(connection: Connection) -> dict[str, int]:
    tables = connection.scalars(select(indexes.c.table_name).distinct())
    query = select(dead_letters.c.table_name, func.count()).where(waits()).group_by(dead_letters.c.table_name)
    found = {str(table): int(count) for table, count in connection.execute(query)}
    return dict.fromkeys(tables, 0) | found


def _budgets(connection: Connection) -> list[Budget]:
    month = datetime.now(UTC).date().replace(day=1)
    limit = cast(tenants.c.limits["monthly_cost"].astext, Numeric)
    query = (
        select(limit, func.coalesce(func.sum(usage.c.cost), 0))
        .outerjoin_from(
            tenants, usage, (usage.c.incarnation == tenants.c.incarnation) & (usage.c.day >= month)
        )
        .where(tenants.c.state == TenantState.ACTIVE, limit.is_not(None))
        .group_by(tenants.c.incarnation)
    )
    return [Budget(Decimal(limit), Decimal(spent)) for limit, spent in connection.execute(query).all()]


@dataclass(frozen=True)
class Ended:
    """Jobs that have ended lately."""

    states: Mapping[JobState, int] = field(default_factory=dict)
    #: Outcomes by table of their records in ranges where nothing had to be written. No part was made of
    #: these, so no process that writes has counted them.
    unwritten: Mapping[str, Counts] = field(default_factory=dict)


class EndedJobs:
    """Jobs that have ended since this was made."""

    def __init__(self) -> None:
        self._since: datetime | None = None
        self._seen: set[tuple[str, int]] = set()
        #: When the ranges of a job that did not succeed, and may be resumed, were counted.
        self._counted: dict[str, datetime] = {}

    def look(self, connection: Connection) -> Ended:
        """Those that have ended since the last look; the first look finds none."""
        now = connection.execute(select(func.now())).scalar_one()
        rows = connection.execute(
            select(jobs.c.job_id, jobs.c.run, jobs.c.state).where(
                jobs.c.finished_at >= (self._since or now) - _LATE
            )
        ).all()
        fresh = [row for row in rows if (row.job_id, row.run) not in self._seen]
        first, self._since = self._since is None, now
        self._seen = {(row.job_id, row.run) for row in rows}
        if first:
            return Ended()
        unwritten: dict[str, Counts] = {}
        for row in fresh:
            for table, counts in _unwritten(connection, row.job_id, self._counted.pop(row.job_id, None)):
                unwritten[table] = unwritten.get(table, Counts()) + counts
            if JobState(row.state).resumable:
                self._counted[row.job_id] = now
        return Ended(Counter(JobState(row.state) for row in fresh), unwritten)


def _unwritten(connection: Connection, job_id: str, since: datetime | None) -> list[tuple[str, Counts]]:
    names = tuple(Counts.__dataclass_fields__)
    query = (
        select(ranges.c.table_name, *(func.sum(ranges.c[name]).label(name) for name in names))
        .where(
            ranges.c.job_id == job_id, ranges.c.state == "done", func.jsonb_array_length(ranges.c.parts) == 0
        )
        .group_by(ranges.c.table_name)
    )
    if since is not None:
        query = query.where(ranges.c.finished_at > since)
    return [
        (row.table_name, Counts(**{name: int(getattr(row, name)) for name in names}))
        for row in connection.execute(query)
    ]


@dataclass(frozen=True)
class IndexSince:
    """An index of an active tenant, and from when on its table's changes may not be embedded yet."""

    incarnation: UUID
    tenant: str
    client_id: int
    table: str
    vector_type: str
    created_at: datetime
    #: When the last backfill that did all of it began; None before the first.
    covered_at: datetime | None


def read_indexes(connection: Connection) -> list[IndexSince]:
    """All indexes of active tenants, by table. Raises DatabaseUnavailable."""
    tables = func.jsonb_array_elements_text(jobs.c.request["tables"]).table_valued("value")
    kinds = func.jsonb_array_elements_text(jobs.c.request["vector_types"]).table_valued("value")
    done = (
        select(
            jobs.c.incarnation,
            tables.c.value.label("table_name"),
            kinds.c.value.label("vector_type"),
            func.max(jobs.c.started_at).label("covered_at"),
        )
        .select_from(jobs.join(tables, true()).join(kinds, true()))
        # A redrive does some records only.
        .where(jobs.c.state == JobState.SUCCEEDED, jobs.c.kind == "backfill")
        .group_by(jobs.c.incarnation, tables.c.value, kinds.c.value)
        .subquery()
    )
    same = (
        (done.c.incarnation == indexes.c.incarnation)
        & (done.c.table_name == indexes.c.table_name)
        & (done.c.vector_type == indexes.c.vector_type)
    )
    query = (
        select(indexes, tenants.c.name, tenants.c.client_id, done.c.covered_at)
        .select_from(
            indexes.join(tenants, tenants.c.incarnation == indexes.c.incarnation).outerjoin(done, same)
        )
        .where(tenants.c.state == TenantState.ACTIVE)
        .order_by(indexes.c.table_name, indexes.c.vector_type, tenants.c.name)
    )
    return [
        IndexSince(
            *(row.incarnation, row.name, row.client_id, row.table_name, row.vector_type),
            *(row.created_at, row.covered_at),
        )
        for row in connection.execute(query).all()
    ]
