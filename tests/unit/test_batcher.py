"""Batches across callers: each call gets its own vectors, on every path, whatever the encoder does."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.encoders.batching import BatchBudget
from ray_app.encoders.port import Encoded
from ray_app.errors import ConfigError, ItemError, ProviderUnavailable
from ray_app.serving.batcher import TokenBatcher
from ray_app.serving.encoder_thread import PROBE
from ray_app.serving.pending import WaitingText
from ray_app.serving.port import Lane
from tests.support.fake_encoder import DIMENSIONS, FakeEncoder, Panic, correct, tokens_of, vector_of

A, B, C = UUID(int=1), UUID(int=2), UUID(int=3)
POISON = "poison"


@dataclass
class Site:
    """A batcher over a fake encoder; ``budget`` is tokens of a batch."""

    encoder: FakeEncoder
    batcher: TokenBatcher
    tasks: list[asyncio.Task[Encoded]] = field(default_factory=list)

    def call(self, *texts: str, tenant: UUID = A, lane: Lane = Lane.INTERACTIVE) -> asyncio.Task[Encoded]:
        """Start a call."""
        tokens = [tokens_of(text) for text in texts]
        task = asyncio.create_task(self.batcher.embed(texts, tokens, tenant=tenant, lane=lane))
        self.tasks.append(task)
        return task

    async def busy(self) -> asyncio.Task[Encoded]:
        """A call that the encoder hangs on, so that what comes next has to wait."""
        self.encoder.hold()
        task = self.call("busy", tenant=UUID(int=99))
        await asyncio.to_thread(self.encoder.entered.wait, 10)
        return task

    async def settle(self) -> None:
        """Let started calls get into the queue."""
        for _ in range(3):
            await asyncio.sleep(0)


@asynccontextmanager
async def site(budget: int = 16) -> AsyncIterator[Site]:
    encoder = FakeEncoder()
    batcher = TokenBatcher(encoder.encode, DIMENSIONS, BatchBudget(budget, budget), passes=1)
    made = Site(encoder, batcher)
    try:
        yield made
    finally:
        encoder.release()
        assert await asyncio.to_thread(batcher.close)
        await asyncio.gather(*made.tasks, return_exceptions=True)


def run(test: Callable[[Site], Coroutine[Any, Any, None]], budget: int = 16) -> None:
    async def main() -> None:
        async with site(budget) as made, asyncio.timeout(60):
            await test(made)

    asyncio.run(main())


def fail_on(*bad: str, error: Callable[[], BaseException]) -> Callable[[Sequence[str]], None]:
    def fails(texts: Sequence[str]) -> None:
        if set(bad) & set(texts):
            raise error()

    return fails


def assert_right(encoded: Encoded, texts: Sequence[str]) -> None:
    assert encoded.faults == {}
    assert encoded.tokens == sum(map(tokens_of, texts))
    assert np.array_equal(encoded.vectors, [vector_of(text) for text in texts])


def words(count: int, name: str) -> str:
    return " ".join([name] * count)


@dataclass(frozen=True)
class Caller:
    texts: list[str]
    tenant: UUID
    lane: Lane
    #: Turns of the event loop before it calls, and after that before it hangs up; None stays.
    comes: int
    leaves: int | None


CALLERS = st.lists(
    st.builds(
        Caller,
        texts=st.lists(
            st.sampled_from([POISON, "same", "same same"])
            | st.integers(0, 40).map(lambda n: words(n % 9, f"t{n}")),
            max_size=12,
        ),
        tenant=st.sampled_from([A, B, C]),
        lane=st.sampled_from(Lane),
        comes=st.integers(0, 12),
        leaves=st.none() | st.integers(0, 12),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(callers=CALLERS, budget=st.integers(1, 24))
def test_each_caller_gets_its_own_vectors_in_its_own_order(callers: list[Caller], budget: int) -> None:
    async def call(made: Site, caller: Caller) -> Encoded:
        for _ in range(caller.comes):
            await asyncio.sleep(0.0005)
        task = made.call(*caller.texts, tenant=caller.tenant, lane=caller.lane)
        if caller.leaves is not None:
            for _ in range(caller.leaves):
                await asyncio.sleep(0.0005)
            task.cancel()
        return await task

    async def test(made: Site) -> None:
        made.encoder.fails = fail_on(POISON, error=ValueError)
        answers = await asyncio.gather(*(call(made, caller) for caller in callers), return_exceptions=True)
        for caller, answer in zip(callers, answers, strict=True):
            if isinstance(answer, asyncio.CancelledError):
                assert caller.leaves is not None
                continue
            assert isinstance(answer, Encoded), answer
            assert set(answer.faults) == {p for p, text in enumerate(caller.texts) if text == POISON}
            expected = [np.zeros(DIMENSIONS) if text == POISON else vector_of(text) for text in caller.texts]
            assert np.array_equal(answer.vectors, np.reshape(expected, (-1, DIMENSIONS)))
            assert answer.tokens == sum(tokens_of(text) for text in caller.texts if text != POISON)
        # A batch whose callers have all gone may still be running.
        await made.batcher.check(30)
        stats = made.batcher.stats()
        assert (stats.waiting_interactive, stats.waiting_bulk, stats.load.queued_tokens) == (0, 0, 0)

    run(test, budget)


def test_an_idle_encoder_takes_a_text_at_once_and_gathers_what_comes_meanwhile() -> None:
    async def test(made: Site) -> None:
        first = await made.busy()
        rest = [made.call(f"text {place}", tenant=tenant) for place, tenant in enumerate([A, B, C])]
        await made.settle()
        made.encoder.release()
        assert_right(await first, ["busy"])
        for place, task in enumerate(rest):
            assert_right(await task, [f"text {place}"])
        assert made.encoder.batches == [["busy"], ["text 0", "text 1", "text 2"]]

    run(test)


def test_a_batch_stays_within_its_tokens_and_a_call_longest_first() -> None:
    texts = [words(1 + place % 7, f"w{place}") for place in range(60)]

    async def test(made: Site) -> None:
        assert_right(await made.call(*texts), texts)
        assert all(sum(map(tokens_of, batch)) <= 16 for batch in made.encoder.batches)
        lengths = [tokens_of(text) for text in made.encoder.texts]
        assert lengths == sorted(lengths, reverse=True)
        assert made.batcher.stats().padding < 0.1

    run(test)


def test_a_text_larger_than_a_batch_is_one_of_its_own() -> None:
    async def test(made: Site) -> None:
        texts = ["a", words(400, "long"), "b"]
        assert_right(await made.call(*texts), texts)
        assert made.encoder.batches[0] == [texts[1]]

    run(test)


def test_a_tenant_that_floods_does_not_starve_the_others() -> None:
    """The flood may take its turns, as many tokens as the others, and no more."""
    flood = [f"{words(15, 'flood')} {place}" for place in range(400)]
    little = [f"{words(15, 'little')} {place}" for place in range(48)]

    async def test(made: Site) -> None:
        await made.busy()
        flooding = made.call(*flood, tenant=A)
        await made.settle()
        others = [made.call(*little, tenant=tenant) for tenant in (B, C)]
        await made.settle()
        made.encoder.release()
        for task in others:
            assert_right(await task, little)
        assert not flooding.done()
        assert made.batcher.stats().load.queued_tokens > 16 * 300
        # Three turns of 256 tokens each; the last turn may be under way.
        assert sum(text.startswith("flood") for text in made.encoder.texts) <= 4 * 256 / 16
        assert_right(await flooding, flood)

    run(test, budget=64)


@pytest.mark.parametrize("tenant", [A, B])
def test_one_text_does_not_wait_for_a_large_call(tenant: UUID) -> None:
    """Neither another tenant's nor its own."""
    texts = [f"{words(15, 'large')} {place}" for place in range(500)]

    async def test(made: Site) -> None:
        await made.busy()
        large = made.call(*texts, tenant=A)
        await made.settle()
        small = made.call("small", texts[400], tenant=tenant)
        await made.settle()
        made.encoder.release()
        assert_right(await small, ["small", texts[400]])
        assert not large.done()
        assert len(made.encoder.texts) < 60
        assert_right(await large, texts)
        assert made.encoder.texts.count(texts[400]) == (1 if tenant == A else 2)

    run(test, budget=64)


