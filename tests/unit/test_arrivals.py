"""How many requests a proxy lets in, and what those it turns away are told."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.arrivals import LONGEST_WAIT, Arrivals


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_full_room_turns_the_next_away_until_somebody_leaves() -> None:
    arrivals = Arrivals(2, clock=Clock())
    assert [arrivals.enter(b"a"), arrivals.enter(b"a")] == [None, None]
    assert arrivals.enter(b"a") is not None
    arrivals.leave(b"a", 0.1)
    assert arrivals.enter(b"a") is None
    assert arrivals.under_way == 2


def test_one_caller_cannot_keep_the_others_out() -> None:
    arrivals = Arrivals(8, clock=Clock())
    while arrivals.enter(b"crowd") is None:
        pass
    let_in = [arrivals.enter(b"b") for _ in range(5)]
    assert let_in[:4] == [None] * 4
    assert let_in[4] is not None
    assert arrivals.enter(b"c") is None


def test_waits_follow_what_requests_take_and_come_one_after_the_other() -> None:
    arrivals = Arrivals(4, clock=Clock())
    for _ in range(200):
        arrivals.enter(b"a")
        arrivals.leave(b"a", 2.0)
    while arrivals.enter(b"a") is None:
        pass
    # Four places of two seconds each: one comes free every half second. The first was told to the loop above.
    waits = [arrivals.enter(b"a") for _ in range(3)]
    assert waits == [pytest.approx(0.5 * place, rel=0.01) for place in (2, 3, 4)]


def test_no_wait_is_longer_than_clients_obey() -> None:
    arrivals = Arrivals(1, clock=Clock())
    arrivals.enter(b"a")
    assert [arrivals.enter(b"a") for _ in range(1000)][-1] == LONGEST_WAIT


def test_those_who_obey_are_let_in() -> None:
    """A crowd ten times the room, a second each: all are let in at last, and few are told to wait twice."""
    clock, refusals, served = Clock(), 0, 0
    arrivals = Arrivals(10, clock=clock)
    events = [(clock.now, number, "arrive") for number in range(100)]
    while events:
        clock.now, number, what = heapq.heappop(events)
        if what == "leave":
            arrivals.leave(b"a", 1.0)
            served += 1
        elif (wait := arrivals.enter(b"a")) is None:
            heapq.heappush(events, (clock.now + 1.0, number, "leave"))
        else:
            refusals += 1
            heapq.heappush(events, (clock.now + wait, number, "arrive"))
    assert served == 100
    assert refusals < 2 * 100


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.booleans()), max_size=200))
def test_the_room_is_never_over_full_and_never_leaks(steps: list[tuple[bytes, bool]]) -> None:
    arrivals = Arrivals(5, clock=Clock())
    inside: list[bytes] = []
    for caller, enters in steps:
        if enters:
            wait = arrivals.enter(caller)
            if wait is None:
                inside.append(caller)
            else:
                assert 0 < wait <= LONGEST_WAIT
                assert len(inside) >= 5
        elif caller in inside:
            inside.remove(caller)
            arrivals.leave(caller, 0.5)
        assert arrivals.under_way == len(inside) <= 10
