"""How fast a provider is: a moving average over the time in which it had something to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Seconds of work after which what was measured counts half.
HALF_LIFE: Final = 30.0
#: Seconds of work that a speed told beforehand counts for: a few calls, which may find a cold model.
TOLD_SECONDS: Final = 10.0


class Speed:
    """Tokens a second, of calls that may overlap.

    ``told`` is what it was measured to be some other time; 0 when nobody knows.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, told: float = 0.0) -> None:
        self._clock = clock
        self._busy_since = 0.0
        self._calls = 0
        self._seconds = TOLD_SECONDS if told > 0 else 0.0
        self._tokens = told * self._seconds

    @property
    def tokens_per_second(self) -> float:
        """What it was told before the first answer, else 0."""
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    def begin(self) -> None:
        """A call begins."""
        if self._calls == 0:
            self._busy_since = self._clock()
        self._calls += 1

    def end(self, tokens: int) -> None:
        """A call ends, with so many tokens answered: 0 when it failed, which says nothing about speed."""
        self._calls -= 1
        if tokens == 0:
            return
        now = self._clock()
        seconds, self._busy_since = now - self._busy_since, now
        kept = 0.5 ** (seconds / HALF_LIFE)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + seconds