def test_callers_that_give_up_leave_nothing_behind() -> None:
    async def test(made: Site) -> None:
        await made.busy()
        stays = made.call("stays", "shared")
        for round_ in range(30):
            gone = [made.call(*(f"{round_} {place}" for place in range(20)), "shared") for _ in range(5)]
            await made.settle()
            for task in gone:
                task.cancel()
            await made.settle()
        assert made.batcher.stats().waiting_interactive == 2
        assert sum(type(thing) is WaitingText for thing in gc.get_objects()) < 200, "3,000 gave up"
        made.encoder.release()
        assert_right(await stays, ["stays", "shared"])
        assert made.encoder.batches == [["busy"], ["stays", "shared"]]

    run(test)


def test_bulk_waits_while_anything_interactive_does() -> None:
    bulk = [f"{words(7, 'bulk')} {place}" for place in range(40)]

    async def test(made: Site) -> None:
        await made.busy()
        job = made.call(*bulk, tenant=A, lane=Lane.BULK)
        await made.settle()
        online = [made.call(f"online {place}", tenant=A) for place in range(30)]
        await made.settle()
        assert made.batcher.stats().waiting_bulk == 40 * 8
        assert made.batcher.stats().waiting_interactive == 30 * 2
        made.encoder.release()
        await asyncio.gather(*online)
        assert not any(text.startswith("bulk") for text in made.encoder.texts[:31])
        assert_right(await job, bulk)
        assert all(len({text.split()[0] for text in batch}) == 1 for batch in made.encoder.batches)

    run(test)


