"""What is counted, and what of it goes on to a sink: nothing twice, nothing lost, nothing stale."""

from __future__ import annotations

import math
import threading
from collections import Counter as Tally
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.metrics import instruments
from ray_app.metrics.declared import DECLARED
from ray_app.metrics.exporter import Exporter
from ray_app.metrics.instruments import Counter, Gauge, Histogram, Labels

BOUNDS = (0.1, 1.0, 10.0)


class Memory:
    """A sink that adds up, as Ray's agent does: observations by bucket, since values within one are alike."""

    def __init__(self) -> None:
        self.counters: dict[Labels, float] = {}
        self.gauges: list[tuple[Labels, float]] = []
        self.buckets: dict[Labels, Tally[int]] = defaultdict(Tally)

    def add(self, counter: Counter, labels: Labels, amount: float) -> None:
        assert counter.name
        self.counters[labels] = self.counters.get(labels, 0.0) + amount

    def set(self, gauge: Gauge, labels: Labels, value: float) -> None:
        assert gauge.name
        self.gauges.append((labels, value))

    def observe(self, histogram: Histogram, labels: Labels, value: float, times: int) -> None:
        place = sum(value > bound for bound in histogram.bounds)
        self.buckets[labels][place] += times


@given(st.lists(st.one_of(st.none(), st.tuples(st.sampled_from("ab"), st.integers(0, 50)))))
def test_a_sink_has_of_a_counter_what_was_added_whenever_it_was_flushed(
    steps: list[tuple[str, int] | None],
) -> None:
    counter, memory, expected = Counter("c", "", ("label",)), Memory(), Tally[Labels]()
    exporter = Exporter(memory, [counter])
    for step in steps:
        if step is None:
            exporter.flush()
        else:
            counter.add(step[1], step[0])
            expected[(step[0],)] += step[1]
    exporter.flush()
    assert memory.counters == dict(expected)


@given(st.lists(st.one_of(st.none(), st.floats(0, 100))))
def test_a_sink_has_each_observation_in_its_bucket_once(steps: list[float | None]) -> None:
    histogram, memory = Histogram("h", "", bounds=BOUNDS), Memory()
    exporter = Exporter(memory, [histogram])
    for step in steps:
        if step is None:
            exporter.flush()
        else:
            histogram.observe(step)
    exporter.flush()
    values = [step for step in steps if step is not None]
    expected = Tally(sum(value > bound for bound in BOUNDS) for value in values)
    assert memory.buckets[()] == expected
    seen = histogram.distribution()
    assert seen.count == len(values)
    assert math.isclose(seen.total, math.fsum(values), abs_tol=1e-9)


def test_a_counter_that_was_started_is_sent_as_0_and_then_only_when_it_grows() -> None:
    counter, sent = Counter("c", "", ("label",)), []
    memory = Memory()
    memory.add = lambda _, labels, amount: sent.append((labels, amount))  # type: ignore[method-assign]
    exporter = Exporter(memory, [counter])
    counter.start("x")
    for _ in range(3):
        exporter.flush()
    counter.add(2, "x")
    exporter.flush()
    assert sent == [(("x",), 0.0), (("x",), 2.0)]


def test_a_gauge_is_sent_each_time_as_it_is_then() -> None:
    gauge, memory = Gauge("g", "", ("state",)), Memory()
    exporter = Exporter(memory, [gauge])
    gauge.choose("open", ["open", "closed"])
    exporter.flush()
    gauge.replace({("closed",): 3})
    exporter.flush()
    exporter.flush()
    assert memory.gauges == [(("open",), 1), (("closed",), 0), (("closed",), 3), (("closed",), 3)]


def test_a_gauge_is_forgotten_when_nobody_looks_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(instruments.time, "monotonic", lambda: now)
    gauge = Gauge("g", "", ("label",), lifetime=60)
    gauge.set(1, "early")
    now = 130.0
    gauge.set(2, "late")
    assert gauge.values() == {("early",): 1, ("late",): 2}
    now = 161.0
    assert gauge.values() == {("late",): 2}


def test_threads_lose_no_count() -> None:
    counter, histogram = Counter("c", ""), Histogram("h", "", bounds=BOUNDS)

    def work() -> None:
        for _ in range(5000):
            counter.add(1)
            histogram.observe(0.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counter.total(), histogram.distribution().count) == (20_000, 20_000)


def test_an_exporter_flushes_by_itself_until_it_is_stopped_and_can_go_on() -> None:
    gauge, memory, sampled = Gauge("g", ""), Memory(), threading.Event()
    exporter = Exporter(memory, [gauge])

    def sample() -> None:
        gauge.set(7)
        sampled.set()

    for _ in range(2):
        sampled.clear()
        with exporter.running(sample, interval=0.001):
            assert sampled.wait(10)
    sampled.clear()
    exporter.flush()
    assert not sampled.is_set()
    assert memory.gauges[-1] == ((), 7)


def test_mistakes_are_errors() -> None:
    counter = Counter("c", "", ("a", "b"))
    with pytest.raises(ValueError, match="labels"):
        counter.add(1, "only one")
    with pytest.raises(ValueError, match="shrink"):
        counter.add(-1, "a", "b")
    with pytest.raises(ValueError, match="labels"):
        Gauge("g", "").set(1, "none was declared")
    for bounds in ((), (0.0, 1.0), (2.0, 1.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match="ascend"):
            Histogram("h", "", bounds=bounds)


def test_names_follow_prometheus_and_no_label_is_about_a_tenant() -> None:
    names = [instrument.name for instrument in DECLARED]
    assert len(set(names)) == len(names)
    for instrument in DECLARED:
        assert instrument.name.startswith("rowbeam_")
        assert instrument.name.endswith("_total") == (instrument.kind == "counter")
        assert not {"tenant", "client", "client_id", "job", "key", "incarnation"} & set(instrument.labels)
        # Ray's own, and Prometheus's.
        assert not {"WorkerId", "NodeAddress", "SessionName", "Component", "le"} & set(instrument.labels)
