"""What tenants may spend in a calendar month, reserved before a request and settled after it.

A budget that is only looked at is overspent by calls that look at the same time. Here each request
first reserves the most it can cost, so spent + reserved never exceeds the limit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from ray_app.db.budgets import Standing
from ray_app.errors import BudgetExhausted, DatabaseUnavailable, RateLimited
from ray_app.providers.pricing import cost_of

logger: Final = logging.getLogger(__name__)

#: Seconds for which a tenant's limit is believed before the ledger is read again.
REFRESH: Final = 10.0
#: Tokens an endpoint may add to a text: its marks of begin and end.
MARKS: Final = 2

ReadStanding = Callable[[UUID, date], Awaitable[Standing]]


def most_tokens(texts: Sequence[str]) -> int:
    """More tokens than an endpoint can count: byte-level BPE never makes more tokens than bytes."""
    return sum(len(text.encode("utf-8", "surrogatepass")) + MARKS for text in texts)


@dataclass
class _Purse:
    """One tenant's month, in US dollars."""

    month: date
    limit: Decimal | None = None
    spent: Decimal = Decimal(0)
    #: Held by calls under way: what they may still cost, and what they have cost so far.
    reserved: Decimal = Decimal(0)
    read_at: float | None = None
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Set, and replaced, whenever a call ends.
    freed: asyncio.Event = field(default_factory=asyncio.Event)

    def free(self) -> None:
        self.freed.set()
        self.freed = asyncio.Event()


class Account:
    """What one call may spend: made by ``CostBudgets.open``, ended by ``close``.

    ``spent_tokens`` counts every token charged, also by requests that failed.
    """

    def __init__(self, purse: _Purse, price: Decimal | None, tokens: int) -> None:
        self._purse = purse
        self._price = price
        self._held = tokens
        self._under_way = 0
        self.spent_tokens = 0

    @property
    def cost(self) -> Decimal:
        return cost_of(self.spent_tokens, self._price)

    def cover(self, tokens: int) -> None:
        """Hold enough for one more request of at most ``tokens``, besides those under way.

        Raises:
            BudgetExhausted: the limit does not allow more than was reserved at first.
        """
        needed = self.spent_tokens + self._under_way + tokens
        if needed > self._held:
            more = cost_of(needed - self._held, self._price)
            _check(self._purse, self._purse.spent + self._purse.reserved, more)
            self._purse.reserved += more
            self._held = needed
        self._under_way += tokens

    def settle(self, covered: int, charged: int) -> None:
        """A request that was covered with ``covered`` tokens has ended, and was charged ``charged``."""
        self._under_way -= covered
        self.spent_tokens += charged

    def close(self) -> None:
        """Return what was not spent. To be called once."""
        self._purse.reserved -= cost_of(self._held, self._price)
        self._purse.spent += self.cost
        self._purse.free()


class CostBudgets:
    """The budgets of all tenants. Belongs to one event loop.

    ``read`` gives a tenant's limit and what the ledger knows it has spent. That is exact as long as
    all spending goes through this object; what other processes spend is seen at the next reading.
    """

    def __init__(
        self,
        read: ReadStanding,
        price: Decimal | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``price`` is in US dollars per million tokens, None when unknown; ``now`` is in UTC."""
        self._read = read
        self._price = price
        self._clock = clock
        self._now = now
        self._purses: dict[UUID, _Purse] = {}

    async def open(self, incarnation: UUID, tokens: int, patience: float) -> Account:
        """Reserve ``tokens`` for a call; waits while calls under way hold what is left.

        Raises:
            BudgetExhausted: the rest of the month's budget does not cover the call.
            RateLimited: calls under way held the rest for ``patience`` seconds.
            UnknownTenant: there is no such tenant.
            DatabaseUnavailable: nothing is known of the tenant yet and the ledger cannot be reached.
        """
        deadline = self._clock() + patience
        cost = cost_of(tokens, self._price)
        while True:
            purse = await self._purse(incarnation)
            if self._price is None and purse.limit is not None:
                raise BudgetExhausted(
                    "A cost budget is set and the price of the gateway's model is unknown.",
                    hint="An operator sets ROWBEAM_GATEWAY_PRICE_PER_MILLION, or takes the budget off.",
                )
            _check(purse, purse.spent, cost)
            if purse.limit is None or purse.spent + purse.reserved + cost <= purse.limit:
                purse.reserved += cost
                return Account(purse, self._price, tokens)
            await self._wait(purse, deadline)

    async def _wait(self, purse: _Purse, deadline: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                await purse.freed.wait()
        except TimeoutError:
            raise RateLimited(
                "The rest of the tenant's cost budget is held by requests under way.", retry_after=1.0
            ) from None

    async def _purse(self, incarnation: UUID) -> _Purse:
        """The tenant's purse, of this month and read lately."""
        month = self._now().date().replace(day=1)
        purse = self._purses.setdefault(incarnation, _Purse(month))
        if self._stale(purse, month):
            async with purse.reading:
                if self._stale(purse, month):
                    await self._refresh(purse, incarnation, month)
        return purse

    def _stale(self, purse: _Purse, month: date) -> bool:
        return purse.read_at is None or purse.month != month or self._clock() - purse.read_at >= REFRESH

    async def _refresh(self, purse: _Purse, incarnation: UUID, month: date) -> None:
        if purse.month != month:
            purse.month, purse.spent = month, Decimal(0)
        try:
            standing = await self._read(incarnation, month)
        except DatabaseUnavailable:
            if purse.read_at is None:
                raise
            logger.warning("Budgets cannot be read again: the ledger is down. The last ones stay in force.")
        else:
            purse.limit = standing.limit
            # Both miss something: the ledger what is not written yet, memory what others have spent.
            purse.spent = max(purse.spent, standing.spent)
        purse.read_at = self._clock()


def _check(purse: _Purse, taken: Decimal, cost: Decimal) -> None:
    if purse.limit is not None and taken + cost > purse.limit:
        raise BudgetExhausted(
            f"The tenant's gateway budget of ${purse.limit.normalize():f} a month does not cover this"
            f" request: ${purse.spent:.6f} is spent and it may cost up to ${cost:.6f}.",
            hint="Raise the tenant's monthly_cost, send less at once, or wait for the next month (UTC).",
        )
