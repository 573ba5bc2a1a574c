"""What embedding cost, and how fast providers were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, exists, func, literal, select
from sqlalchemy.dialects.postgresql import insert

from ray_app.db.schema import tenants, usage
from ray_app.errors import BudgetExhausted, InputError, ProviderUnavailable
from ray_app.parts import Part
from ray_app.reports import UsageReport, UsageRow
from ray_app.spaces import EmbeddingSpace
from ray_app.tenants import Tenant, TenantState

#: How far back a provider's speed is averaged: long enough to be steady, short enough to follow new hardware.
SPEED_WINDOW: Final = timedelta(days=7)

#: Days of one usage report: a year, and the day it began on.
MAX_DAYS: Final = 367


def add_part(connection: Connection, incarnation: UUID, space: EmbeddingSpace, part: Part) -> None:
    """Add what embedding the part cost to its day."""
    _add(
        connection,
        incarnation=incarnation,
        provider=part.provider,
        model=space.model,
        table_name=part.table,
        job_id=part.key.job_id,
        texts=part.counts.chunks - part.counts.reused,
        tokens=part.tokens,
        cost=part.cost,
        seconds=part.seconds,
    )


def add_failed_call(
    connection: Connection,
    incarnation: UUID,
    space: EmbeddingSpace,
    part: Part,
    provider: str,
    error: ProviderUnavailable | BudgetExhausted,
) -> None:
    """Add what a call spent before it failed: its vectors are lost, its bill is not."""
    _add(
        connection,
        incarnation=incarnation,
        provider=provider,
        model=space.model,
        table_name=part.table,
        job_id=part.key.job_id,
        texts=0,
        tokens=error.tokens,
        cost=error.cost,
        seconds=0.0,
    )


def add_online(
    connection: Connection,
    *,
    incarnation: UUID,
    provider: str,
    model: str,
    table: str,
    texts: int,
    tokens: int,
    cost: Decimal,
    seconds: float,
) -> None:
    """Add what online work cost: its ``job_id`` is "", and ``table`` "" where none was concerned."""
    _add(
        connection,
        incarnation=incarnation,
        provider=provider,
        model=model,
        table_name=table,
        job_id="",
        texts=texts,
        tokens=tokens,
        cost=cost,
        seconds=seconds,
    )


def _add(connection: Connection, **values: Any) -> None:
    values |= {"day": datetime.now(UTC).date()}
    row = [literal(value, usage.c[name].type) for name, value in values.items()]
    # What is counted in memory must not come to be in the ledger after its tenant was erased from it.
    removed = exists().where(
        tenants.c.incarnation == values["incarnation"], tenants.c.state != TenantState.ACTIVE
    )
    statement = insert(usage).from_select(list(values), select(*row).where(~removed))
    sums = {name: usage.c[name] + statement.excluded[name] for name in ("texts", "tokens", "cost", "seconds")}
    connection.execute(statement.on_conflict_do_update(index_elements=list(usage.primary_key), set_=sums))


@dataclass(frozen=True)
class JobUsage:
    """What a job spent."""

    tokens: int = 0
    #: US dollars.
    cost: Decimal = Decimal(0)
    #: Seconds that providers worked, added up where several did at once.
    seconds: float = 0.0


def spent(connection: Connection, *, incarnation: UUID) -> tuple[int, Decimal]:
    """Tokens and US dollars spent by a tenant."""
    tokens, cost = connection.execute(
        select(func.coalesce(func.sum(usage.c.tokens), 0), func.coalesce(func.sum(usage.c.cost), 0)).where(
            usage.c.incarnation == incarnation
        )
    ).one()
    return int(tokens), Decimal(cost)


def spent_by_jobs(connection: Connection, job_ids: Sequence[str]) -> dict[str, JobUsage]:
    """By job; those that spent nothing are left out."""
    sums = (func.sum(usage.c[name]).label(name) for name in ("tokens", "cost", "seconds"))
    query = (
        select(usage.c.job_id, *sums)
        .where(usage.c.job_id == func.any(list(job_ids)))
        .group_by(usage.c.job_id)
    )
    return {
        row.job_id: JobUsage(int(row.tokens), Decimal(row.cost), float(row.seconds))
        for row in connection.execute(query)
    }


def read_report(
    engine: Engine, tenant: Tenant, first: date | None = None, last: date | None = None
) -> UsageReport:
    """The tenant's usage by day (UTC), provider, model and table, both days included.

    ``last`` is today unless given, ``first`` the first of its month. Online usage of the last few
    seconds may still be in a server's memory.

    Raises:
        InputError: ``last`` is before ``first``, or more than ``MAX_DAYS`` days are asked for.
    """
    last = last or datetime.now(UTC).date()
    first = first or last.replace(day=1)
    if not timedelta(0) <= last - first < timedelta(days=MAX_DAYS):
        raise InputError("The days are out of order or too far apart.", hint=f"Ask for 1 to {MAX_DAYS} days.")
    by = (usage.c.day, usage.c.provider, usage.c.model, usage.c.table_name)
    query = (
        select(*by, *(func.sum(usage.c[name]).label(name) for name in ("texts", "tokens", "cost")))
        .where(usage.c.incarnation == tenant.incarnation, usage.c.day.between(first, last))
        .group_by(*by)
        .order_by(*by)
    )
    with engine.connect() as connection:
        rows = tuple(
            UsageRow(
                *(row.day, row.provider, row.model, row.table_name),
                *(int(row.texts), int(row.tokens), Decimal(row.cost)),
            )
            for row in connection.execute(query)
        )
    return UsageReport(tenant.name, first, last, rows)


def speed_of(connection: Connection, provider: str, model: str) -> float | None:
    """Tokens a second that the provider has lately done, or None before its first job."""
    since = datetime.now(UTC).date() - SPEED_WINDOW
    tokens, seconds = connection.execute(
        select(func.sum(usage.c.tokens), func.sum(usage.c.seconds)).where(
            usage.c.provider == provider, usage.c.model == model, usage.c.day >= since
        )
    ).one()
    return float(tokens) / seconds if seconds else None
