"""Tenants, and how far their indexes are in step with their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from ray_app.console.formats import NOTHING, age, count, moment, percent
from ray_app.db.operators import Spent
from ray_app.reports import CoverageRow
from ray_app.tenants import Tenant
from ray_app.wording import money

#: Tenants on one page.
PAGE: Final = 50


@dataclass(frozen=True)
class Counted:
    """A tenant's coverage as it was counted at ``at``; ``failure`` says why it could not be."""

    rows: tuple[CoverageRow, ...]
    at: datetime
    #: That the counting took.
    seconds: float = 0.0
    failure: str | None = None


@dataclass(frozen=True)
class CoverageLine:
    """One index, or the sum of several. ``share`` is of 1, None where there is nothing to embed."""

    table: str
    vector_type: str
    rows: str
    embedded: str
    #: Embedded and still as the row is.
    unchanged: str
    stale: str
    no_text: str
    dead: str
    points: str
    share: float | None
    percent: str
    model: str


@dataclass(frozen=True)
class TenantLine:
    """One tenant in the list."""

    name: str
    client_id: int
    placement: str
    total: CoverageLine
    #: When its coverage was counted.
    counted: str
    tokens: str
    cost: str
    budget: str


@dataclass(frozen=True)
class TenantList:
    lines: tuple[TenantLine, ...]
    #: What was looked for in names.
    wanted: str
    #: Numbers of the page before and after this one.
    previous: int | None
    next: int | None
    found: int
    #: Whether a tenant of this page was not counted yet.
    incomplete: bool


@dataclass(frozen=True)
class TenantView:
    """One tenant: facts, and a line for each index."""

    name: str
    facts: tuple[tuple[str, str], ...]
    lines: tuple[CoverageLine, ...]
    total: CoverageLine
    counted: str
    failure: str | None


def coverage_share(rows: int, no_text: int, embedded: int, stale: int) -> float | None:
    """Records in step of those that could be: 0 to 1, None when there are none."""
    possible = rows - no_text
    return min(1.0, max(0, embedded - stale) / possible) if possible > 0 else None


def coverage_line(rows: Sequence[CoverageRow], table: str = "", vector_type: str = "") -> CoverageLine:
    """The sum of ``rows``."""
    sums = {
        name: sum(getattr(row, name) for row in rows)
        for name in ("rows", "embedded", "stale", "no_text", "dead", "points")
    }
    share = coverage_share(sums["rows"], sums["no_text"], sums["embedded"], sums["stale"])
    models = {row.model.rpartition("/")[2] for row in rows if row.model}
    return CoverageLine(
        table=table,
        vector_type=vector_type,
        **{name: count(number) for name, number in sums.items()},
        unchanged=count(max(0, sums["embedded"] - sums["stale"])),
        share=share,
        percent=percent(share),
        model=", ".join(sorted(models)) or "no index yet",
    )


_UNKNOWN: Final = CoverageLine(
    table="",
    vector_type="",
    rows=NOTHING,
    embedded=NOTHING,
    unchanged=NOTHING,
    stale=NOTHING,
    no_text=NOTHING,
    dead=NOTHING,
    points=NOTHING,
    share=None,
    percent=NOTHING,
    model=NOTHING,
)


def tenant_list(
    tenants: Sequence[Tenant],
    known: Mapping[UUID, Counted],
    spent: Mapping[UUID, Spent],
    *,
    wanted: str,
    page: int,
    now: datetime,
) -> TenantList:
    """The ``page``, from 1 on, of all ``tenants``; ``known`` and ``spent`` by incarnation."""
    shown = page_of(tenants, page)
    return TenantList(
        tuple(
            _line(tenant, known.get(tenant.incarnation), spent.get(tenant.incarnation, Spent()), now)
            for tenant in shown
        ),
        wanted,
        page - 1 if page > 1 else None,
        page + 1 if page * PAGE < len(tenants) else None,
        len(tenants),
        any(tenant.incarnation not in known for tenant in shown),
    )


def page_of(tenants: Sequence[Tenant], page: int) -> Sequence[Tenant]:
    return tenants[(page - 1) * PAGE : page * PAGE]


def matching(tenants: Sequence[Tenant], wanted: str) -> list[Tenant]:
    """Those with ``wanted`` in their name; all for nothing."""
    return [tenant for tenant in tenants if wanted.strip().lower() in tenant.name]


def _line(tenant: Tenant, counted: Counted | None, spent: Spent, now: datetime) -> TenantLine:
    return TenantLine(
        name=tenant.name,
        client_id=tenant.client_id,
        placement=tenant.placement,
        total=coverage_line(counted.rows) if counted and not counted.failure else _UNKNOWN,
        counted=_counted(counted, now),
        tokens=count(spent.tokens),
        cost=money(spent.cost),
        budget=_budget(tenant.limits.monthly_cost),
    )


def tenant_view(tenant: Tenant, counted: Counted | None, spent: Spent, now: datetime) -> TenantView:
    rows = counted.rows if counted else ()
    limits = tenant.limits
    return TenantView(
        name=tenant.name,
        facts=(
            ("Client id", str(tenant.client_id)),
            ("Placement", tenant.placement),
            ("Since", moment(tenant.created_at)),
            ("This month", f"{count(spent.tokens)} tokens, {money(spent.cost)}"),
            ("Budget a month", _budget(limits.monthly_cost)),
            (
                "Limits",
                (
                    f"{count(limits.requests_per_minute)} requests and {count(limits.tokens_per_minute)} "
                    f"tokens a minute, {count(limits.concurrent_requests)} requests at once"
                ),
            ),
        ),
        lines=tuple(coverage_line([row], row.table, row.vector_type) for row in rows),
        total=coverage_line(rows) if rows else _UNKNOWN,
        counted=_counted(counted, now),
        failure=counted.failure if counted else None,
    )


def _counted(counted: Counted | None, now: datetime) -> str:
    if counted is None:
        return "being counted"
    if counted.failure:
        return "could not be counted"
    return f"counted {age(counted.at.astimezone(UTC), now)}"


def _budget(limit: Decimal | None) -> str:
    return "no limit" if limit is None else money(limit)
