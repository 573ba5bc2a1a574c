"""Turns to embed: fair by tenant and tokens, never idle while somebody waits, back from the dead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.turns import LEASE, Ask, FairTurns

Sizes = st.lists(st.integers(1, 500), min_size=30, max_size=60)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def asks(tenant: str, sizes: list[int], weight: float = 1.0) -> list[Ask]:
    return [Ask(f"{tenant}-{n}", tenant, size, f"w-{tenant}", weight=weight) for n, size in enumerate(sizes)]


@given(
    st.dictionaries(st.sampled_from("abcd"), Sizes, min_size=2),
    st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=4, max_size=4),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_tenants_that_wait_get_equal_tokens_whatever_their_parts(
    work: dict[str, list[int]], weights: list[float], capacity: int, random: object
) -> None:
    turns = FairTurns(capacity)
    weight = dict(zip("abcd", weights, strict=True))
    by_name = {ask.name: ask for tenant, sizes in work.items() for ask in asks(tenant, sizes, weight[tenant])}
    for ask in by_name.values():
        turns.ask(ask)
    done = dict.fromkeys(work, 0.0)
    held: list[str] = []
    while set(turns.waiting()) == set(work):
        begun = turns.begin()
        held += begun
        assert turns.held == capacity, "a free turn is used while somebody waits"
        for name in begun:
            done[by_name[name].tenant] += by_name[name].tokens / by_name[name].weight
        if set(turns.waiting()) == set(work):
            largest = {tenant: max(sizes) / weight[tenant] for tenant, sizes in work.items()}
            for one in work:
                for other in work:
                    assert abs(done[one] - done[other]) <= largest[one] + largest[other] + 1e-6
        turns.give_back(held.pop(random.randrange(len(held))))  # type: ignore[attr-defined]


@given(st.integers(1, 20), st.integers(1, 5))
def test_a_newcomer_starts_before_what_a_busy_tenant_still_has(before: int, capacity: int) -> None:
    turns = FairTurns(capacity)
    for ask in asks("busy", [100] * 200):
        turns.ask(ask)
    held = turns.begin()
    for _ in range(before):
        turns.give_back(held.pop(0))
        held += turns.begin()
    turns.ask(Ask("new", "small", 100, "w"))
    begun = []
    for _ in range(2):  # it is level with the part begun last, so at most one more goes before it
        turns.give_back(held.pop(0))
        begun += (now := turns.begin())
        held += now
    assert "new" in begun


@given(st.integers(0, 5), st.integers(1, 3))
def test_no_part_waits_for_ever_behind_newcomers(start: int, capacity: int) -> None:
    turns = FairTurns(capacity)
    for ask in asks("slow", [500] * (start + 1)):
        turns.ask(ask)
    turns.ask(Ask("last", "slow", 500, "w"))
    held = []
    for number in range(60 * (start + 2)):
        turns.ask(Ask(f"n{number}", f"t{number % 4}", 50, "w"))
        held += turns.begin()
        if turns.holds("last"):
            return
        turns.give_back(held.pop(0))
    pytest.fail("the last part of the slow tenant never had its turn")


def test_a_tenant_without_work_saves_no_turns_up() -> None:
    turns = FairTurns(1)
    turns.ask(Ask("b0", "b", 1, "w"))
    turns.begin()
    turns.give_back("b0")
    order = []
    for ask in asks("a", [10] * 50):
        turns.ask(ask)
    for _ in range(20):
        (name,) = turns.begin()
        turns.give_back(name)
    for ask in asks("b", [10] * 50):
        turns.ask(ask)
    for _ in range(10):
        (name,) = turns.begin()
        order.append(name[0])
        turns.give_back(name)
    assert sorted(order) == ["a"] * 5 + ["b"] * 5


def test_many_jobs_give_a_tenant_no_larger_share() -> None:
    turns = FairTurns(2)
    for number in range(5):
        for part in range(10):
            turns.ask(Ask(f"a{number}-{part}", "a", 10, f"job-{number}"))
    for part in range(10):
        turns.ask(Ask(f"b{part}", "b", 10, "job-b"))
    held, order = turns.begin(), []
    for _ in range(18):
        name = held.pop(0)
        order.append(name[0])
        turns.give_back(name)
        held += turns.begin()
    assert abs(order.count("a") - order.count("b")) <= 2


def test_priority_orders_a_tenants_own_parts_and_nobody_elses() -> None:
    turns = FairTurns(1)
    turns.ask(Ask("a-low", "a", 10, "w", priority=1))
    turns.ask(Ask("b-low", "b", 10, "w", priority=1))
    turns.ask(Ask("a-high", "a", 10, "w", priority=9))
    turns.ask(Ask("a-high-too", "a", 10, "w", priority=9))
    order = []
    while turns.waiting():
        (name,) = turns.begin()
        order.append(name)
        turns.give_back(name)
    assert [name for name in order if name[0] == "a"] == ["a-high", "a-high-too", "a-low"]
    assert order.index("b-low") <= 1


def test_one_model_has_one_turn_and_another_tenants_model_the_next() -> None:
    turns = FairTurns(2)
    for name in ("a0", "a1"):
        turns.ask(Ask(name, "a", 10, "w", engine="model-1"))
    assert turns.begin() == ["a0"]
    turns.ask(Ask("b0", "b", 10, "v", engine="model-2"))
    assert turns.begin() == ["b0"]
    turns.give_back("a0")
    assert turns.begin() == ["a1"]


def test_the_turns_of_a_worker_that_falls_silent_are_others() -> None:
    clock = Clock()
    turns = FairTurns(1, clock)
    turns.ask(Ask("dead", "a", 10, "killed"))
    turns.ask(Ask("dead-too", "a", 10, "killed"))
    turns.ask(Ask("alive", "b", 10, "lives"))
    assert turns.begin() == ["dead"]
    clock.seconds = LEASE
    turns.hear("lives")
    assert turns.begin() == []
    clock.seconds = LEASE + 1
    assert turns.begin() == ["alive"]
    turns.give_back("alive")
    assert turns.begin() == []
    assert turns.waiting() == {}


def test_asking_and_giving_back_twice_changes_nothing() -> None:
    turns = FairTurns(1)
    first = Ask("a", "a", 10, "w")
    turns.ask(first)
    turns.ask(first)
    assert turns.begin() == ["a"]
    turns.ask(first)
    assert turns.waiting() == {}
    turns.give_back("a")
    turns.give_back("a")
    assert turns.begin() == []


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FairTurns(0)
    with pytest.raises(ValueError, match="tokens"):
        FairTurns(1).ask(Ask("a", "a", 0, "w"))
