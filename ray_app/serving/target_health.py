"""One target as the pool has seen it lately: how busy, how fast, and whether to leave it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ray_app.serving.speed import Speed

#: Seconds a target is left out after its first failure; doubled for each further one in a row.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


class TargetHealth:
    """Book-keeping of the calls to one target. ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._speed = Speed(clock)
        self._failures = 0
        self._out_until = 0.0
        self._probing = False
        #: Tokens sent and not answered yet.
        self.tokens = 0
        #: When the last answer came.
        self.answered_at = float("-inf")

    @property
    def tokens_per_second(self) -> float:
        """While it has anything to do; 0 before the first answer."""
        return self._speed.tokens_per_second

    @property
    def reopens_in(self) -> float:
        """Seconds until it is worth a try; 0 when it is in use."""
        return max(0.0, self._out_until - self._clock())

    @property
    def open(self) -> bool:
        """Whether it may be called. After a pause one call tries it; others wait for how that ends."""
        return not self.reopens_in and not (self._failures and self._probing)

    def begin(self, tokens: int) -> None:
        self._speed.begin()
        self.tokens += tokens
        self._probing = self._failures > 0

    def end(self, tokens: int, *, answered: bool) -> None:
        """A call is over, for whatever reason. Call ``succeed``, ``fail`` or ``pause`` first, if it told."""
        self._speed.end(tokens if answered else 0)
        self.tokens -= tokens
        self._probing = False

    def succeed(self) -> None:
        self._failures = 0
        self._out_until = 0.0
        self.answered_at = self._clock()

    def fail(self, retry_after: float | None = None) -> None:
        """Leave it out for as long as it asks, or longer each time."""
        self._failures += 1
        pause = min(_FIRST_PAUSE * 2 ** (self._failures - 1), _LONGEST_PAUSE)
        self.pause(max(pause, retry_after or 0.0))

    def pause(self, seconds: float) -> None:
        """Leave it out although nothing is wrong with it: its queue is full."""
        self._out_until = max(self._out_until, self._clock() + seconds)
