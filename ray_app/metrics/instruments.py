"""Counters, gauges and histograms that only add up numbers; something else sends them away.

An update is one dictionary entry under a lock, well below a microsecond: cheap enough for every request.
Whoever exports them reads the totals now and then. Instruments are made once, at import, and live as long
as the process, as in Prometheus's own client library.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import ClassVar, TypeAlias

#: Values of an instrument's labels, in their order.
Labels: TypeAlias = tuple[str, ...]


class Instrument:
    """A metric by its name, without any prefix of who exports it. ``labels`` names its labels."""

    kind: ClassVar[str]

    def __init__(self, name: str, help_: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help_
        self.labels = tuple(labels)
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def _check(self, labels: Labels) -> None:
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(labels)} values.")


class Counter(Instrument):
    """A number that only grows."""

    kind = "counter"

    def __init__(self, name: str, help_: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help_, labels)
        self._totals: dict[Labels, float] = {}

    def add(self, amount: float, *labels: str) -> None:
        """Grow by ``amount``. Raises ValueError when that is negative, or the labels are too many or few."""
        if amount < 0:
            raise ValueError(f"{self.name} cannot shrink.")
        with self._lock:
            before = self._totals.get(labels)
            if before is None:
                self._check(labels)
            self._totals[labels] = (before or 0.0) + amount

    def start(self, *labels: str) -> None:
        """Show 0 from now on: of a series that begins with its first event, Prometheus sees no increase."""
        self.add(0, *labels)

    def totals(self) -> dict[Labels, float]:
        """Since the process began."""
        with self._lock:
            return dict(self._totals)

    def total(self, *labels: str) -> float:
        with self._lock:
            return self._totals.get(labels, 0.0)


class Gauge(Instrument):
    """A number as it is now; forgotten ``lifetime`` seconds after it was last set, when there is one.

    Whoever looks something up regularly may get stuck, and what was true once must not be shown for ever.
    """

    kind = "gauge"

    def __init__(
        self, name: str, help_: str, labels: Sequence[str] = (), *, lifetime: float = math.inf
    ) -> None:
        super().__init__(name, help_, labels)
        self.lifetime = lifetime
        #: With the time at which each was set.
        self._values: dict[Labels, tuple[float, float]] = {}

    def set(self, value: float, *labels: str) -> None:
        with self._lock:
            self._check(labels)
            self._values[labels] = value, time.monotonic()

    def replace(self, values: Mapping[Labels, float]) -> None:
        """Set these, and forget all others."""
        for labels in values:
            self._check(labels)
        now = time.monotonic()
        with self._lock:
            self._values = {labels: (value, now) for labels, value in values.items()}

    def choose(self, state: str, states: Iterable[str]) -> None:
        """1 for ``state`` and 0 for the others of ``states``; for a gauge with one label."""
        self.replace({(each,): float(each == state) for each in states})

    def clear(self) -> None:
        """Show nothing until it is set again."""
        self.replace({})

    def values(self) -> dict[Labels, float]:
        since = time.monotonic() - self.lifetime
        with self._lock:
            return {labels: value for labels, (value, when) in self._values.items() if when >= since}


@dataclass(frozen=True)
class Distribution:
    """What a histogram has seen for some labels: observations by bucket, the last one unbounded."""

    counts: tuple[int, ...]
    #: Of all values, exact.
    total: float

    @property
    def count(self) -> int:
        return sum(self.counts)


class Histogram(Instrument):
    """How values are spread over buckets, whose upper bounds are ``bounds``, ascending and above 0."""

    kind = "histogram"

    def __init__(self, name: str, help_: str, labels: Sequence[str] = (), *, bounds: Sequence[float]) -> None:
        super().__init__(name, help_, labels)
        if not bounds or bounds[0] <= 0 or list(bounds) != sorted(set(bounds)):
            raise ValueError(f"The bounds of {name} must ascend from above 0.")
        self.bounds = tuple(bounds)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, *labels: str) -> None:
        place = bisect_left(self.bounds, value)
        with self._lock:
            counts = self._counts.get(labels)
            if counts is None:
                self._check(labels)
                counts = self._counts[labels] = [0] * (len(self.bounds) + 1)
                self._sums[labels] = 0.0
            counts[place] += 1
            self._sums[labels] += value

    def distributions(self) -> dict[Labels, Distribution]:
        """Since the process began."""
        with self._lock:
            return {
                labels: Distribution(tuple(counts), self._sums[labels])
                for labels, counts in self._counts.items()
            }

    def distribution(self, *labels: str) -> Distribution:
        none = Distribution((0,) * (len(self.bounds) + 1), 0.0)
        return self.distributions().get(labels, none)

    def middle(self, bucket: int) -> float:
        """A value in the middle of a bucket; twice the last bound for the unbounded one."""
        if bucket == len(self.bounds):
            return self.bounds[-1] * 2
        return (self.bounds[bucket] + (self.bounds[bucket - 1] if bucket else 0.0)) / 2
