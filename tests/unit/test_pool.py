"""The choice among the providers of a space: who is asked, who is left out, what is never handed out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.errors import (
    BudgetExhausted,
    ConfigError,
    ItemError,
    Overloaded,
    ProviderRefused,
    ProviderUnavailable,
    RowbeamError,
)
from ray_app.providers.port import Embedded
from ray_app.serving.pool import PricedTarget, ProviderPool
from ray_app.serving.port import EmbedCall
from ray_app.spaces import EmbeddingSpace, Preference

SPACE = EmbeddingSpace("model", "1", 4)
OTHER = EmbeddingSpace("other", "1", 2)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Target:
    """Takes ``seconds`` of the clock for each call, one call at a time; raises or answers as told."""

    name: str
    clock: Clock
    seconds: float = 1.0
    space: EmbeddingSpace = SPACE
    raises: Callable[[], RowbeamError] | None = None
    answer: Callable[[EmbedCall], Embedded] | None = None
    unwell: RowbeamError | None = None
    calls: list[EmbedCall] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def embed(self, call: EmbedCall) -> Embedded:
        self.calls.append(call)
        if self.gate is not None:
            await self.gate.wait()
        self.clock.now += self.seconds
        if self.raises is not None:
            raise self.raises()
        return self.answer(call) if self.answer else right(call)

    async def check(self) -> None:
        if self.unwell is not None:
            raise self.unwell


def right(call: EmbedCall) -> Embedded:
    vectors = np.ones((len(call.texts), call.space.dimensions), np.float32)
    return Embedded(vectors, call.total_tokens)


def call_of(tokens: int = 10, space: EmbeddingSpace = SPACE, texts: int = 2) -> EmbedCall:
    return EmbedCall(space, ["text"] * texts, [tokens // texts] * texts, UUID(int=1))


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


@dataclass
class Site:
    clock: Clock
    targets: list[Target]
    pool: ProviderPool

    async def served_by(self, tokens: int = 10) -> str:
        return (await self.pool.embed(call_of(tokens))).provider

    async def failure(self) -> RowbeamError:
        with pytest.raises(RowbeamError) as caught:
            await self.pool.embed(call_of())
        return caught.value


def site(*names: str, preference: Preference = Preference.BALANCED, **prices: str) -> Site:
    """Targets of one space, free but for ``prices``, which are US dollars per million tokens."""
    clock = Clock()
    targets = [Target(name, clock) for name in names]
    priced = [PricedTarget(target, Decimal(prices.get(target.name, "0"))) for target in targets]
    return Site(clock, targets, ProviderPool(priced, preference=preference, clock=clock))


def out() -> ProviderUnavailable:
    return ProviderUnavailable("out")


def test_the_faster_one_is_asked_once_both_are_measured() -> None:
    async def test() -> None:
        made = site("slow", "fast")
        made.targets[0].seconds = 5.0
        first = {await made.served_by(), await made.served_by()}
        assert first == {"slow", "fast"}
        assert [await made.served_by() for _ in range(5)] == ["fast"] * 5

    run(test())


def test_speeds_told_beforehand_choose_until_there_are_measured_ones() -> None:
    async def test() -> None:
        clock = Clock()
        slow, quick = Target("slow", clock, seconds=0.01), Target("quick", clock, seconds=2.0)
        pool = ProviderPool(
            [PricedTarget(slow, tokens_per_second=50), PricedTarget(quick, tokens_per_second=100)],
            clock=clock,
        )
        assert pool.load(SPACE).tokens_per_second == 150
        served = [(await pool.embed(call_of())).provider for _ in range(20)]
        # It is far slower than it was told to be: its answers outweigh that, after a while.
        assert served[0] == "quick"
        assert served[-1] == "slow"
        assert pool.load(SPACE).tokens_per_second > 50

    run(test())


def test_an_idle_target_goes_by_what_was_told_again() -> None:
    async def test() -> None:
        clock = Clock()
        cold, other = Target("cold", clock, seconds=20.0), Target("other", clock, seconds=0.5)
        pool = ProviderPool(
            [PricedTarget(cold, tokens_per_second=100), PricedTarget(other, tokens_per_second=15)],
            clock=clock,
        )
        assert [(await pool.embed(call_of())).provider for _ in range(3)] == ["cold", "cold", "other"]
        clock.now += 61
        assert (await pool.embed(call_of())).provider == "cold"

    run(test())


def test_a_queue_sends_the_next_call_elsewhere() -> None:
    async def test() -> None:
        made = site("one", "two")
        await made.served_by()
        await made.served_by()
        made.targets[0].gate = made.targets[1].gate = asyncio.Event()
        tasks = [asyncio.create_task(made.pool.embed(call_of())) for _ in range(10)]
        await asyncio.sleep(0)
        assert made.pool.load(SPACE).queued_tokens == 100
        made.targets[0].gate.set()
        served = [(await task).provider for task in tasks]
        assert served.count("one") == served.count("two") == 5
        assert made.pool.load(SPACE).queued_tokens == 0

    run(test())


def test_a_paid_provider_is_asked_when_waiting_costs_more() -> None:
    """1,000 tokens at 2 dollars a million are 0.002 dollars: 20 seconds' worth."""

    async def test(preference: Preference, slow: float, expected: str) -> None:
        made = site("free", "paid", paid="2", preference=preference)
        made.targets[0].seconds = slow
        served = [await made.served_by(1000) for _ in range(5)]
        assert served[2:] == [expected] * 3

    run(test(Preference.BALANCED, 15.0, "free"))
    run(test(Preference.BALANCED, 30.0, "paid"))
    run(test(Preference.FAST, 2.0, "paid"))


