"""What a tenant may spend on the gateway in a month, and what it has spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Engine, func, select

from ray_app.db.schema import tenants, usage
from ray_app.errors import UnknownTenant
from ray_app.tenants import Limits


@dataclass(frozen=True)
class Standing:
    """A tenant's cost budget as the ledger knows it, in US dollars."""

    #: None: no limit is set.
    limit: Decimal | None
    #: Spent since the first of the month, jobs included.
    spent: Decimal


def read_standing(ledger: Engine, incarnation: UUID, month: date) -> Standing:
    """The standing in the month that begins on ``month`` (UTC).

    Raises:
        UnknownTenant: there is no such tenant.
        DatabaseUnavailable: the ledger cannot be reached.
    """
    costs = select(func.coalesce(func.sum(usage.c.cost), 0)).where(
        usage.c.incarnation == incarnation, usage.c.day >= month
    )
    with ledger.connect() as connection:
        row = connection.execute(
            select(tenants.c.limits, costs.scalar_subquery().label("spent")).where(
                tenants.c.incarnation == incarnation
            )
        ).one_or_none()
    if row is None:
        raise UnknownTenant("There is no tenant to charge: it was removed.")
    return Standing(Limits.from_json(row.limits).monthly_cost, Decimal(row.spent))
