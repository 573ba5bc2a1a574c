"""Requests and tokens a minute of one endpoint, shared by all that use it; callers before jobs."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from ray_app.errors import Overloaded
from ray_app.serving.port import Lane

#: Part of a minute's limit that may be used at once; the rest flows in over the minute, so that no
#: 60 seconds, wherever they begin, see more than the limit.
BURST_SHARE: Final = 0.1
#: Part of the burst that jobs leave for callers.
RESERVE_SHARE: Final = 0.25


class MinuteLimit:
    """A token bucket that holds a tenth of a minute's limit; without a limit it is always full.

    The balance may go below zero: something larger than the whole burst leaves when the bucket is
    full, and is paid off by waiting afterwards.
    """

    def __init__(self, limit: float, clock: Callable[[], float]) -> None:
        self._configured = limit if limit > 0 else math.inf
        self._clock = clock
        self._at = clock()
        self.limit = self._configured
        self._balance = self.burst

    @property
    def burst(self) -> float:
        return self.limit * BURST_SHARE

    def learn(self, limit: float | None, remaining: float | None) -> None:
        """Take what the endpoint says into account; it may lower a configured limit, never raise it."""
        if limit is not None and limit > 0 and math.isfinite(limit):
            before = self.burst
            self.limit = min(self._configured, limit)
            if math.isinf(before):
                self._balance, self._at = self.burst, self._clock()
        if remaining is not None and remaining >= 0:
            self._balance = min(self._refilled(), remaining)

    def wait(self, amount: float, *, reserve: float = 0.0, ahead: float = 0.0) -> float:
        """Seconds until ``amount`` may be taken, after ``ahead``, and still leave ``reserve``, a share of
        the burst."""
        if math.isinf(self.limit):
            return 0.0
        kept = reserve * self.burst
        needed = ahead + min(amount, self.burst - kept) + kept
        missing = needed - self._refilled()
        # A billionth is rounding, and would be waited for in steps that time cannot take.
        return missing / self._rate if missing > 1e-9 * self.burst else 0.0

    def take(self, amount: float) -> None:
        """Take ``amount``, or give back what is negative."""
        if math.isfinite(self.limit):
            self._balance = min(self.burst, self._refilled() - amount)

    @property
    def _rate(self) -> float:
        return self.limit * (1 - BURST_SHARE) / 60

    def _refilled(self) -> float:
        if math.isinf(self.limit):
            return math.inf
        now = self._clock()
        self._balance = min(self.burst, self._balance + (now - self._at) * self._rate)
        self._at = now
        return self._balance


@dataclass(eq=False)
class _Ticket:
    tokens: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class RateBudget:
    """Lets requests leave as the endpoint's limits allow. Belongs to one event loop.

    Within a lane the order is that of arrival; a job's request leaves only while no caller's waits,
    and leaves ``RESERVE_SHARE`` of the burst behind.
    """

    def __init__(
        self,
        requests_per_minute: float = 0,
        tokens_per_minute: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Limits of 0 or less are unknown, until the endpoint's headers tell them."""
        self._requests = MinuteLimit(requests_per_minute, clock)
        self._tokens = MinuteLimit(tokens_per_minute, clock)
        self._queues: dict[Lane, deque[_Ticket]] = {lane: deque() for lane in Lane}

    @property
    def bulk_tokens(self) -> float:
        """Tokens of a job's request that leaves the callers' reserve untouched; infinite without a limit."""
        return self._tokens.burst * (1 - RESERVE_SHARE)

    async def take(self, tokens: int, lane: Lane, patience: float = math.inf) -> None:
        """Return when a request of ``tokens`` may leave; it is counted from then on.

        Raises:
            Overloaded: that would be more than ``patience`` seconds from now.
        """
        queue = self._queues[lane]
        wait = self._wait_for(tokens, lane, queue)
        if wait > patience:
            raise Overloaded("The gateway's limits for this minute are used up.", retry_after=wait)
        ticket = _Ticket(tokens)
        queue.append(ticket)
        try:
            while (wait := self._wait_of(ticket, lane)) > 0:
                ticket.woken.clear()
                try:
                    async with asyncio.timeout(wait if math.isfinite(wait) else None):
                        await ticket.woken.wait()
                except TimeoutError:
                    continue
            self._requests.take(1)
            self._tokens.take(tokens)
        finally:
            queue.remove(ticket)
            self._wake()

    def settle(self, taken: int, used: int, *, requests: int = 1) -> None:
        """A request that took ``taken`` tokens used ``used``; with ``requests`` 0 it did not leave at all."""
        self._tokens.take(used - taken)
        self._requests.take(requests - 1)
        self._wake()

    def learn(self, headers: Mapping[str, str]) -> None:
        """Read ``x-ratelimit-limit-*`` and ``x-ratelimit-remaining-*`` (OpenAI, Azure); names ignore case."""
        for kind, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            bucket.learn(
                _number(headers.get(f"x-ratelimit-limit-{kind}")),
                _number(headers.get(f"x-ratelimit-remaining-{kind}")),
            )

    def _wait_of(self, ticket: _Ticket, lane: Lane) -> float:
        """Seconds until the ticket may leave; infinite while another is before it."""
        if self._queues[lane][0] is not ticket or (lane is Lane.BULK and self._queues[Lane.INTERACTIVE]):
            return math.inf
        return self._wait_for(ticket.tokens, lane, [])

    def _wait_for(self, tokens: int, lane: Lane, ahead: Collection[_Ticket]) -> float:
        reserve = RESERVE_SHARE if lane is Lane.BULK else 0.0
        return max(
            self._requests.wait(1, reserve=reserve, ahead=len(ahead)),
            self._tokens.wait(tokens, reserve=reserve, ahead=sum(ticket.tokens for ticket in ahead)),
        )

    def _wake(self) -> None:
        """Let the first of each lane look again; a head of the queue wakes the next when it leaves."""
        for queue in self._queues.values():
            if queue:
                queue[0].woken.set()


def _number(text: str | None) -> float | None:
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