def test_one_that_was_slow_is_measured_again_after_a_while() -> None:
    async def test() -> None:
        made = site("slow", "fast")
        made.targets[0].seconds = 5.0
        assert [await made.served_by() for _ in range(50)].count("slow") == 1
        made.targets[0].seconds = 0.1
        assert [await made.served_by() for _ in range(20)][-1] == "slow"

    run(test())


@pytest.mark.parametrize(
    "error", [out, lambda: ProviderRefused("refused"), lambda: Overloaded("full", retry_after=2.0)]
)
def test_another_provider_of_the_space_answers_for_one_that_is_down(
    error: Callable[[], RowbeamError],
) -> None:
    async def test() -> None:
        made = site("down", "up")
        made.targets[0].raises = error
        for target in made.targets:
            target.seconds = 0.1
        assert [await made.served_by() for _ in range(3)] == ["up"] * 3
        assert len(made.targets[0].calls) <= 1, "it is left out"

    run(test())


@pytest.mark.parametrize("error", [BudgetExhausted("spent"), ItemError("bad"), ConfigError("wrong")])
def test_no_other_provider_is_asked_for_what_is_not_an_outage(error: RowbeamError) -> None:
    async def test() -> None:
        made = site("first", "second")
        for target in made.targets:
            target.raises = lambda: error
        assert await made.failure() is error
        assert sum(len(target.calls) for target in made.targets) == 1
        assert made.pool.load(SPACE).queued_tokens == 0

    run(test())


def test_a_provider_of_another_space_never_answers() -> None:
    async def test() -> None:
        clock = Clock()
        down, other = Target("down", clock, raises=out), Target("other", clock, space=OTHER)
        pool = ProviderPool([PricedTarget(down), PricedTarget(other)], clock=clock)
        assert pool.spaces() == (SPACE, OTHER)
        with pytest.raises(ProviderUnavailable):
            await pool.embed(call_of())
        assert other.calls == []
        assert (await pool.embed(call_of(space=OTHER))).provider == "other"

    run(test())


