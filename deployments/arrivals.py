"""How many requests one proxy lets in at once, and when one that is turned away should come back.

Admission counts tokens, in the router. A crowd that the router cannot even ask for its keys in time
would wait in front of it instead, for minutes; so what is under way is bounded here, where a refusal
costs least.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

#: Requests under way in one proxy. Two cores answer some hundred single texts a second, so the last of
#: these waits one or two seconds; a larger machine keeps its model busy with far fewer.
MAX_UNDER_WAY: Final = 128
#: Weight of the latest request in the average of how long one takes.
_WEIGHT: Final = 0.05
#: Seconds a request is taken to last before the first has ended.
_FIRST_GUESS: Final = 1.0
#: Clients give up on longer waits instead of obeying them.
LONGEST_WAIT: Final = 120.0
#: Seconds for which a place is kept for the connection it was promised to, then for any of the same
#: caller's, who may have come through another connection; then it is nobody's.
OWN: Final = 1.0
KEPT: Final = 3.0


@dataclass(frozen=True)
class Guest:
    """Who sends a request: the credentials, known to be valid or not, and the connection's other end."""

    caller: bytes
    address: str = ""


class Arrivals:
    """Counts requests and keeps promises; used on one event loop.

    When the room is full a caller with less than an equal share of it is still let in, so that one
    cannot keep the others out. ``clock`` counts seconds and never goes back.
    """

    def __init__(self, limit: int = MAX_UNDER_WAY, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._under_way: Counter[bytes] = Counter()
        self._duration = _FIRST_GUESS
        #: When each of those turned away is to come back, the first to come first.
        self._promises: OrderedDict[Guest, float] = OrderedDict()
        self._last_promise = clock()

    @property
    def under_way(self) -> int:
        return self._under_way.total()

    def enter(self, guest: Guest) -> float | None:
        """None when the request is let in, and has to ``leave``; else the seconds after which to come again.

        By Little's law a full room of ``limit`` requests that take ``duration`` seconds each has
        ``limit / duration`` places a second to give. Each refusal is given the next one, and the place
        is kept: whoever obeys is let in.
        """
        now = self._clock()
        self._forget(now)
        if self._claim(guest, now) or self._has_room(guest.caller, now):
            self._under_way[guest.caller] += 1
            return None
        self._last_promise = max(self._last_promise, now) + self._duration / self._limit
        if self._last_promise - now > LONGEST_WAIT:
            self._last_promise = now + LONGEST_WAIT  # no place is kept that far ahead
            return LONGEST_WAIT
        self._promises[guest] = self._last_promise
        self._promises.move_to_end(guest)
        return self._last_promise - now

    def leave(self, guest: Guest, seconds: float) -> None:
        """The request has ended, after ``seconds``."""
        self._under_way[guest.caller] -= 1
        if not self._under_way[guest.caller]:
            del self._under_way[guest.caller]
        self._duration += _WEIGHT * (seconds - self._duration)

    def _forget(self, now: float) -> None:
        while self._promises and next(iter(self._promises.values())) + KEPT < now:
            self._promises.popitem(last=False)

    def _claim(self, guest: Guest, now: float) -> bool:
        """Whether a place was kept for this request, or is overdue for another of its caller's."""
        if self.under_way >= 2 * self._limit:
            return False
        due = self._promises.get(guest)
        kept = guest if due is not None and due <= now else self._overdue(guest.caller, now)
        if kept is None:
            return False
        del self._promises[kept]
        return True

    def _overdue(self, caller: bytes, now: float) -> Guest | None:
        return next((guest for guest in self._due(now - OWN) if guest.caller == caller), None)

    def _due(self, now: float) -> list[Guest]:
        return [guest for guest, _ in takewhile(lambda item: item[1] <= now, self._promises.items())]

    def _has_room(self, caller: bytes, now: float) -> bool:
        total = self.under_way
        # Of a crowd that gave up nobody claims a place: an empty room must not turn newcomers away.
        kept = min(len(self._due(now)), self._limit * 3 // 4)
        if total + kept < self._limit:
            return True
        callers = len(self._under_way) + (caller not in self._under_way)
        share = self._limit // callers if callers > 1 else 0
        return total < 2 * self._limit and self._under_way[caller] < share
