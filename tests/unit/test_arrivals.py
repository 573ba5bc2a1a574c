"""How many requests a proxy lets in, and what those it turns away are told."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.arrivals import KEPT, LONGEST_WAIT, Arrivals, Guest

A, B, C = Guest(b"a"), Guest(b"b"), Guest(b"c")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def connections(count: int, caller: bytes = b"a") -> list[Guest]:
    return [Guest(caller, str(number)) for number in range(count)]


def test_a_full_room_turns_the_next_away_until_somebody_leaves() -> None:
    arrivals = Arrivals(2, clock=Clock())
    assert [arrivals.enter(A), arrivals.enter(A)] == [None, None]
    assert arrivals.enter(A) is not None
    arrivals.leave(A, 0.1)
    assert arrivals.enter(A) is None
    assert arrivals.under_way == 2


def test_one_caller_cannot_keep_the_others_out() -> None:
    arrivals = Arrivals(8, clock=Clock())
    while arrivals.enter(A) is None:
        pass
    let_in = [arrivals.enter(B) for _ in range(5)]
    assert let_in[:4] == [None] * 4
    assert let_in[4] is not None
    assert arrivals.enter(C) is None


def test_waits_follow_what_requests_take_and_come_one_after_the_other() -> None:
    arrivals = Arrivals(4, clock=Clock())
    for _ in range(200):
        arrivals.enter(A)
        arrivals.leave(A, 2.0)
    for _ in range(4):
        arrivals.enter(A)
    # Four places of two seconds each: one comes free every half second.
    waits = [arrivals.enter(guest) for guest in connections(3)]
    assert waits == [pytest.approx(0.5 * place, rel=0.01) for place in (1, 2, 3)]


def test_a_place_is_kept_for_whoever_was_told_to_come_back() -> None:
    clock = Clock()
    arrivals = Arrivals(2, clock=clock)
    late, early = connections(2)
    arrivals.enter(A)
    arrivals.enter(A)
    wait = arrivals.enter(late)
    assert wait is not None
    arrivals.leave(A, 1.0)
    clock.now += wait
    assert arrivals.enter(early) is not None, "a newcomer must not take it"
    assert arrivals.enter(late) is None


def test_a_place_nobody_came_for_is_let_go() -> None:
    clock = Clock()
    arrivals = Arrivals(1, clock=clock)
    arrivals.enter(A)
    wait = arrivals.enter(B)
    arrivals.leave(A, 1.0)
    clock.now += (wait or 0) + KEPT + 0.1
    assert arrivals.enter(C) is None


def test_a_room_that_a_crowd_has_left_takes_newcomers_at_once() -> None:
    clock = Clock()
    arrivals = Arrivals(8, clock=clock)
    crowd = connections(100)
    inside = [guest for guest in crowd if arrivals.enter(guest) is None]
    for guest in inside:
        arrivals.leave(guest, 1.0)
    clock.now += 2
    assert arrivals.enter(B) is None


def test_no_wait_is_longer_than_clients_obey() -> None:
    arrivals = Arrivals(1, clock=Clock())
    arrivals.enter(A)
    assert [arrivals.enter(guest) for guest in connections(1000)][-1] == LONGEST_WAIT


def test_a_crowd_that_obeys_is_let_in_when_it_was_told_to_come() -> None:
    """Ten times the room, a second each, and whoever was served asks again at once, as a crowd does."""
    clock, refused, again, served = Clock(), 0, 0, 0
    arrivals = Arrivals(10, clock=clock)
    events = [(clock.now, number, guest, "come") for number, guest in enumerate(connections(100))]
    number = len(events)
    while events and clock.now < 160:
        clock.now, _, guest, what = heapq.heappop(events)
        number += 1
        if what == "leave":
            arrivals.leave(guest, 1.0)
            served += 1
            heapq.heappush(events, (clock.now, number, guest, "come"))
        elif (wait := arrivals.enter(guest)) is None:
            heapq.heappush(events, (clock.now + 1.0, number, guest, "leave"))
        else:
            refused += 1
            again += what == "back"
            heapq.heappush(events, (clock.now + wait, number, guest, "back"))
    assert served > 500, "sixty seconds of ten places"
    assert again < 0.02 * refused


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.booleans(), st.floats(0, 2)), max_size=200))
def test_the_room_is_never_over_full_and_never_leaks(steps: list[tuple[Guest, bool, float]]) -> None:
    clock = Clock()
    arrivals = Arrivals(5, clock=clock)
    inside: list[Guest] = []
    for guest, enters, seconds in steps:
        clock.now += seconds
        if enters:
            wait = arrivals.enter(guest)
            if wait is None:
                inside.append(guest)
            else:
                assert 0 < wait <= LONGEST_WAIT
        elif guest in inside:
            inside.remove(guest)
            arrivals.leave(guest, 0.5)
        assert arrivals.under_way == len(inside) <= 10