def test_an_unknown_space_is_refused() -> None:
    async def test() -> None:
        made = site("one")
        with pytest.raises(ConfigError, match="other"):
            await made.pool.embed(call_of(space=OTHER))
        with pytest.raises(ConfigError):
            made.pool.load(OTHER)

    run(test())


def test_one_that_failed_is_left_out_longer_each_time_and_tried_by_one_call() -> None:
    async def test() -> None:
        made = site("only")
        target = made.targets[0]
        target.raises, target.seconds = out, 0.0
        waits = []
        for _ in range(7):
            error = await made.failure()
            assert isinstance(error, ProviderUnavailable)
            calls = len(target.calls)
            refused = await made.failure()
            assert isinstance(refused, ProviderUnavailable)
            assert refused.retry_after == error.retry_after
            assert len(target.calls) == calls, "left out"
            waits.append(error.retry_after)
            made.clock.now += error.retry_after or 0
        assert waits == [1, 2, 4, 8, 16, 30, 30]

        target.raises, target.gate = None, asyncio.Event()
        trying = asyncio.create_task(made.pool.embed(call_of()))
        await asyncio.sleep(0)
        error = await made.failure()
        assert isinstance(error, ProviderUnavailable)
        assert error.retry_after == 1
        target.gate.set()
        assert (await trying).provider == "only"
        assert await made.served_by() == "only"
        target.raises = out
        assert getattr(await made.failure(), "retry_after", None) == 1, "counted from the start again"

    run(test())


def test_calls_that_fail_together_count_once() -> None:
    async def test() -> None:
        made = site("only")
        target = made.targets[0]
        target.raises, target.seconds, target.gate = out, 0.0, asyncio.Event()
        tasks = [asyncio.create_task(made.pool.embed(call_of())) for _ in range(10)]
        await asyncio.sleep(0)
        target.gate.set()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert {getattr(error, "retry_after", None) for error in errors} == {1}

    run(test())


def test_a_try_that_is_cancelled_leaves_the_next_one_free() -> None:
    async def test() -> None:
        made = site("only")
        target = made.targets[0]
        target.raises = out
        await made.failure()
        made.clock.now += 1
        target.raises, target.gate = None, asyncio.Event()
        trying = asyncio.create_task(made.pool.embed(call_of()))
        await asyncio.sleep(0)
        trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)
        target.gate.set()
        assert await made.served_by() == "only"
        assert made.pool.load(SPACE).queued_tokens == 0

    run(test())


def test_the_wait_is_the_one_the_provider_asked_for() -> None:
    async def test() -> None:
        made = site("only")
        made.targets[0].raises = lambda: ProviderUnavailable("throttled", retry_after=45)
        assert getattr(await made.failure(), "retry_after", None) == 45
        made.clock.now += 44
        assert getattr(await made.failure(), "retry_after", None) == 1
        assert len(made.targets[0].calls) == 1
        made.clock.now += 1
        made.targets[0].raises = None
        assert await made.served_by() == "only"

    run(test())


