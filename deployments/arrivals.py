"""How many requests one proxy lets in at once, and when one that is turned away should come back.

Admission counts tokens, in the router. A crowd that the router cannot even ask for its keys in time
would wait in front of it instead, for minutes; so what is under way is bounded here, where a refusal
costs least.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

#: Requests under way in one proxy. Two cores answer some sixty single texts a second, so the last of
#: these waits about two seconds; a larger machine keeps its model busy with far fewer.
MAX_UNDER_WAY: Final = 128
#: Weight of the latest request in the average of how long one takes.
_WEIGHT: Final = 0.05
#: Seconds a request is taken to last before the first has ended.
_FIRST_GUESS: Final = 1.0
#: Clients give up on longer waits instead of obeying them.
LONGEST_WAIT: Final = 120.0


class Arrivals:
    """Counts requests by caller; used on one event loop.

    A caller is whoever sends the same credentials, known to be valid or not. When the room is full a
    caller with less than an equal share of it is still let in, so that one cannot keep the others out.
    ``clock`` counts seconds and never goes back.
    """

    def __init__(self, limit: int = MAX_UNDER_WAY, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._under_way: Counter[bytes] = Counter()
        self._duration = _FIRST_GUESS
        self._promised = clock()

    @property
    def under_way(self) -> int:
        return self._under_way.total()

    def enter(self, caller: bytes) -> float | None:
        """None when the request is let in, and has to ``leave``; else the seconds after which to come again.

        By Little's law a full room of ``limit`` requests that take ``duration`` seconds each has
        ``limit / duration`` places a second to give. Each refusal is given the next one, so that those
        who obey come back one by one.
        """
        if not self._full_for(caller):
            self._under_way[caller] += 1
            return None
        now = self._clock()
        self._promised = max(self._promised, now) + self._duration / self._limit
        return min(self._promised - now, LONGEST_WAIT)

    def leave(self, caller: bytes, seconds: float) -> None:
        """The request has ended, after ``seconds``."""
        self._under_way[caller] -= 1
        if not self._under_way[caller]:
            del self._under_way[caller]
        self._duration += _WEIGHT * (seconds - self._duration)

    def _full_for(self, caller: bytes) -> bool:
        total = self.under_way
        if total < self._limit:
            return False
        callers = len(self._under_way | Counter({caller: 1}))
        return total >= 2 * self._limit or self._under_way[caller] >= self._limit // callers
