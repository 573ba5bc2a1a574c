"""The plan is a pure function of the seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.plan import CLOCK_HOURS, EARLIEST, LATEST, MINIMUM, SLOW, STORE_SECONDS, Kind, plan

SEEDS = st.integers(min_value=0, max_value=2**32)
RUNS = st.integers(min_value=0, max_value=200)
KINDS = st.lists(st.sampled_from(Kind), min_size=1, unique=True)


@given(SEEDS, RUNS, KINDS)
def test_the_same_seed_gives_the_same_plan(seed: int, runs: int, kinds: list[Kind]) -> None:
    planned = plan(seed, runs, kinds)
    assert planned == plan(seed, runs, kinds)
    assert [run.number for run in planned] == list(range(1, runs + 1))
    assert {run.kind for run in planned} <= set(kinds)


@given(SEEDS, RUNS, KINDS)
def test_every_kind_comes_as_often_as_there_is_room_for(seed: int, runs: int, kinds: list[Kind]) -> None:
    counts = Counter(run.kind for run in plan(seed, runs, kinds))
    least = min(MINIMUM, runs // len(kinds))
    assert all(counts[kind] >= least for kind in kinds)


@given(SEEDS, RUNS, KINDS)
def test_the_moments_of_a_kind_are_spread_over_the_work(seed: int, runs: int, kinds: list[Kind]) -> None:
    planned = plan(seed, runs, kinds)
    for kind in kinds:
        moments = sorted(run.moment for run in planned if run.kind is kind)
        width = (LATEST - EARLIEST) / max(len(moments), 1)
        places = [int((moment - EARLIEST) / width + 1e-9) for moment in moments]
        assert places == list(range(len(moments))), "one in each slice"


@given(SEEDS)
def test_seeds_differ_and_the_store_stands_still_for_its_time(seed: int) -> None:
    planned = plan(seed, 56)
    assert [run.moment for run in planned] != [run.moment for run in plan(seed + 1, 56)]
    assert {run.outage for run in planned if run.kind is Kind.STORE} == {STORE_SECONDS}
    assert len({run.seed for run in planned}) == 56


@given(SEEDS, st.integers(min_value=0, max_value=12))
def test_the_clock_is_set_forward_and_back_in_jobs_and_among_pushes(seed: int, runs: int) -> None:
    planned = plan(seed, runs, [Kind.CLOCK])
    assert all(CLOCK_HOURS[0] <= abs(run.step) <= CLOCK_HOURS[1] for run in planned)
    ways = [(run.step > 0, run.pushed) for run in planned]
    for first, second in zip(ways[::2], ways[1::2], strict=False):
        assert (first[0] != second[0], first[1] != second[1]) == (True, True)
    assert len(set(ways)) == min(runs, 4)


@given(SEEDS)
def test_a_plan_of_the_usual_length_has_room_for_every_kind(seed: int) -> None:
    planned = plan(seed, 50)
    counts = Counter(run.kind for run in planned)
    assert {counts[kind] for kind in SLOW} == {MINIMUM}
    assert all(counts[kind] > MINIMUM for kind in Kind if kind not in SLOW)
    assert {run.kind for run in planned if run.step or run.pushed} == {Kind.CLOCK}


@given(SEEDS, st.integers(min_value=1, max_value=5))
def test_a_repeated_run_has_a_moment_of_its_own_inside_the_work(seed: int, attempt: int) -> None:
    for run in plan(seed, 5):
        again = run.again(attempt)
        assert again == run.again(attempt)
        assert (again.number, again.kind) == (run.number, run.kind)
        assert EARLIEST <= again.moment <= run.moment
        assert again.seed != run.seed


def test_a_plan_needs_a_kind() -> None:
    with pytest.raises(ValueError, match="kind"):
        plan(1, 5, [])