def test_one_that_is_full_is_asked_again_when_it_has_room() -> None:
    async def test() -> None:
        made = site("only")
        target = made.targets[0]
        target.raises = lambda: Overloaded("full", retry_after=0.5)
        error = await made.failure()
        assert isinstance(error, Overloaded)
        assert error.retry_after == 0.5
        made.clock.now += 0.5
        target.raises, target.gate = None, asyncio.Event()
        tasks = [asyncio.create_task(made.pool.embed(call_of())) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(target.calls) == 4, "all of them, not one to try"
        target.gate.set()
        await asyncio.gather(*tasks)

    run(test())


def with_vectors(change: Callable[[np.ndarray[Any, Any]], Any]) -> Callable[[EmbedCall], Embedded]:
    return lambda call: Embedded(change(right(call).vectors), 1)


def zero_row(vectors: np.ndarray[Any, Any]) -> Any:
    vectors[1] = 0
    return vectors


@pytest.mark.parametrize(
    "wrong",
    [
        with_vectors(lambda vectors: vectors[:1]),
        with_vectors(lambda vectors: np.concatenate([vectors, vectors])),
        with_vectors(lambda vectors: vectors[:, :3]),
        with_vectors(lambda vectors: vectors.ravel()),
        with_vectors(lambda vectors: vectors.astype(np.float64)),
        with_vectors(lambda vectors: vectors * np.nan),
        with_vectors(lambda vectors: vectors * np.inf),
        with_vectors(zero_row),
        lambda call: Embedded(right(call).vectors, 1, faults={7: ItemError("whose?")}),
    ],
)
def test_a_wrong_answer_counts_as_an_outage(wrong: Callable[[EmbedCall], Embedded]) -> None:
    async def test() -> None:
        made = site("broken", "well")
        made.targets[0].answer = wrong
        assert [await made.served_by() for _ in range(3)] == ["well"] * 3
        made = site("broken")
        made.targets[0].answer = wrong
        assert isinstance(await made.failure(), ProviderUnavailable)

    run(test())


def test_a_texts_fault_is_an_answer() -> None:
    async def test() -> None:
        made = site("one", "two")
        faults = {1: ItemError("bad")}
        for target in made.targets:
            target.answer = lambda call: Embedded(zero_row(right(call).vectors), 5, faults=faults)
        served = await made.pool.embed(call_of())
        assert served.embedded.faults == faults
        assert served.seconds == 1.0
        assert sum(len(target.calls) for target in made.targets) == 1

    run(test())


def test_load_is_what_was_sent_and_the_speed_while_busy() -> None:
    async def test() -> None:
        made = site("one")
        assert made.pool.load(SPACE).wait == 0
        await made.served_by(100)
        made.clock.now += 500
        await made.served_by(100)
        load = made.pool.load(SPACE)
        assert load.queued_tokens == 0
        assert load.tokens_per_second == pytest.approx(100), "idle time is not counted"

    run(test())


def test_what_is_not_ready_is_named() -> None:
    async def test() -> None:
        made = site("one", "two", "three")
        assert await made.pool.not_ready() == []
        made.targets[1].unwell = ProviderUnavailable("it is down", hint="Wait.")
        made.targets[2].unwell = ConfigError("no such model")
        assert await made.pool.not_ready() == ["two: it is down", "three: no such model"]

    run(test())


@given(
    outcomes=st.lists(
        st.tuples(st.sampled_from(["ok", "out", "full", "short", "spent", "cancel"]), st.floats(0, 3)),
        max_size=40,
    )
)
def test_every_call_is_answered_whatever_the_providers_do(outcomes: list[tuple[str, float]]) -> None:
    """And afterwards nothing is counted as under way, and everything comes back into use."""

    async def test() -> None:
        made = site("one", "two", "three")
        script = iter(outcomes)

        def answer(call: EmbedCall) -> Embedded:
            kind, seconds = next(script, ("ok", 0.0))
            made.clock.now += seconds
            if kind == "out":
                raise ProviderUnavailable("out")
            if kind == "full":
                raise Overloaded("full", retry_after=seconds)
            if kind == "spent":
                raise BudgetExhausted("spent")
            if kind == "cancel":
                raise asyncio.CancelledError
            embedded = right(call)
            return Embedded(embedded.vectors[:1], 1) if kind == "short" else embedded

        for target in made.targets:
            target.answer = answer
        for _ in range(20):
            (answered,) = await asyncio.gather(made.pool.embed(call_of()), return_exceptions=True)
            if isinstance(answered, BaseException):
                assert isinstance(
                    answered, ProviderUnavailable | Overloaded | BudgetExhausted | asyncio.CancelledError
                )
            else:
                assert answered.embedded.vectors.shape == (2, 4)
        assert made.pool.load(SPACE).queued_tokens == 0
        script = iter([])
        made.clock.now += 60
        served = {await made.served_by() for _ in range(3)}
        assert served

    run(test())
