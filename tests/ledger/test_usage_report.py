"""Usage by day, provider, model and table: exact, complete, and of one tenant."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, insert

from ray_app.db.registry import TenantRegistry
from ray_app.db.schema import usage
from ray_app.db.usage import MAX_DAYS, read_report
from ray_app.errors import InputError
from ray_app.reports import UsageReport, UsageRow
from ray_app.tenants import Placement, Tenant

DAY = date(2026, 11, 10)


@pytest.fixture
def tenants(database: Engine) -> tuple[Tenant, Tenant]:
    registry = TenantRegistry(database)
    return (
        registry.create("acme", 1, Placement.EMBEDDED)[0],
        registry.create("globex", 2, Placement.EMBEDDED)[0],
    )


def spend(database: Engine, tenant: Tenant, **values: object) -> None:
    row = {
        "day": DAY,
        "provider": "gateway",
        "model": "m",
        "table_name": "issues",
        "job_id": "job-1",
        "texts": 1,
        "tokens": 10,
        "cost": Decimal("0.1"),
        "seconds": 1.0,
    }
    with database.begin() as connection:
        connection.execute(insert(usage).values({"incarnation": tenant.incarnation, **row, **values}))


def test_jobs_are_added_up_and_the_rest_is_told_apart(
    database: Engine, tenants: tuple[Tenant, Tenant]
) -> None:
    acme, globex = tenants
    spend(database, acme, cost=Decimal("0.000000001"))
    spend(database, acme, job_id="", cost=Decimal("0.000000002"))
    spend(database, acme, table_name="", job_id="")
    spend(database, acme, provider="local-cpu", cost=Decimal(0))
    spend(database, acme, model="m2")
    spend(database, acme, day=DAY + timedelta(days=1))
    spend(database, globex, tokens=999)

    report = read_report(database, acme, DAY, DAY + timedelta(days=1))

    tenth = Decimal("0.1")
    assert report.rows == (
        UsageRow(DAY, "gateway", "m", "", 1, 10, tenth),
        UsageRow(DAY, "gateway", "m", "issues", 2, 20, Decimal("0.000000003")),
        UsageRow(DAY, "gateway", "m2", "issues", 1, 10, tenth),
        UsageRow(DAY, "local-cpu", "m", "issues", 1, 10, Decimal(0)),
        UsageRow(DAY + timedelta(days=1), "gateway", "m", "issues", 1, 10, tenth),
    )
    assert (report.texts, report.tokens, report.cost) == (6, 60, Decimal("0.300000003"))


@pytest.mark.parametrize(("first", "last", "days"), [(0, 0, 1), (-1, 0, 2), (0, 1, 2), (1, 1, 1), (2, 9, 0)])
def test_both_days_are_included_and_no_other(
    database: Engine, tenants: tuple[Tenant, Tenant], first: int, last: int, days: int
) -> None:
    for offset in (-1, 0, 1):
        spend(database, tenants[0], day=DAY + timedelta(days=offset))
    report = read_report(database, tenants[0], DAY + timedelta(days=first), DAY + timedelta(days=last))
    assert len(report.rows) == days


@pytest.mark.parametrize("span", [-1, MAX_DAYS])
def test_days_out_of_order_or_too_many_are_refused(
    database: Engine, tenants: tuple[Tenant, Tenant], span: int
) -> None:
    with pytest.raises(InputError, match="days"):
        read_report(database, tenants[0], DAY, DAY + timedelta(days=span))
    longest = read_report(database, tenants[0], DAY, DAY + timedelta(days=MAX_DAYS - 1))
    assert longest == UsageReport("acme", DAY, DAY + timedelta(days=MAX_DAYS - 1), ())


AMOUNTS = st.decimals(min_value=0, max_value=10**8, places=9)


@given(costs=st.lists(AMOUNTS, max_size=12))
def test_sums_are_exact_to_the_last_of_nine_places(costs: list[Decimal]) -> None:
    rows = tuple(UsageRow(DAY, "gateway", "m", str(n), 1, 1, cost) for n, cost in enumerate(costs))
    report = UsageReport("acme", DAY, DAY, rows)
    nano = sum(int(cost.scaleb(9)) for cost in costs)
    assert report.cost == Decimal(nano).scaleb(-9)


def test_the_ledgers_sums_are_exact_where_floating_point_is_not(
    database: Engine, tenants: tuple[Tenant, Tenant]
) -> None:
    costs = [Decimal("0.1"), Decimal("0.2"), Decimal("123456789.123456789"), Decimal("0.000000001")]
    for number, cost in enumerate(costs):
        spend(database, tenants[0], job_id=f"job-{number}", cost=cost)
    (row,) = read_report(database, tenants[0], DAY, DAY).rows
    assert row.cost == sum(costs) == Decimal("123456789.423456790")
