"""Sending instruments' numbers on, now and then, as changes since the last time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Final, Protocol

from ray_app.metrics.instruments import Counter, Gauge, Histogram, Instrument, Labels

#: Seconds between two flushes: what a process that is killed at once has not sent is at most this old.
INTERVAL: Final = 2.0


class Sink(Protocol):
    """Where the numbers go."""

    def add(self, counter: Counter, labels: Labels, amount: float) -> None:
        """The counter has grown; by 0 when the series has just begun."""

    def set(self, gauge: Gauge, labels: Labels, value: float) -> None: ...

    def observe(self, histogram: Histogram, labels: Labels, value: float, times: int) -> None:
        """``value`` is in the bucket of the values that were observed."""


class Exporter:
    """Sends changes to a sink: at ``flush``, and between ``start`` and ``stop`` every ``INTERVAL`` seconds.

    Gauges are sent each time, changed or not: a sink may forget one that it does not hear of. Thread-safe.
    """

    def __init__(self, sink: Sink, instruments: Iterable[Instrument]) -> None:
        self._sink = sink
        self._instruments = tuple(instruments)
        self._samples: list[Callable[[], None]] = []
        self._totals: dict[tuple[str, Labels], float] = {}
        self._counts: dict[tuple[str, Labels], tuple[int, ...]] = {}
        self._flushing = Lock()
        self._stop = Event()
        self._thread: Thread | None = None

    def sample(self, sample: Callable[[], None]) -> None:
        """Call this before each flush, in the exporter's thread; it sets gauges of what is so at the time."""
        self._samples.append(sample)

    def start(self, interval: float = INTERVAL) -> None:
        """Flush regularly from now on. Idempotent."""
        if self._thread is None:
            self._stop.clear()
            self._thread = Thread(target=self._run, args=(interval,), name="metrics", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Flush a last time, and no more by itself until it is started again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.flush()

    @contextmanager
    def running(self, sample: Callable[[], None], interval: float = INTERVAL) -> Iterator[None]:
        """Started while this is open, with one more sample."""
        self._samples.append(sample)
        self.start(interval)
        try:
            yield
        finally:
            self.stop()
            self._samples.remove(sample)

    def flush(self) -> None:
        with self._flushing:
            for sample in self._samples:
                sample()
            for instrument in self._instruments:
                if isinstance(instrument, Counter):
                    self._send_counter(instrument)
                elif isinstance(instrument, Gauge):
                    for labels, value in instrument.values().items():
                        self._sink.set(instrument, labels, value)
                elif isinstance(instrument, Histogram):
                    self._send_histogram(instrument)

    def _run(self, interval: float) -> None:
        while not self._stop.wait(interval):
            self.flush()

    def _send_counter(self, counter: Counter) -> None:
        for labels, total in counter.totals().items():
            key = (counter.name, labels)
            sent = self._totals.get(key)
            if sent is None or total > sent:
                self._sink.add(counter, labels, total - (sent or 0.0))
                self._totals[key] = total

    def _send_histogram(self, histogram: Histogram) -> None:
        for labels, seen in histogram.distributions().items():
            key = (histogram.name, labels)
            sent = self._counts.get(key, (0,) * len(seen.counts))
            for bucket, (count, before) in enumerate(zip(seen.counts, sent, strict=True)):
                if count > before:
                    self._sink.observe(histogram, labels, histogram.middle(bucket), count - before)
            self._counts[key] = seen.counts
