"""This process's metrics, sent to Ray, whose agent on the node shows them to Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from ray.util import metrics

from ray_app.metrics.declared import DECLARED
from ray_app.metrics.exporter import Exporter
from ray_app.metrics.instruments import Counter, Gauge, Histogram, Instrument, Labels

#: Observations after which other threads get a turn: a busy server's flush takes 10 ms, which would
#: otherwise go on for as long as the interpreter's switch interval while requests wait.
_AT_ONCE: Final = 100


class RaySink:
    """A ``Sink`` over ``ray.util.metrics``. A metric is made when there is something to say of it."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def add(self, counter: Counter, labels: Labels, amount: float) -> None:
        # ``inc`` refuses 0, with which a series has to begin for Prometheus to see it grow.
        self._of(counter)._record(amount, _tags(counter, labels))

    def set(self, gauge: Gauge, labels: Labels, value: float) -> None:
        self._of(gauge).set(value, _tags(gauge, labels))

    def observe(self, histogram: Histogram, labels: Labels, value: float, times: int) -> None:
        metric, tags = self._of(histogram), _tags(histogram, labels)
        for number in range(1, times + 1):  # Ray has no call for several
            metric.observe(value, tags)
            if number % _AT_ONCE == 0:
                time.sleep(0)

    def _of(self, instrument: Instrument) -> Any:
        if instrument.name not in self._made:
            self._made[instrument.name] = _make(instrument)
        return self._made[instrument.name]


def _make(instrument: Instrument) -> Any:
    given = (instrument.name, instrument.help)
    if isinstance(instrument, Histogram):
        return metrics.Histogram(*given, boundaries=list(instrument.bounds), tag_keys=instrument.labels)
    kind = metrics.Counter if isinstance(instrument, Counter) else metrics.Gauge
    return kind(*given, tag_keys=instrument.labels)


def _tags(instrument: Instrument, labels: Labels) -> dict[str, str]:
    return dict(zip(instrument.labels, labels, strict=True))


@cache
def process_exporter() -> Exporter:
    """This process's one exporter to Ray, not started yet. What was counted before it is made goes too."""
    return Exporter(RaySink(), DECLARED)


def export_metrics(sample: Callable[[], None] | None = None) -> Exporter:
    """Send this process's metrics to Ray for as long as it lives; for processes that Ray has started.

    ``sample`` is called before each time. A driver, which leaves Ray before it ends, uses
    ``process_exporter().running`` instead.
    """
    exporter = process_exporter()
    if sample is not None:
        exporter.sample(sample)
    exporter.start()
    return exporter
