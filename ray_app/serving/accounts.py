"""What admission knows of one tenant: its buckets, its requests under way, and those told to come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from ray_app.serving.buckets import Durations, TokenBucket
from ray_app.tenants import Limits

#: Refused requests of one tenant that a place is kept for. More are told a wait, but not each its own.
_MOST_PLACES: Final = 256
#: No place is kept longer ahead, in seconds: the official OpenAI client gives up rather than wait longer.
_LONGEST_AHEAD: Final = 120.0
#: How early a place may be claimed, in seconds: ``retry-after-ms`` counts in milliseconds.
_EARLY: Final = 0.001


@dataclass(eq=False)
class Place:
    """A refused request's place: what it needs is taken from the buckets already, until it is back."""

    tokens: int
    #: When the client was told to come back; by the clock.
    due: float
    #: Whether it waits for others to finish, and so holds a slot and a part of the queue.
    in_queue: bool


@dataclass(eq=False)
class UnderWay:
    """One admitted request."""

    tokens: int
    started: float
    settled: bool = False


@dataclass(eq=False)
class Account:
    """One tenant's standing on this router, which grants ``1 / routers`` of every limit."""

    limits: Limits
    routers: int
    requests: TokenBucket
    tokens: TokenBucket
    durations: Durations
    under_way: dict[UnderWay, None] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    held_tokens: int = 0

    @classmethod
    def open(cls, limits: Limits, routers: int, durations: Durations, now: float) -> Account:
        """An account nothing was taken from yet."""
        requests = TokenBucket(limits.requests_per_minute / routers, now)
        tokens = TokenBucket(limits.tokens_per_minute / routers, now)
        return cls(limits, routers, requests, tokens, durations)

    def follow(self, limits: Limits, now: float) -> None:
        """Take over limits that were changed."""
        if limits != self.limits:
            self.limits = limits
            self.requests.change(limits.requests_per_minute / self.routers, now)
            self.tokens.change(limits.tokens_per_minute / self.routers, now)

    @property
    def slots(self) -> int:
        """Requests that may be under way here at once; at least one, however many routers there are."""
        return max(1, self.limits.concurrent_requests // self.routers)

    def queue_before(self, place: Place | None) -> list[Place]:
        """Those that wait for others to finish and were refused before ``place``; None comes after all."""
        seniors = takewhile(lambda other: other is not place, self.places)
        return [other for other in seniors if other.in_queue]

    @property
    def promised_tokens(self) -> int:
        return sum(place.tokens for place in self.places if place.in_queue)

    def is_active(self) -> bool:
        """Whether it has a part in the queue, now or promised."""
        return bool(self.under_way) or any(place.in_queue for place in self.places)

    def is_idle(self, now: float) -> bool:
        """Whether it stands as a new account would, so that forgetting it changes nothing."""
        busy = self.under_way or self.places
        return not busy and self.requests.is_full(now) and self.tokens.is_full(now)

    def claim(self, tokens: int, now: float) -> Place | None:
        """The place kept for a request of that size whose time has come, the earliest first."""
        due = (place for place in self.places if place.tokens == tokens and place.due <= now + _EARLY)
        return min(due, key=lambda place: place.due, default=None)

    def rate_wait(self, tokens: int, now: float) -> float:
        """Seconds until both buckets hold what one more request needs, after all that have a place."""
        return max(self.requests.wait(1, now), self.tokens.wait(tokens, now))

    def slot_wait(self, place: Place | None, now: float) -> float:
        """Seconds until one more request may be under way; 0 when it may now. Others' places go first, but
        one who is back in time need not wait for those who are not."""
        before = self.queue_before(place)
        over = len(self.under_way) + 1 - self.slots
        if (over if place else over + len(before)) <= 0:
            return 0.0
        started = [request.started for request in self.under_way]
        return self.durations.forecast(started, self.slots, [each.due for each in before], now)

    def keep_place(self, tokens: int, wait: float, now: float, *, in_queue: bool) -> Place | None:
        """Remember what a refused request needs, unless too many or too long waits are kept already."""
        if len(self.places) >= _MOST_PLACES or wait > _LONGEST_AHEAD:
            return None
        place = Place(tokens, now + wait, in_queue)
        self.places.append(place)
        self._take(1, tokens, now)
        return place

    def give_up(self, place: Place, now: float) -> None:
        """Its client has not come back: others may have what was kept for it."""
        self.places.remove(place)
        self._take(-1, -place.tokens, now)

    def enter(self, tokens: int, place: Place | None, now: float) -> UnderWay:
        """Let a request in, on the place that was kept for it or on what is free."""
        if place is None:
            self._take(1, tokens, now)
        else:
            self.places.remove(place)
        request = UnderWay(tokens, now)
        self.under_way[request] = None
        self.held_tokens += tokens
        return request

    def settle(self, request: UnderWay, tokens: int, now: float) -> None:
        """Count the request at its true size."""
        request.settled = True
        self.tokens.take(tokens - request.tokens, now)
        self.held_tokens += tokens - request.tokens
        request.tokens = tokens

    def leave(self, request: UnderWay, now: float) -> None:
        """The request has ended, in whatever way."""
        del self.under_way[request]
        self.held_tokens -= request.tokens
        self.durations.add(now - request.started)

    def _take(self, requests: int, tokens: int, now: float) -> None:
        self.requests.take(requests, now)
        self.tokens.take(tokens, now)
