"""One target as the pool has seen it lately: how busy, how fast, and whether to leave it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ray_app.errors import Overloaded, ProviderUnavailable
from ray_app.serving.speed import Speed

#: Seconds a target is left out after its first failure; doubled for each one that follows.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
#: Seconds after which the speed of an idle target is measured anew, by one call: it may have been slow
#: because it was cold, or shared its cores.
REMEMBERED: Final = 60.0


class TargetHealth:
    """Book-keeping of the calls to one target.

    ``clock`` counts seconds; ``told`` is the target's speed in tokens a second as it was measured some
    other time, 0 when nobody knows.
    """

    def __init__(self, clock: Callable[[], float], told: float = 0.0) -> None:
        self._clock = clock
        self._told = told
        self._speed = Speed(clock, told)
        #: Failures in a row; those that come while it is left out anyway count as one.
        self._failures = 0
        self._out_until = float("-inf")
        self._tried = False
        #: Tokens sent and not answered yet.
        self.tokens = 0
        #: When the last answer came.
        self.answered_at = float("-inf")

    @property
    def tokens_per_second(self) -> float:
        """While it has anything to do; what it was told before the first answer, else 0."""
        return self._speed.tokens_per_second

    @property
    def expected_speed(self) -> float:
        """Tokens a second to go by: measured lately, or what it was told; 0 when neither is known."""
        return self._told if self.forgotten else self.tokens_per_second

    @property
    def forgotten(self) -> bool:
        """Whether its speed was measured too long ago to go by."""
        return not self.tokens and self._clock() - self.answered_at > REMEMBERED

    @property
    def reopens_in(self) -> float:
        """Seconds until it is worth a try; 0 when it is in use."""
        return max(0.0, self._out_until - self._clock())

    @property
    def open(self) -> bool:
        """Whether it may be called. After a failure one call tries it, and others see how that ends."""
        return not self.reopens_in and not self._tried

    @contextmanager
    def calling(self, tokens: int) -> Iterator[None]:
        """Around one call of so many tokens: learns from how it ends."""
        trying = self._failures > 0
        self._tried = self._tried or trying
        if self.forgotten:
            self._speed = Speed(self._clock, self._told)
        speed = self._speed
        speed.begin()
        self.tokens += tokens
        answered = 0
        try:
            yield
        except ProviderUnavailable as error:
            self._fail(error.retry_after or 0.0)
            raise
        except Overloaded as error:
            # Nothing is wrong with it: when its queue has room it is as good as before.
            self._leave_out(error.retry_after)
            raise
        else:
            answered = tokens
            self._failures = 0
            self.answered_at = self._clock()
        finally:
            speed.end(answered)
            self.tokens -= tokens
            if trying:
                self._tried = False

    def _fail(self, retry_after: float) -> None:
        if not self.reopens_in:
            self._failures += 1
        self._leave_out(max(retry_after, min(FIRST_PAUSE * 2 ** (self._failures - 1), LONGEST_PAUSE)))

    def _leave_out(self, seconds: float) -> None:
        self._out_until = max(self._out_until, self._clock() + seconds)
