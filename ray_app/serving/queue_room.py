"""How tenants share the queue: what has to drain before one more request may join it. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: What a tenant holds may be this many times what is left free.
_SHARE_OF_FREE: Final = 4


@dataclass(frozen=True)
class QueueRoom:
    """The queue as one tenant finds it; all in tokens, or all in requests.

    A tenant that holds a part already may grow only to ``_SHARE_OF_FREE`` times what is free (the dynamic
    threshold of Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998): alone it fills 4/5, two
    greedy ones 4/9 each, and a tenant that comes later still finds room. One that holds nothing is
    refused only when its request does not fit.
    """

    limit: float
    #: Taken in and not answered, of all tenants.
    taken: float
    #: The tenant's own part of ``taken``.
    held: float
    #: Promised to requests of the tenant that were told to come back earlier than this one.
    promised: float
    #: Promised to those of other tenants.
    promised_others: float
    #: Tenants with a part in the queue, this one included.
    tenants: int

    def lacking(self, need: float, *, has_place: bool) -> float:
        """What has to drain before ``need`` fits, after all that is promised; 0 when it fits now.

        Promises hold back who comes later, not who is back in time. Those of other tenants do so only beyond
        an equal share, for else a tenant could keep all others out by being refused often. Never
        more than all that is ahead, so a request larger than the queue is let in when that is empty.
        """
        ahead = self.ahead(need)
        if self._beyond(need, self.taken if has_place else ahead) <= 0:
            return 0.0
        return self._beyond(need, ahead)

    def ahead(self, need: float) -> float:
        """What goes first, of what is taken in and of what is promised."""
        beyond_share = self.held + self.promised + need > self.limit / self.tenants
        return self.taken + self.promised + (self.promised_others if beyond_share else 0)

    def _beyond(self, need: float, ahead: float) -> float:
        free = self.limit - ahead
        fits = min(need, self.limit) - free
        share = (self.held + need) / _SHARE_OF_FREE - free if self.held else fits
        return min(ahead, max(fits, share))


def seconds_until(room: float, queued: float, speed: float, arrivals: Iterable[tuple[float, float]]) -> float:
    """Seconds until no more than ``room`` is left of ``queued`` and of what arrives, all of it there.

    ``speed`` drains a second. ``arrivals``: in how many seconds how much is there, in any order.
    """
    at = 0.0
    for arrival, size in sorted(arrivals):
        due = max(at, arrival)
        queued = max(0.0, queued - speed * (due - at)) + size
        at = due
    return at + max(0.0, queued - room) / speed
