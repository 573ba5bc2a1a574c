"""A lane that fails waits alone, for longer each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_app.outbox.lanes import FIRST, LONGEST, Pauses


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lane_that_fails_waits_and_the_others_do_not() -> None:
    clock = Clock()
    pauses: Pauses[str] = Pauses(clock)
    assert pauses.fail("a") == FIRST
    assert not pauses.open("a")
    assert pauses.open("b")
    clock.now += FIRST
    assert pauses.open("a")


def test_it_waits_for_as_long_as_it_was_asked_to() -> None:
    clock = Clock()
    pauses: Pauses[str] = Pauses(clock)
    assert pauses.fail("a", at_least=20.0) == 20.0
    clock.now += 19.9
    assert not pauses.open("a")


@given(st.integers(1, 40))
def test_pauses_double_up_to_a_bound_and_begin_anew_after_a_success(failures: int) -> None:
    pauses: Pauses[str] = Pauses(Clock())
    seconds = [pauses.fail("a") for _ in range(failures)]
    assert seconds == [min(FIRST * 2**number, LONGEST) for number in range(failures)]
    pauses.succeed("a")
    assert pauses.open("a")
    assert pauses.fail("a") == FIRST


def test_lanes_with_nothing_left_are_forgotten() -> None:
    pauses: Pauses[str] = Pauses(Clock())
    pauses.fail("a")
    pauses.keep({"b"})
    assert pauses.open("a")
