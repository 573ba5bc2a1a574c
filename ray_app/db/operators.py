"""What an operator sees of all tenants at once: counts of the ledger's small tables, none of its vectors."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Engine, func, select

from ray_app.db.dead_letters import waits
from ray_app.db.job_owners import heartbeat_age, owner_alive
from ray_app.db.schema import dead_letters, indexes, jobs, ranges, tenants, usage
from ray_app.reports import JobState
from ray_app.tenants import TenantState


@dataclass(frozen=True)
class Spent:
    """What a tenant's embedding came to in some days, jobs included."""

    tokens: int = 0
    #: US dollars.
    cost: Decimal = Decimal(0)


@dataclass(frozen=True)
class DayUsage:
    """What one provider and model did on one day (UTC), for all tenants, removed ones included."""

    day: date
    provider: str
    model: str
    texts: int
    tokens: int
    #: US dollars.
    cost: Decimal
    #: Seconds that the provider was busy, added up where several calls ran at once.
    seconds: float


@dataclass(frozen=True)
class LetterCount:
    """A tenant's open dead letters of one table."""

    tenant: str
    table: str
    total: int
    #: Those that are new since the time asked for.
    recent: int


@dataclass(frozen=True)
class JobMark:
    """When an active job was last seen to do anything."""

    job_id: str
    tenant: str
    state: JobState
    #: Whether its driver lives.
    driven: bool
    #: When it last finished a range, or else began or was made.
    moved_at: datetime


def spent_since(engine: Engine, first: date) -> dict[UUID, Spent]:
    """By tenant's incarnation, from ``first`` (UTC) to today."""
    query = (
        select(usage.c.incarnation, func.sum(usage.c.tokens), func.sum(usage.c.cost))
        .where(usage.c.day >= first)
        .group_by(usage.c.incarnation)
    )
    with engine.connect() as connection:
        return {
            incarnation: Spent(int(tokens), Decimal(cost))
            for incarnation, tokens, cost in connection.execute(query)
        }


def daily_usage(engine: Engine, first: date, last: date) -> list[DayUsage]:
    """By day, provider and model, both days included."""
    by = (usage.c.day, usage.c.provider, usage.c.model)
    sums = (func.sum(usage.c[name]).label(name) for name in ("texts", "tokens", "cost", "seconds"))
    query = select(*by, *sums).where(usage.c.day.between(first, last)).group_by(*by).order_by(*by)
    with engine.connect() as connection:
        return [
            DayUsage(
                *(row.day, row.provider, row.model, int(row.texts), int(row.tokens)),
                *(Decimal(row.cost), float(row.seconds)),
            )
            for row in connection.execute(query)
        ]


def count_dead_letters(engine: Engine, since: datetime) -> list[LetterCount]:
    """Of each active tenant and table that has any open, most first."""
    letters = dead_letters.c
    total = func.count().label("total")
    recent = func.count().filter(letters.first_at >= since).label("recent")
    query = (
        select(tenants.c.name, letters.table_name, total, recent)
        .join_from(dead_letters, tenants, letters.incarnation == tenants.c.incarnation)
        .where(waits(), tenants.c.state == TenantState.ACTIVE)
        .group_by(tenants.c.name, letters.table_name)
        .order_by(total.desc(), tenants.c.name, letters.table_name)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return [LetterCount(row.name, row.table_name, row.total, row.recent) for row in rows]


def job_marks(engine: Engine) -> list[JobMark]:
    """Of the jobs that have not ended, oldest first."""
    moved = func.greatest(func.max(ranges.c.finished_at), jobs.c.started_at, jobs.c.created_at)
    query = (
        select(jobs, heartbeat_age(), tenants.c.name.label("tenant"), moved.label("moved_at"))
        .join_from(jobs, tenants, jobs.c.incarnation == tenants.c.incarnation)
        .join(ranges, ranges.c.job_id == jobs.c.job_id, isouter=True)
        .where(jobs.c.state.in_([state for state in JobState if state.active]))
        .group_by(jobs.c.job_id, tenants.c.incarnation)
        .order_by(jobs.c.created_at, jobs.c.job_id)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return [
        JobMark(row.job_id, row.tenant, JobState(row.state), owner_alive(row), row.moved_at) for row in rows
    ]


def indexed_tables(engine: Engine) -> list[str]:
    """Names of the tables of which any active tenant has an index."""
    query = (
        select(indexes.c.table_name)
        .join_from(indexes, tenants, indexes.c.incarnation == tenants.c.incarnation)
        .where(tenants.c.state == TenantState.ACTIVE)
        .distinct()
        .order_by(indexes.c.table_name)
    )
    with engine.connect() as connection:
        return list(connection.scalars(query))


def this_month() -> date:
    """The first day of the month that it is (UTC)."""
    return datetime.now(UTC).date().replace(day=1)