def test_what_comes_during_a_bulk_job_goes_next() -> None:
    async def test(made: Site) -> None:
        made.encoder.hold()
        job = made.call(*(f"bulk {place}" for place in range(80)), lane=Lane.BULK)
        await asyncio.to_thread(made.encoder.entered.wait, 10)
        online = made.call("online")
        await made.settle()
        made.encoder.release()
        assert_right(await online, ["online"])
        assert made.encoder.batches[1] == ["online"]
        assert not job.done()
        assert_right(await job, [f"bulk {place}" for place in range(80)])

    run(test)


def test_a_cancelled_callers_texts_are_not_encoded() -> None:
    async def test(made: Site) -> None:
        await made.busy()
        gone = made.call(*(f"gone {place}" for place in range(50)))
        both = made.call("gone 7", "stays")
        await made.settle()
        gone.cancel()
        await made.settle()
        assert made.batcher.stats().waiting_interactive == 2 + 1
        made.encoder.release()
        assert_right(await both, ["gone 7", "stays"])
        assert sorted(made.encoder.texts) == ["busy", "gone 7", "stays"]
        with pytest.raises(asyncio.CancelledError):
            await gone

    run(test)


def test_a_caller_that_hangs_up_as_its_batch_is_made_is_left_out() -> None:
    async def test(made: Site) -> None:
        await made.busy()
        gone = made.call("gone")
        stays = made.call("stays", tenant=B)
        await made.settle()
        made.encoder.release()
        gone.cancel()  # its task has not run yet when the next batch is taken
        assert_right(await stays, ["stays"])
        assert "gone" not in made.encoder.texts

    run(test)


