"""Cost budgets: reserved before, settled after, never overspent; in virtual time."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.db.budgets import Standing
from ray_app.errors import BudgetExhausted, DatabaseUnavailable, RateLimited
from ray_app.serving.cost_budget import REFRESH, CostBudgets, most_tokens
from tests.support.virtual_time import run_virtual

TENANT = uuid4()
#: US dollars per million tokens, so that a token costs a dollar.
DOLLAR = Decimal(1_000_000)


class Ledger:
    """What the budgets read; ``down`` makes it unreachable."""

    def __init__(self, limit: Decimal | None, spent: int = 0) -> None:
        self.standing = Standing(limit, Decimal(spent))
        self.months: list[date] = []
        self.down = False
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)

    async def read(self, incarnation: UUID, month: date) -> Standing:
        assert incarnation == TENANT
        self.months.append(month)
        await asyncio.sleep(0)
        if self.down:
            raise DatabaseUnavailable("The ledger is down.")
        return self.standing

    def budgets(self, price: Decimal | None = DOLLAR) -> CostBudgets:
        return CostBudgets(self.read, price, clock=asyncio.get_running_loop().time, now=lambda: self.now)


async def spend(budgets: CostBudgets, bound: int, charged: int, seconds: float = 0.0) -> None:
    account = await budgets.open(TENANT, bound, patience=1000)
    try:
        account.cover(bound)
        await asyncio.sleep(seconds)
        account.settle(bound, charged)
    finally:
        account.close()


@given(
    st.integers(0, 300),
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 100), st.floats(0, 5)), min_size=100, max_size=100),
)
def test_a_hundred_calls_at_once_never_overspend(limit: int, calls: list[tuple[int, int, float]]) -> None:
    async def main() -> tuple[int, int]:
        budgets = Ledger(Decimal(limit)).budgets()
        spent = refused = 0

        async def one(bound: int, percent: int, seconds: float) -> None:
            nonlocal spent, refused
            charged = bound * percent // 100
            try:
                await spend(budgets, bound, charged, seconds)
            except BudgetExhausted:
                refused += 1
            else:
                spent += charged

        await asyncio.gather(*(one(*call) for call in calls))
        return spent, refused

    spent, refused = run_virtual(main())
    assert spent <= limit
    if refused:
        assert spent + max(bound for bound, _, _ in calls) > limit, "refused only what might not have fitted"


def test_calls_wait_for_what_others_hold_instead_of_being_refused() -> None:
    async def main() -> None:
        budgets = Ledger(Decimal(10)).budgets()
        await asyncio.gather(spend(budgets, 10, 1, seconds=1), spend(budgets, 9, 9))
        with pytest.raises(BudgetExhausted):
            await budgets.open(TENANT, 1, patience=0)

    run_virtual(main())


def test_patience_ends_the_wait_with_an_error_that_passes() -> None:
    async def main() -> None:
        budgets = Ledger(Decimal(10)).budgets()
        await budgets.open(TENANT, 10, patience=0)
        with pytest.raises(RateLimited) as caught:
            await budgets.open(TENANT, 1, patience=5)
        assert caught.value.retryable

    run_virtual(main())


def test_what_the_ledger_knows_counts() -> None:
    async def main() -> None:
        budgets = Ledger(Decimal(10), spent=7).budgets()
        with pytest.raises(BudgetExhausted, match=r"\$10 a month.*\$7\.0.*may cost up to \$4\.0") as caught:
            await budgets.open(TENANT, 4, patience=0)
        assert "monthly_cost" in (caught.value.hint or "")
        await spend(budgets, 3, 3)

    run_virtual(main())


def test_a_retry_that_was_charged_extends_the_reservation_or_is_refused() -> None:
    async def main() -> None:
        budgets = Ledger(Decimal(10)).budgets()
        account = await budgets.open(TENANT, 4, patience=0)
        account.cover(4)
        account.settle(4, 4)  # charged, but the answer was of no use
        account.cover(4)
        account.settle(4, 4)
        with pytest.raises(BudgetExhausted):
            account.cover(4)
        account.close()
        assert (account.spent_tokens, account.cost) == (8, Decimal(8))
        await spend(budgets, 2, 2)

    run_virtual(main())


def test_what_is_charged_beyond_the_bound_is_counted() -> None:
    async def main() -> None:
        budgets = Ledger(Decimal(10)).budgets()
        await spend(budgets, 2, 10)
        with pytest.raises(BudgetExhausted):
            await budgets.open(TENANT, 1, patience=0)

    run_virtual(main())


def test_the_month_ends_in_utc() -> None:
    async def main() -> None:
        ledger = Ledger(Decimal(10))
        budgets = ledger.budgets()
        ledger.now = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
        await spend(budgets, 10, 10)
        with pytest.raises(BudgetExhausted):
            await budgets.open(TENANT, 1, patience=0)
        ledger.now = datetime(2026, 12, 1, tzinfo=UTC)
        await spend(budgets, 10, 10)
        assert ledger.months == [date(2026, 11, 1), date(2026, 12, 1)]

    run_virtual(main())


def test_a_raised_limit_is_seen_within_seconds_and_others_spending_too() -> None:
    async def main() -> None:
        ledger = Ledger(Decimal(10))
        budgets = ledger.budgets()
        await spend(budgets, 10, 10)
        ledger.standing = Standing(Decimal(30), Decimal(15))
        with pytest.raises(BudgetExhausted):
            await budgets.open(TENANT, 1, patience=0)
        await asyncio.sleep(REFRESH)
        with pytest.raises(BudgetExhausted):
            await budgets.open(TENANT, 16, patience=0)
        await spend(budgets, 15, 15)

    run_virtual(main())


def test_an_unwritten_spending_is_not_forgotten_when_the_ledger_is_read_again() -> None:
    async def main() -> None:
        ledger = Ledger(Decimal(10))
        budgets = ledger.budgets()
        await spend(budgets, 10, 10)
        await asyncio.sleep(REFRESH)  # the ledger still says 0
        with pytest.raises(BudgetExhausted):
            await budgets.open(TENANT, 1, patience=0)

    run_virtual(main())


def test_a_ledger_that_is_down_stops_only_tenants_nothing_is_known_of() -> None:
    async def main() -> None:
        ledger = Ledger(Decimal(10))
        budgets = ledger.budgets()
        ledger.down = True
        with pytest.raises(DatabaseUnavailable):
            await budgets.open(TENANT, 1, patience=0)
        ledger.down = False
        await spend(budgets, 4, 4)
        ledger.down = True
        await asyncio.sleep(REFRESH)
        await spend(budgets, 6, 6)
        with pytest.raises(BudgetExhausted):
            await budgets.open(TENANT, 1, patience=0)

    run_virtual(main())


def test_a_budget_without_a_price_buys_nothing() -> None:
    async def main() -> None:
        with pytest.raises(BudgetExhausted, match="ROWBEAM_GATEWAY_PRICE_PER_MILLION"):
            await Ledger(Decimal(10)).budgets(None).open(TENANT, 1, patience=0)
        account = await Ledger(None).budgets(None).open(TENANT, 10**9, patience=0)
        assert account.cost == 0

    run_virtual(main())


@given(st.lists(st.text()))
def test_the_bound_is_at_least_the_bytes(texts: list[str]) -> None:
    assert most_tokens(texts) >= sum(len(text.encode()) for text in texts)
