"""How many replicas of the local model: enough for what waits, and no more."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from deployments.autoscaling import ASSUMED_SPEED, TARGET_WAIT, by_queued_tokens, mean_speed, replicas_for

speeds = st.floats(min_value=1, max_value=1e6)


@given(st.integers(0, 10**9), speeds)
def test_as_many_as_work_the_queue_off_in_time_and_not_one_more(queued: int, speed: float) -> None:
    replicas = replicas_for(queued, speed)
    assert replicas >= 1
    assert queued <= replicas * speed * TARGET_WAIT * (1 + 1e-9)
    assert replicas == 1 or queued > (replicas - 1) * speed * TARGET_WAIT * (1 - 1e-9)


@given(st.lists(speeds, min_size=1), st.integers(0, 5))
def test_replicas_that_have_not_worked_do_not_count(measured: list[float], fresh: int) -> None:
    assert mean_speed([*measured, *[0.0] * fresh]) == mean_speed(measured)


def test_nothing_measured_is_one_replica() -> None:
    for metrics in (None, {}, {"queued_tokens": {"a": 0.0}, "tokens_per_second": {"a": 0.0}}):
        assert by_queued_tokens(SimpleNamespace(aggregated_metrics=metrics)) == (1, {})


def test_the_queues_of_all_replicas_add_up() -> None:
    metrics = {
        "queued_tokens": {"a": 3 * ASSUMED_SPEED, "b": 3 * ASSUMED_SPEED},
        "tokens_per_second": {"a": ASSUMED_SPEED, "b": 0.0},
    }
    replicas, state = by_queued_tokens(SimpleNamespace(aggregated_metrics=metrics))
    assert (replicas, state) == (3, {})