def test_equal_texts_of_one_tenant_are_encoded_once_and_counted_for_each_call() -> None:
    async def test(made: Site) -> None:
        await made.busy()
        first, second = made.call("same text", "one", "same text"), made.call("two", "same text")
        other = made.call("same text", tenant=B)
        await made.settle()
        made.encoder.release()
        assert_right(await first, ["same text", "one", "same text"])
        assert_right(await second, ["two", "same text"])
        assert_right(await other, ["same text"])
        assert made.encoder.texts.count("same text") == 2

    run(test)


@pytest.mark.parametrize("error", [ValueError, OSError, Panic, lambda: ItemError("refused")])
def test_a_text_that_makes_the_encoder_raise_fails_alone(error: Callable[[], BaseException]) -> None:
    async def test(made: Site) -> None:
        await made.busy()
        made.encoder.fails = fail_on("bad one", "worse", error=error)
        mixed = made.call("fine", "bad one", "good")
        others = [made.call(f"other {place}", tenant=B) for place in range(5)]
        only = made.call("worse", tenant=C)
        await made.settle()
        made.encoder.release()
        encoded = await mixed
        assert set(encoded.faults) == {1}
        assert np.array_equal(encoded.vectors[[0, 2]], [vector_of("fine"), vector_of("good")])
        assert not encoded.vectors[1].any()
        assert encoded.tokens == 2
        assert set((await only).faults) == {0}
        for place, task in enumerate(others):
            assert_right(await task, [f"other {place}"])

    run(test)


def test_an_encoder_that_raises_always_charges_no_text_and_may_recover() -> None:
    async def test(made: Site) -> None:
        def broken(texts: Sequence[str]) -> None:
            raise RuntimeError("the driver's own words")

        made.encoder.fails = broken
        tasks = [made.call(*(f"{tenant} {place}" for place in range(8)), tenant=tenant) for tenant in (A, B)]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ProviderUnavailable] * 2
        assert "own words" not in str(answers)
        assert len(made.encoder.batches) <= 6, "it must not be tried for each text"
        with pytest.raises(ProviderUnavailable):
            await made.batcher.check(10)
        made.encoder.fails = lambda texts: None
        assert_right(await made.call("well again"), ["well again"])
        await made.batcher.check(10)

    run(test)


def test_an_outage_goes_to_every_caller_of_the_batch_and_to_no_other() -> None:
    async def test(made: Site) -> None:
        await made.busy()
        made.encoder.fails = fail_on("trigger", error=lambda: ProviderUnavailable("out", retry_after=3))
        large = made.call("trigger", *(f"{place}" for place in range(40)), tenant=A)
        small = made.call("small", tenant=B)
        late = made.call(*(f"late {place}" for place in range(40)), tenant=C)
        await made.settle()
        made.encoder.release()
        answers = await asyncio.gather(large, return_exceptions=True)
        error = answers[0]
        assert isinstance(error, ProviderUnavailable)
        assert error.retry_after == 3
        await asyncio.gather(small, return_exceptions=True)
        assert_right(await late, [f"late {place}" for place in range(40)])
        # What the failed call still had waiting was dropped.
        failed = next(place for place, batch in enumerate(made.encoder.batches) if "trigger" in batch)
        assert not any(text.isdigit() for batch in made.encoder.batches[failed + 1 :] for text in batch)
        assert_right(await made.call("trig", "ger"), ["trig", "ger"])

    run(test)


def test_callers_do_not_share_an_error() -> None:
    async def test(made: Site) -> None:
        await made.busy()
        made.encoder.fails = fail_on("a", error=lambda: ProviderUnavailable("out"))
        tasks = [made.call("a", tenant=A), made.call("b", tenant=B)]
        await made.settle()
        made.encoder.release()
        first, second = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(first, ProviderUnavailable)
        assert isinstance(second, ProviderUnavailable)
        assert first is not second

    run(test)


def test_an_encoder_that_cannot_be_loaded_says_so_to_every_caller() -> None:
    async def test(made: Site) -> None:
        made.encoder.fails = fail_on("a", error=lambda: ConfigError("no such model"))
        with pytest.raises(ConfigError, match="no such model"):
            await made.call("a")

    run(test)


