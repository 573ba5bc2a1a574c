"""What single jobs may spend: reserved before a call, settled after it, by whichever process makes the call.

A tenant's month has a budget too (``ray_app.serving.cost_budget``), which one process keeps in memory. A
job's encoders are several processes that may die, so its account is in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.dialects.postgresql import insert

from ray_app.budgets import JobLimits
from ray_app.db.schema import job_budgets as budgets
from ray_app.db.usage import spent_by_jobs
from ray_app.errors import InputError


@dataclass(frozen=True)
class Account:
    """A job's limits and what it has spent of them."""

    limits: JobLimits
    cost: Decimal
    tokens: int
    #: Whether a call was refused since the limits were set.
    reached: bool


def add(connection: Connection, job_id: str, limits: JobLimits) -> None:
    """Give a new job its limits."""
    values = {"cost_limit": limits.cost, "token_limit": limits.tokens}
    connection.execute(insert(budgets).values(job_id=job_id, **values))


def change(engine: Engine, job_id: str, limits: JobLimits) -> None:
    """Set the limits of a job that is to go on; those not given stay.

    Raises:
        InputError: the job has spent that much already, or stopped at its limits and gets no other.
    """
    with engine.begin() as connection:
        account = read(connection, [job_id]).get(job_id)
        if account is None:
            if not limits.given:
                return
            add(connection, job_id, limits)
            used = spent_by_jobs(connection, [job_id]).get(job_id)
            if used is not None:
                _set(connection, job_id, cost_spent=used.cost, tokens_spent=used.tokens)
            account = read(connection, [job_id])[job_id]
        cost = limits.cost if limits.cost is not None else account.limits.cost
        tokens = limits.tokens if limits.tokens is not None else account.limits.tokens
        too_low = (cost is not None and cost <= account.cost) or (
            tokens is not None and tokens <= account.tokens
        )
        if too_low or (account.reached and not limits.given):
            raise InputError(
                f"Job {job_id} has spent ${account.cost:.6f} and {account.tokens:,} tokens of its budget.",
                hint="Give it a higher budget or more tokens: what was spent before counts.",
            )
        _set(connection, job_id, cost_limit=cost, token_limit=tokens, reached=False)


def begin_run(connection: Connection, job_id: str) -> None:
    """Count what calls of an earlier run held when it died as spent: nobody knows whether it was charged."""
    connection.execute(
        update(budgets)
        .where(budgets.c.job_id == job_id)
        .values(
            cost_spent=budgets.c.cost_spent + budgets.c.cost_held,
            tokens_spent=budgets.c.tokens_spent + budgets.c.tokens_held,
            cost_held=0,
            tokens_held=0,
        )
    )


def reserve(engine: Engine, job_id: str, cost: Decimal, tokens: int) -> bool | None:
    """Hold what a call may cost at most. None: not now, other calls hold the rest; False: it is too much."""
    taken_cost = budgets.c.cost_spent + budgets.c.cost_held + cost
    taken_tokens = budgets.c.tokens_spent + budgets.c.tokens_held + tokens
    with engine.begin() as connection:
        done = connection.scalar(
            update(budgets)
            .where(
                budgets.c.job_id == job_id,
                func.coalesce(taken_cost <= budgets.c.cost_limit, True),
                func.coalesce(taken_tokens <= budgets.c.token_limit, True),
            )
            .values(cost_held=budgets.c.cost_held + cost, tokens_held=budgets.c.tokens_held + tokens)
            .returning(budgets.c.job_id)
        )
        if done is not None:
            return True
        row = connection.execute(select(budgets).where(budgets.c.job_id == job_id)).one()
    fits_alone = (row.cost_limit is None or row.cost_spent + cost <= row.cost_limit) and (
        row.token_limit is None or row.tokens_spent + tokens <= row.token_limit
    )
    return None if fits_alone else False


def settle(engine: Engine, job_id: str, held: tuple[Decimal, int], charged: tuple[Decimal, int]) -> None:
    """Replace what a call held, (US dollars, tokens), by what it was charged."""
    with engine.begin() as connection:
        _set(
            connection,
            job_id,
            # Below zero where a new run has counted the call as spent already.
            cost_held=func.greatest(budgets.c.cost_held - held[0], 0),
            tokens_held=func.greatest(budgets.c.tokens_held - held[1], 0),
            cost_spent=budgets.c.cost_spent + charged[0],
            tokens_spent=budgets.c.tokens_spent + charged[1],
        )


def stop(engine: Engine, job_id: str) -> None:
    """Say that the job's next call does not fit: its stages drop what has not been begun."""
    with engine.begin() as connection:
        _set(connection, job_id, reached=True)


def read(connection: Connection, job_ids: Sequence[str]) -> dict[str, Account]:
    """By job; those without limits are left out."""
    rows = connection.execute(select(budgets).where(budgets.c.job_id == func.any(list(job_ids))))
    return {
        row.job_id: Account(
            JobLimits(row.cost_limit, row.token_limit),
            Decimal(row.cost_spent),
            int(row.tokens_spent),
            bool(row.reached),
        )
        for row in rows
    }


def account_of(engine: Engine, job_id: str) -> Account | None:
    with engine.connect() as connection:
        return read(connection, [job_id]).get(job_id)


def _set(connection: Connection, job_id: str, **values: object) -> None:
    connection.execute(update(budgets).where(budgets.c.job_id == job_id).values(**values))
