"""Admission: all of a request or none of it, in tokens, before any work, and a truthful wait for the rest.

A request passes when its tenant's own limits and the server's queue have room for it, at once or not at
all; nothing ever waits in here. A refused one gets a *place*: what it needs is taken from the buckets as if
it had been admitted at the end of its wait, so the next one's wait comes after it, and it is let in when it
is back. A place is known again by tenant and size. It is given up ``GRACE`` seconds after its time.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final
from uuid import UUID

from ray_app.errors import Overloaded, RateLimited
from ray_app.serving.accounts import Account, Place, UnderWay
from ray_app.serving.buckets import Durations
from ray_app.serving.options import ServingOptions
from ray_app.serving.port import Load
from ray_app.serving.queue_room import QueueRoom, seconds_until
from ray_app.tenants import Tenant

#: How long after the end of its wait a request may come back to its place, in seconds.
GRACE: Final = 5.0
#: The shortest wait worth telling, in seconds.
_SHORTEST: Final = 0.001


class Ticket:
    """An admitted request."""

    def __init__(self, admission: Admission, account: Account, request: UnderWay) -> None:
        self._admission = admission
        self._account = account
        self._request = request

    def settle(self, tokens: int) -> None:
        """Count the true size, once it is known: what was estimated too much is given back, what was
        estimated too little is owed. 0 says that no work was done.

        Raises:
            ValueError: ``tokens`` is negative, or the request has ended.
        """
        self._admission._settle(self._account, self._request, tokens)


class Admission:
    """Lets requests in, or says when to come back. Thread-safe; never blocks.

    Every limit is shared out evenly over ``options.router_replicas``. Rates are token buckets that hold
    one minute's worth: in any window of ``t`` seconds a tenant is let in with at most its minute's limit
    times ``1 + (t + GRACE) / 60``, and one request's excess. A request larger than a bucket, or than the
    queue, is let in when that is full, or empty, and is paid off afterwards.

    The queue is tokens taken in and not answered: what this router knows of, or what ``load`` reports
    if that is more. ``QueueRoom`` says how tenants share it.
    """

    def __init__(
        self,
        options: ServingOptions,
        load: Callable[[], Load],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routers = options.router_replicas
        self._load = load
        self._clock = clock
        self._lock = Lock()
        #: Least recently used first.
        self._accounts: OrderedDict[UUID, Account] = OrderedDict()
        self._active: set[Account] = set()
        self._under_way: dict[UnderWay, None] = {}
        self._durations = Durations()
        self._max_tokens = options.max_queued_tokens / self._routers
        self._max_requests = max(1, options.max_requests // self._routers)
        self._tokens = self._promised_tokens = self._promised_requests = 0
        #: Places by the time they are given up; one that was claimed or moved stays in here until then.
        self._expiries: list[tuple[float, int, Account, Place]] = []
        self._serial = itertools.count()

    @contextmanager
    def admit(self, tenant: Tenant, tokens: int) -> Iterator[Ticket]:
        """Let one request of ``tokens`` tokens in; it is under way until the block is left.

        A block left by an exception, cancellation included, before its ticket was settled has done no work:
        its tokens go back. It counts as a request all the same.

        Raises:
            RateLimited: a limit of the tenant's own; ``retry_after`` says when it will be let in.
            Overloaded: the queue of all tenants; ``retry_after`` says when it will have room.
            ValueError: ``tokens`` is negative.
        """
        if tokens < 0:
            raise ValueError(f"{tokens} tokens")
        account, request = self._enter(tenant, tokens)
        try:
            yield Ticket(self, account, request)
        except BaseException:
            if not request.settled:
                self._settle(account, request, 0)
            raise
        finally:
            self._leave(account, request)

    @property
    def tenants_remembered(self) -> int:
        """Tenants with anything used up, under way or promised; the others are forgotten."""
        return len(self._accounts)

    def _enter(self, tenant: Tenant, tokens: int) -> tuple[Account, UnderWay]:
        load = self._load()
        with self._lock:
            now = self._clock()
            self._expire_places(now)
            account = self._account(tenant, now)
            place = account.claim(tokens, now)
            self._check(account, tokens, place, load, now)
            if place:
                self._count_promise(place, -1)
            request = account.enter(tokens, place, now)
            self._tokens += tokens
            self._under_way[request] = None
            self._active.add(account)
            return account, request

    def _check(self, account: Account, tokens: int, place: Place | None, load: Load, now: float) -> None:
        rate = 0.0 if place else account.rate_wait(tokens, now)
        slot = account.slot_wait(place, now)
        room = self._room_wait(account, tokens, place, load, now)
        wait = max(rate, slot, room)
        if wait <= 0:
            return
        wait = max(wait, _SHORTEST)
        self._keep_place(account, tokens, place, wait, now, in_queue=max(slot, room) >= rate)
        hint = f"Send it again in {wait:.3f} s."
        if rate > 0:
            message = "The tenant's requests or tokens of this minute are used up."
        elif slot > 0:
            message = f"The tenant has {len(account.under_way)} requests under way, as many as it may have."
        else:
            raise Overloaded("The server has as much work as it can do in time.", retry_after=wait, hint=hint)
        raise RateLimited(message, retry_after=wait, hint=hint)

    def _room_wait(self, account: Account, tokens: int, place: Place | None, load: Load, now: float) -> float:
        """Seconds until the queue has room; 0 when it has."""
        tenants = len(self._active) + (account not in self._active)
        return max(
            self._token_wait(account, tokens, place, load, tenants, now),
            self._request_wait(account, place, tenants, now),
        )

    def _token_wait(
        self, account: Account, tokens: int, place: Place | None, load: Load, tenants: int, now: float
    ) -> float:
        queued = max(self._tokens, load.queued_tokens / self._routers)
        before = account.queue_before(place)
        promised = sum(each.tokens for each in before)
        others = self._promised_tokens - account.promised_tokens
        room = QueueRoom(self._max_tokens, queued, account.held_tokens, promised, others, tenants)
        lacking = room.lacking(tokens, has_place=place is not None)
        if lacking <= 0:
            return 0.0
        speed = load.tokens_per_second / self._routers
        if not speed:
            return self._durations.expected
        ahead = room.ahead(tokens)
        arrivals = [(each.due - now, each.tokens) for each in before]
        return seconds_until(ahead - lacking, ahead - promised, speed, arrivals)

    def _request_wait(self, account: Account, place: Place | None, tenants: int, now: float) -> float:
        taken, held = len(self._under_way), len(account.under_way)
        before = account.queue_before(place)
        others = self._promised_requests - len(account.queue_before(None))
        room = QueueRoom(self._max_requests, taken, held, len(before), others, tenants)
        lacking = room.lacking(1, has_place=place is not None)
        if lacking <= 0:
            return 0.0
        ahead = round(room.ahead(1))
        dues = [each.due for each in before]
        if ahead > taken + len(before):
            strangers = (other for other in self._active if other is not account)
            dues += [each.due for other in strangers for each in other.queue_before(None)]
        started = [request.started for request in self._under_way]
        slots = max(1, ahead + 1 - math.ceil(lacking))
        return self._durations.forecast(started, slots, dues, now)

    def _keep_place(
        self, account: Account, tokens: int, place: Place | None, wait: float, now: float, *, in_queue: bool
    ) -> None:
        if place:
            # Back in time, and the queue has drained slower than was foreseen: it keeps what it has.
            self._count_promise(place, -1)
            place.due, place.in_queue = now + wait, in_queue
        else:
            place = account.keep_place(tokens, wait, now, in_queue=in_queue)
        if place:
            self._count_promise(place, 1)
            self._active.add(account)
            heapq.heappush(self._expiries, (place.due + GRACE, next(self._serial), account, place))

    def _expire_places(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            expiry, _, account, place = heapq.heappop(self._expiries)
            if place in account.places and place.due + GRACE <= expiry:
                account.give_up(place, now)
                self._count_promise(place, -1)
                self._note(account)

    def _count_promise(self, place: Place, sign: int) -> None:
        if place.in_queue:
            self._promised_requests += sign
            self._promised_tokens += sign * place.tokens

    def _settle(self, account: Account, request: UnderWay, tokens: int) -> None:
        if tokens < 0:
            raise ValueError(f"{tokens} tokens")
        with self._lock:
            if request not in account.under_way:
                raise ValueError("The request has ended; its size is settled.")
            self._tokens += tokens - request.tokens
            account.settle(request, tokens, self._clock())

    def _leave(self, account: Account, request: UnderWay) -> None:
        with self._lock:
            now = self._clock()
            account.leave(request, now)
            del self._under_way[request]
            self._tokens -= request.tokens
            self._durations.add(now - request.started)
            self._note(account)

    def _note(self, account: Account) -> None:
        if not account.is_active():
            self._active.discard(account)

    def _account(self, tenant: Tenant, now: float) -> Account:
        """The tenant's account; idle ones are forgotten on the way, faster than new ones are opened."""
        for _ in range(min(2, len(self._accounts))):
            key, oldest = next(iter(self._accounts.items()))
            if oldest.is_idle(now):
                del self._accounts[key]
            else:
                self._accounts.move_to_end(key)
        account = self._accounts.get(tenant.incarnation)
        if account is None:
            durations = Durations(at_first=self._durations.expected)
            account = Account.open(tenant.limits, self._routers, durations, now)
            self._accounts[tenant.incarnation] = account
        self._accounts.move_to_end(tenant.incarnation)
        account.follow(tenant.limits, now)
        return account