@pytest.mark.parametrize(
    "answer",
    [
        correct(["one too few"]),
        Encoded(np.zeros((2, DIMENSIONS + 1), np.float32), [1, 1]),
        Encoded(np.zeros((2, DIMENSIONS), np.float32), [1]),
    ],
)
def test_an_answer_of_the_wrong_shape_is_never_handed_out(answer: Encoded) -> None:
    async def test(made: Site) -> None:
        made.encoder.fails = lambda texts: answer
        with pytest.raises(ProviderUnavailable, match="expected"):
            await made.call("a", "b")
        made.encoder.fails = lambda texts: None
        assert_right(await made.call("a", "b"), ["a", "b"])

    run(test)


def test_a_vector_that_is_not_finite_is_its_own_texts_fault() -> None:
    async def test(made: Site) -> None:
        def spoil(texts: Sequence[str]) -> Encoded:
            right = correct(texts)
            for row, text in enumerate(texts):
                if text == "bad":
                    right.vectors[row, 3] = np.nan
            return right

        made.encoder.fails = spoil
        encoded = await made.call("good", "bad", "fine")
        assert set(encoded.faults) == {1}
        assert not encoded.vectors[1].any()
        assert np.isfinite(encoded.vectors).all()
        assert encoded.tokens == 2

    run(test)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_encoders_thread_ends_every_caller_is_told() -> None:
    async def test(made: Site) -> None:
        await made.busy()
        made.encoder.fails = fail_on("die", error=SystemExit)
        tasks = [made.call("die", tenant=A), made.call(*(f"{place}" for place in range(40)), tenant=B)]
        await made.settle()
        made.encoder.release()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ProviderUnavailable] * 2
        for _ in range(2):
            with pytest.raises(ProviderUnavailable, match="thread has ended"):
                await made.batcher.check(10)
            with pytest.raises(ProviderUnavailable, match="thread has ended"):
                await made.call("too late")

    run(test)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_waits_for_the_thread_is_told_when_it_ends() -> None:
    async def test(made: Site) -> None:
        await made.busy()
        made.encoder.fails = fail_on("busy", error=SystemExit)
        warming_up = asyncio.create_task(made.batcher.warm_up(["warm up"], [2]))
        await made.settle()
        made.encoder.release()
        with pytest.raises(ProviderUnavailable, match="thread has ended"):
            await warming_up

    run(test)


def test_an_answer_that_makes_no_sense_at_all_keeps_nobody_waiting() -> None:
    async def test(made: Site) -> None:
        made.encoder.fails = lambda texts: replace(correct(texts), faults=cast(Any, None))
        with pytest.raises(ProviderUnavailable):
            await made.call("a")
        made.encoder.fails = lambda texts: None
        assert_right(await made.call("a"), ["a"])

    run(test)


def test_a_check_finds_an_encoder_that_hangs_and_tells_whoever_waits() -> None:
    async def test(made: Site) -> None:
        hanging = await made.busy()
        waiting = made.call("waits", tenant=B)
        job = made.call("job", tenant=B, lane=Lane.BULK)
        await made.settle()
        with pytest.raises(ProviderUnavailable, match="has not answered"):
            await made.batcher.check(0.05)
        for task in (hanging, waiting, job):
            with pytest.raises(ProviderUnavailable, match="has not answered"):
                await task
        with pytest.raises(ProviderUnavailable):
            await made.call("refused at once")
        with pytest.raises(ProviderUnavailable):
            await made.batcher.check(0.05)
        made.encoder.release()
        await made.batcher.check(10)
        assert_right(await made.call("well again"), ["well again"])
        assert "waits" not in made.encoder.texts

    run(test)


