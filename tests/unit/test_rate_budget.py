"""The shared rate budget, in virtual time: limits held in every minute, callers before jobs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.errors import Overloaded
from ray_app.serving.port import Lane
from ray_app.serving.rate_budget import BURST_SHARE, RESERVE_SHARE, RateBudget
from tests.support.virtual_time import run_virtual

CALLER, JOB = Lane.INTERACTIVE, Lane.BULK


def now() -> float:
    return asyncio.get_running_loop().time()


def budget(requests: float = 0, tokens: float = 0) -> RateBudget:
    return RateBudget(requests, tokens, asyncio.get_running_loop().time)


async def departures(rate: RateBudget, sizes: list[tuple[int, Lane]]) -> list[tuple[float, int]]:
    """When each request left, in seconds from now, and its size; all arrive at once."""
    start = now()
    left: list[tuple[float, int]] = []

    async def send(tokens: int, lane: Lane) -> None:
        await rate.take(tokens, lane)
        left.append((now() - start, tokens))

    await asyncio.gather(*(send(tokens, lane) for tokens, lane in sizes))
    return left


@given(
    st.integers(10, 200),
    st.integers(1000, 100_000),
    st.lists(st.tuples(st.integers(1, 90), st.sampled_from(Lane)), min_size=1, max_size=60),
)
def test_no_minute_holds_more_than_the_limits(
    requests: int, tokens: int, sizes: list[tuple[int, Lane]]
) -> None:
    async def main() -> list[tuple[float, int]]:
        return await departures(budget(requests, tokens), sizes)

    left = run_virtual(main())
    assert sorted(size for _, size in left) == sorted(size for size, _ in sizes), "nothing is lost"
    for start, _ in left:
        window = [size for at, size in left if start <= at < start + 60 - 1e-6]
        assert len(window) <= max(requests, 1) + 1e-6
        assert sum(window) <= tokens + 1e-6


def test_without_limits_everything_leaves_at_once() -> None:
    async def main() -> None:
        rate = budget()
        assert math.isinf(rate.bulk_tokens)
        left = await departures(rate, [(10**9, JOB), (10**9, CALLER)])
        assert [at for at, _ in left] == [0, 0]

    run_virtual(main())


def test_callers_leave_before_jobs_that_came_earlier() -> None:
    async def main() -> None:
        rate = budget(tokens=6000)
        left = await departures(rate, [(600, JOB), *[(450, JOB)] * 3, *[(500, CALLER)] * 3])
        # The first is alone when it asks; then the callers, then the other jobs.
        assert [size for _, size in left] == [600, *[500] * 3, *[450] * 3]

    run_virtual(main())


def test_small_requests_of_jobs_do_not_slip_past_a_large_one_of_a_caller() -> None:
    async def main() -> None:
        rate = budget(tokens=6000)
        await rate.take(600, CALLER)
        left = await departures(rate, [(500, CALLER), *[(10, JOB)] * 20])
        assert left[0][1] == 500

    run_virtual(main())


def test_jobs_leave_a_reserve_for_callers() -> None:
    async def main() -> None:
        rate = budget(tokens=60_000)
        burst = 60_000 * BURST_SHARE
        job_part = int(rate.bulk_tokens)
        assert job_part == burst * (1 - RESERVE_SHARE)
        flood = asyncio.create_task(departures(rate, [(job_part // 3, JOB)] * 50))
        for _ in range(20):
            await asyncio.sleep(1.7)
            before = now()
            await rate.take(int(burst * RESERVE_SHARE) // 2, CALLER)
            assert now() == before, "a caller waits for no job"
        await flood

    run_virtual(main())


def test_what_is_larger_than_the_burst_leaves_when_full_and_is_paid_off() -> None:
    async def main() -> None:
        rate = budget(tokens=600)
        start = now()
        await rate.take(150, CALLER)
        assert now() == start
        await rate.take(60, CALLER)
        assert now() - start == pytest.approx(150 / (600 * (1 - BURST_SHARE) / 60))

    run_virtual(main())


def test_a_wait_beyond_the_patience_is_refused_with_the_time_after_which_it_is_not() -> None:
    async def main() -> None:
        rate = budget(tokens=6000)
        await rate.take(600, CALLER)
        with pytest.raises(Overloaded) as caught:
            await rate.take(600, CALLER, patience=2)
        await asyncio.sleep(caught.value.retry_after)
        before = now()
        await rate.take(600, CALLER, patience=2)
        assert now() - before == pytest.approx(0, abs=1e-6)

    run_virtual(main())


def test_the_queue_before_a_caller_counts_in_its_wait() -> None:
    async def main() -> None:
        rate = budget(tokens=6000)
        queue = [asyncio.create_task(rate.take(600, CALLER)) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await rate.take(600, CALLER, patience=10)
        start = now()
        await asyncio.gather(*queue)
        assert caught.value.retry_after > now() - start > 10

    run_virtual(main())


def test_one_who_gives_up_holds_nobody_up() -> None:
    async def main() -> None:
        rate = budget(requests=60)
        for _ in range(6):
            await rate.take(1, CALLER)
        first, second = (asyncio.create_task(rate.take(1, CALLER)) for _ in range(2))
        await asyncio.sleep(0.1)
        first.cancel()
        start = now()
        await second
        assert now() - start < 60 / 54

    run_virtual(main())


def test_what_was_estimated_too_high_is_given_back() -> None:
    async def main() -> None:
        rate = budget(tokens=6000)
        await rate.take(600, CALLER)
        rate.settle(600, 100)
        before = now()
        await rate.take(500, CALLER)
        assert now() == before

    run_virtual(main())


@pytest.mark.parametrize(
    ("configured", "said", "effective"),
    [(0, 6000, 6000), (9000, 6000, 6000), (6000, 9000, 6000), (6000, 0, 6000), (6000, -1, 6000)],
)
def test_limits_are_learnt_from_headers_but_never_raised(
    configured: float, said: float, effective: float
) -> None:
    async def main() -> None:
        rate = budget(tokens=configured)
        rate.learn({"x-ratelimit-limit-tokens": str(said), "x-ratelimit-limit-requests": "none"})
        assert rate.bulk_tokens == effective * BURST_SHARE * (1 - RESERVE_SHARE)

    run_virtual(main())


def test_what_others_used_of_the_endpoint_is_waited_for() -> None:
    async def main(learn: Callable[[RateBudget], None]) -> float:
        rate = budget(tokens=6000)
        learn(rate)
        start = now()
        await rate.take(90, CALLER)
        return now() - start

    assert run_virtual(main(lambda rate: rate.learn({"x-ratelimit-remaining-tokens": "0"}))) == pytest.approx(
        1
    )
    assert run_virtual(main(lambda rate: rate.learn({"x-ratelimit-remaining-tokens": "junk"}))) == 0
