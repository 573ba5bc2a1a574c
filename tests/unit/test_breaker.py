"""The breaker's states, on a clock that the tests move."""

from __future__ import annotations

import pytest

from ray_app.errors import ProviderRefused, ProviderUnavailable
from ray_app.serving.breaker import BreakerPolicy, Circuit, CircuitBreaker

POLICY = BreakerPolicy(
    failures=3,
    cool_down=1,
    longest_cool_down=5,
    refused_cool_down=30,
    longest_refused_cool_down=100,
    throttle=1,
    longest_throttle=60,
)


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(POLICY, clock)


def fail(breaker: CircuitBreaker, times: int = 1, *, suspect: bool = False) -> None:
    for _ in range(times):
        breaker.failed(breaker.era, "It is down.", suspect=suspect)


def test_it_opens_after_failures_in_a_row_only(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    breaker.succeeded(breaker.era)
    fail(breaker, 2)
    assert breaker.circuit is Circuit.CLOSED
    breaker.check()
    fail(breaker)
    assert breaker.circuit is Circuit.FAILING
    with pytest.raises(ProviderUnavailable, match="It is down") as caught:
        breaker.check()
    assert caught.value.retryable
    assert caught.value.retry_after == 1


def test_one_caller_probes_after_the_cool_down_and_success_closes(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, 3)
    assert not breaker.take_probe()
    clock.now += 1
    assert [breaker.take_probe(), breaker.take_probe()] == [True, False]
    assert breaker.circuit is Circuit.PROBING
    with pytest.raises(ProviderUnavailable):
        breaker.check()
    breaker.probe_succeeded()
    assert breaker.circuit is Circuit.CLOSED
    breaker.check()
    fail(breaker, 2)
    assert breaker.circuit is Circuit.CLOSED, "what failed before it closed does not count"


def test_cool_downs_double_up_to_the_longest_and_start_again_after_closing(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, 3)
    waits = []
    for _ in range(5):
        waits.append(breaker.wait)
        clock.now += breaker.wait
        assert breaker.take_probe()
        breaker.probe_failed("It is still down.")
    assert waits == [1, 2, 4, 5, 5]
    clock.now += 5
    assert breaker.take_probe()
    breaker.probe_succeeded()
    fail(breaker, 3)
    assert breaker.wait == 1


def test_a_probe_that_told_nothing_is_taken_by_the_next_caller(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1
    assert breaker.take_probe()
    breaker.drop_probe()
    assert breaker.circuit is Circuit.FAILING
    assert breaker.take_probe()


def test_what_an_operator_must_change_is_probed_rarely(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.refused(breaker.era, "No credit.", "Raise the quota.")
    assert breaker.circuit is Circuit.REFUSED
    with pytest.raises(ProviderRefused, match=r"No credit.*Raise the quota") as caught:
        breaker.check()
    assert caught.value.retry_after == 30
    clock.now += 29
    assert not breaker.take_probe()
    clock.now += 1
    assert breaker.take_probe()
    breaker.probe_failed("No credit.", refused=True, hint="Raise the quota.")
    assert breaker.wait == 60
    clock.now += 60
    assert breaker.take_probe()
    breaker.probe_failed("No credit.", refused=True)
    assert breaker.wait == 100


def test_a_throttle_holds_for_everybody_and_ends_by_itself(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.throttled(breaker.era, 7)
    breaker.throttled(breaker.era, 2)
    assert breaker.circuit is Circuit.THROTTLED
    assert breaker.wait == 7, "the later of two deadlines"
    breaker.check()  # it is not open: who has the patience may wait
    breaker.succeeded(breaker.era)
    assert breaker.wait == 7, "an answer to an earlier request does not lift it"
    clock.now += 7
    assert breaker.circuit is Circuit.CLOSED


def test_without_a_stated_wait_throttles_grow_until_a_success(breaker: CircuitBreaker, clock: Clock) -> None:
    waits = []
    for _ in range(8):
        breaker.throttled(breaker.era, None)
        waits.append(breaker.wait)
        clock.now += breaker.wait
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    breaker.succeeded(breaker.era)
    breaker.throttled(breaker.era, None)
    assert breaker.wait == 1


def test_an_absurd_wait_is_capped(breaker: CircuitBreaker) -> None:
    breaker.throttled(breaker.era, 86_400)
    assert breaker.wait == 60


def test_results_of_requests_from_before_a_change_are_not_believed(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    old = breaker.era
    fail(breaker, 3)
    opened = breaker.wait
    breaker.succeeded(old)
    breaker.failed(old, "late")
    breaker.refused(old, "late", None)
    assert (breaker.circuit, breaker.wait) == (Circuit.FAILING, opened)
    clock.now += 1
    assert breaker.take_probe()
    breaker.probe_succeeded()
    for _ in range(3):
        breaker.failed(old, "later")
    breaker.throttled(old, 9)
    breaker.refused(old, "later", None)
    assert breaker.circuit is Circuit.CLOSED


def test_texts_that_make_it_fail_cause_a_probe_but_no_cool_down(breaker: CircuitBreaker) -> None:
    fail(breaker, 3, suspect=True)
    with pytest.raises(ProviderUnavailable):
        breaker.check()
    assert breaker.take_probe()
    breaker.probe_succeeded()
    assert breaker.circuit is Circuit.CLOSED


def test_texts_at_fault_cause_fewer_probes_each_time_until_they_are_forgotten(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    def suspicions() -> int:
        count = 0
        while breaker.circuit is Circuit.CLOSED:
            fail(breaker, suspect=True)
            count += 1
        assert breaker.take_probe()
        breaker.probe_succeeded()
        return count

    assert [suspicions() for _ in range(4)] == [3, 6, 12, 24]
    fail(breaker, 3)
    assert breaker.circuit is Circuit.FAILING, "a failure that is no text's fault counts as ever"
    clock.now += POLICY.acquittal + 1
    assert breaker.take_probe()
    breaker.probe_succeeded()
    assert suspicions() == 3