def test_a_check_does_not_wait_for_the_queue() -> None:
    async def test(made: Site) -> None:
        await made.busy()
        queue = [made.call(*(f"{lane} {place}" for place in range(200)), lane=lane) for lane in Lane]
        await made.settle()
        checks = [asyncio.create_task(made.batcher.check(30)) for _ in range(3)]
        await made.settle()
        made.encoder.release()
        await asyncio.gather(*checks)
        assert made.encoder.batches[:2] == [["busy"], [PROBE]]
        assert not any(task.done() for task in queue)

    run(test)


def test_a_check_fails_when_the_probe_does() -> None:
    async def test(made: Site) -> None:
        made.encoder.fails = lambda texts: Encoded(
            np.zeros((1, DIMENSIONS), np.float32), [0], {0: ItemError("no")}
        )
        with pytest.raises(ProviderUnavailable, match="harmless text"):
            await made.batcher.check(10)

    run(test)


def test_close_answers_whoever_waits_and_ends_the_thread() -> None:
    async def test(made: Site) -> None:
        running = await made.busy()
        waiting = [made.call(f"{place}", tenant=tenant) for place, tenant in enumerate([A, B])]
        checking = asyncio.create_task(made.batcher.check(30))
        await made.settle()
        assert not made.batcher.close(wait=0.01), "the encoder still hangs"
        for task in (running, *waiting, checking):
            with pytest.raises(ProviderUnavailable, match="closed"):
                await task
        made.encoder.release()
        assert await asyncio.to_thread(made.batcher.close)
        assert not [thread for thread in threading.enumerate() if thread.name == "rowbeam-encoder"]
        with pytest.raises(ProviderUnavailable, match="closed"):
            await made.call("too late")
        with pytest.raises(ProviderUnavailable, match="closed"):
            await made.batcher.check(1)

    run(test)


def test_close_from_another_thread_answers_whoever_waits() -> None:
    async def test(made: Site) -> None:
        running = await made.busy()
        assert not await asyncio.to_thread(made.batcher.close, 0.01)
        with pytest.raises(ProviderUnavailable, match="closed"):
            await running

    run(test)


def test_it_can_be_used_from_one_event_loop_after_another() -> None:
    encoder = FakeEncoder()
    batcher = TokenBatcher(encoder.encode, DIMENSIONS, BatchBudget(8, 8))

    async def call(text: str) -> Encoded:
        return await batcher.embed([text], [1], tenant=A, lane=Lane.INTERACTIVE)

    async def cut_off() -> None:
        encoder.hold()
        asyncio.create_task(call("left behind"))  # noqa: RUF006 - the loop ends before it does
        await asyncio.to_thread(encoder.entered.wait, 10)

    try:
        assert_right(asyncio.run(call("first")), ["first"])
        asyncio.run(cut_off())
        assert batcher.stats().load.queued_tokens == 0
        encoder.release()
        assert_right(asyncio.run(call("second")), ["second"])
    finally:
        encoder.release()
        assert batcher.close()


def test_the_numbers_add_up() -> None:
    async def test(made: Site) -> None:
        await made.batcher.warm_up(["warm up"], [2])
        assert made.batcher.stats().load.tokens_per_second > 0
        assert made.batcher.stats().batches == 0
        await made.busy()
        task = made.call("one two three", "one")
        await made.settle()
        assert made.batcher.stats().load.queued_tokens == 1 + 4, "what is being encoded is counted"
        made.encoder.release()
        await task
        stats = made.batcher.stats()
        assert (stats.batches, stats.texts, stats.tokens, stats.padded_tokens) == (2, 3, 5, 7)
        assert stats.texts_per_batch == 1.5
        assert stats.padding == pytest.approx(2 / 7)
        assert stats.load.wait == 0

    run(test)


def test_no_texts_are_answered_without_the_encoder() -> None:
    async def test(made: Site) -> None:
        encoded = await made.call()
        assert encoded.vectors.shape == (0, DIMENSIONS)
        assert made.encoder.batches == []

    run(test)
