"""What was counted since a moment: instruments belong to the process, and tests share it."""

from __future__ import annotations

from ray_app.metrics.instruments import Counter, Distribution, Histogram


class Growth:
    """How much instruments have grown since this was made.

    of(COUNTER, "label") is a number, seen(HISTOGRAM, "label") the observations.
    """

    def __init__(self, *instruments: Counter | Histogram) -> None:
        self._counters = {item: item.totals() for item in instruments if isinstance(item, Counter)}
        self._histograms = {item: item.distributions() for item in instruments if isinstance(item, Histogram)}

    def of(self, counter: Counter, *labels: str) -> float:
        return counter.total(*labels) - self._counters[counter].get(labels, 0.0)

    def all(self, counter: Counter) -> dict[tuple[str, ...], float]:
        """The series that have grown."""
        grown = {labels: self.of(counter, *labels) for labels in counter.totals()}
        return {labels: amount for labels, amount in grown.items() if amount}

    def seen(self, histogram: Histogram, *labels: str) -> Distribution:
        now = histogram.distribution(*labels)
        before = self._histograms[histogram].get(labels, Distribution((0,) * len(now.counts), 0.0))
        counts = tuple(after - earlier for after, earlier in zip(now.counts, before.counts, strict=True))
        return Distribution(counts, now.total - before.total)
