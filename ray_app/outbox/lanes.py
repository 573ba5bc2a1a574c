"""Which lanes of the outbox may go on, and which have to wait. Pure.

A dependency that fails for one client's table, such as a budget that is spent or a model's gateway, holds
up that lane alone, for twice as long each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Name = TypeVar("Name")
#: Seconds of the first pause, and of the longest.
FIRST: Final = 1.0
LONGEST: Final = 300.0


@dataclass
class _Pause:
    until: float
    seconds: float


@dataclass
class Pauses(Generic[Name]):
    """The pauses of lanes, by name. Used from one thread."""

    clock: Callable[[], float] = time.monotonic
    _pauses: dict[Name, _Pause] = field(default_factory=dict)

    def open(self, lane: Name) -> bool:
        """Whether the lane may be tried now."""
        pause = self._pauses.get(lane)
        return pause is None or self.clock() >= pause.until

    def fail(self, lane: Name, at_least: float = 0.0) -> float:
        """Pause the lane; returns for how many seconds."""
        last = self._pauses.get(lane)
        seconds = FIRST if last is None else min(last.seconds * 2, LONGEST)
        self._pauses[lane] = _Pause(self.clock() + max(seconds, at_least), seconds)
        return max(seconds, at_least)

    def succeed(self, lane: Name) -> None:
        """The lane's next failure is its first again."""
        self._pauses.pop(lane, None)

    def keep(self, lanes: set[Name]) -> None:
        """Forget all lanes but these: the others have nothing left that could fail."""
        for lane in set(self._pauses) - lanes:
            del self._pauses[lane]
