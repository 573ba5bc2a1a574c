"""How often somebody may try to log in."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ray_app.serving.buckets import TokenBucket

#: Tries a minute from one address, and from all together; as many may come at once.
PER_ADDRESS: Final = 10
IN_ALL: Final = 120
#: Addresses remembered; the one that has been quiet for longest makes room.
_ADDRESSES: Final = 10_000


class LoginAttempts:
    """Counts tries, right ones too: what a guesser learns from a refusal must not depend on the guess.

    Used on one event loop; each router counts its own. ``clock`` counts seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = TokenBucket(IN_ALL, clock())
        self._by_address: OrderedDict[str, TokenBucket] = OrderedDict()

    def enter(self, address: str) -> float:
        """0 when the try may go on; else the seconds after which the next one may."""
        now = self._clock()
        own = self._by_address.setdefault(address, TokenBucket(PER_ADDRESS, now))
        self._by_address.move_to_end(address)
        if len(self._by_address) > _ADDRESSES:
            self._by_address.popitem(last=False)
        wait = max(own.wait(1, now), self._all.wait(1, now))
        if wait == 0:
            own.take(1, now)
            self._all.take(1, now)
        return wait
