"""What limits are measured with: a bucket that refills, and how long requests take. Pure arithmetic."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Final

_MINUTE: Final = 60.0
#: No request is expected to be over sooner, in seconds; a wait of nothing would be none.
_SHORTEST: Final = 0.01


class TokenBucket:
    """A token bucket: fills at ``per_minute`` a minute and holds one minute's worth. Times in seconds.

    The level may be negative: a debt, paid off by the refill. What costs more than the bucket holds is let
    in when the bucket is full and takes it into debt, so that it need not wait for ever and the mean rate
    still holds.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self._capacity = self._level = per_minute
        self._filled_at = now

    @property
    def _rate(self) -> float:
        return self._capacity / _MINUTE

    def change(self, per_minute: float, now: float) -> None:
        """Another limit from now on; what is in the bucket, or owed to it, stays."""
        self._refill(now)
        self._capacity = per_minute
        self._level = min(self._level, per_minute)

    def wait(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` can be taken; 0 when it can be now."""
        if cost == 0:
            return 0.0
        self._refill(now)
        # A float's rounding must not refuse what was waited for to the microsecond.
        lacking = min(cost, self._capacity) - self._level
        return lacking / self._rate if lacking > 1e-6 * self._rate else 0.0

    def take(self, cost: float, now: float) -> None:
        """Take ``cost``, into debt if need be; a negative cost is given back, up to a full bucket."""
        self._refill(now)
        self._level = min(self._capacity, self._level - cost)

    def is_full(self, now: float) -> bool:
        """Whether it stands as a new one would."""
        self._refill(now)
        return self._level >= self._capacity

    def _refill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + max(0.0, now - self._filled_at) * self._rate)
        self._filled_at = max(now, self._filled_at)


class Durations:
    """How long requests take, lately: moving mean and mean deviation, in seconds.

    The gains, 1/8 and 1/4, are those of RFC 6298, section 2, for the same purpose: a wait that most
    answers keep within and that follows a change after a few of them.
    """

    def __init__(self, at_first: float = 1.0) -> None:
        self._at_first = at_first
        self._mean: float | None = None
        self._deviation = 0.0

    def add(self, seconds: float) -> None:
        if self._mean is None:
            self._mean = seconds
            return
        self._deviation += (abs(seconds - self._mean) - self._deviation) / 4
        self._mean += (seconds - self._mean) / 8

    def forecast(self, started: Sequence[float], slots: int, dues: Iterable[float], now: float) -> float:
        """Seconds until a slot of ``slots`` is free for one more request.

        ``started``: when each request under way began, the oldest first. ``dues``: when those will begin
        that have a slot promised. One that has taken longer than usual gets a share of that time again.
        """
        mean = max(_SHORTEST, self._at_first if self._mean is None else self._mean)
        overdue = sum(start + mean <= now for start in started)
        ends = [now + mean * (turn + 1) / len(started) for turn in range(overdue)]
        ends += [start + mean for start in started[overdue:]]
        free = sorted(ends)[max(0, len(ends) - slots) :] + [now] * (slots - len(ends))
        heapq.heapify(free)
        for due in sorted(dues):
            heapq.heapreplace(free, max(free[0], due) + mean)
        # Once, not for each that is ahead: of many durations in a row the deviations cancel out.
        return max(_SHORTEST, free[0] - now + self._deviation)

    @property
    def expected(self) -> float:
        """Seconds that most requests keep within; ``at_first`` before one has ended."""
        return self.forecast((), 1, (0.0,), 0.0)
