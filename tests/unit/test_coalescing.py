"""Small calls of one tenant are sent as one while another is under way, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.encoders.stub import STUB_SPACE
from ray_app.errors import ItemError, ProviderUnavailable
from ray_app.providers.port import Embedded
from ray_app.serving.coalescing import GROUP_TEXTS, GROUP_TOKENS, SMALL_TEXTS, CoalescingTarget
from ray_app.serving.port import EmbedCall, Lane, Purpose
from ray_app.spaces import EmbeddingSpace

TENANT = uuid4()


class Gated:
    """A target that answers when it is let; the vector of text "7" begins with 7, and has 7 tokens."""

    name = "gated"
    space: EmbeddingSpace = STUB_SPACE

    def __init__(self) -> None:
        self.calls: list[EmbedCall] = []
        self.cancelled: list[EmbedCall] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def embed(self, call: EmbedCall) -> Embedded:
        self.calls.append(call)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(call)
            raise
        if self.error is not None:
            raise self.error
        vectors = np.zeros((len(call.texts), self.space.dimensions), np.float32)
        vectors[:, 0] = [float(text) for text in call.texts]
        faults = {place: ItemError("no") for place, text in enumerate(call.texts) if text == "13"}
        counts = [int(text) for text in call.texts]
        return Embedded(vectors, sum(counts), faults=faults, counts=counts)

    async def check(self) -> None: ...


def call_of(
    texts: Sequence[str], tokens: int = 5, tenant: UUID = TENANT, lane: Lane = Lane.INTERACTIVE
) -> EmbedCall:
    return EmbedCall(STUB_SPACE, texts, [tokens] * len(texts), tenant, lane=lane)


async def sent(target: Gated, calls: int) -> None:
    async with asyncio.timeout(10):
        while len(target.calls) < calls:
            await asyncio.sleep(0.001)


async def beside_one(target: Gated, calls: Sequence[EmbedCall]) -> list[asyncio.Task[Embedded]]:
    """The calls under way, the first one sent already. Answered when the target is opened."""
    front = CoalescingTarget(target)
    first = asyncio.create_task(front.embed(calls[0]))
    await sent(target, 1)
    return [first, *(asyncio.create_task(front.embed(call)) for call in calls[1:])]


def test_a_call_with_nothing_under_way_is_sent_at_once_and_as_it_is() -> None:
    async def check() -> None:
        target = Gated()
        target.open.set()
        call = call_of(["1"])
        await CoalescingTarget(target).embed(call)
        assert target.calls == [call]

    asyncio.run(check())


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=SMALL_TEXTS), min_size=1, max_size=12))
def test_everyone_gets_the_own_texts_answers(requests: list[list[int]]) -> None:
    async def check() -> None:
        target = Gated()
        calls = [call_of([str(number) for number in numbers]) for numbers in [[1], *requests]]
        tasks = await beside_one(target, calls)
        target.open.set()
        for numbers, task in zip(requests, tasks[1:], strict=True):
            answer = await task
            assert answer.vectors[:, 0].tolist() == numbers
            assert answer.tokens == sum(numbers)
            assert list(answer.counts) == numbers
            assert sorted(answer.faults) == [place for place, number in enumerate(numbers) if number == 13]
        for call in target.calls:
            assert len(call.texts) == len(call.tokens) <= GROUP_TEXTS
            assert call.total_tokens <= GROUP_TOKENS

    asyncio.run(check())


def test_what_comes_while_one_is_under_way_goes_together() -> None:
    async def check() -> None:
        target = Gated()
        tasks = await beside_one(target, [call_of([str(number)]) for number in range(1, 7)])
        await sent(target, 2)
        target.open.set()
        await asyncio.gather(*tasks)
        assert [len(call.texts) for call in target.calls] == [1, 5]

    asyncio.run(check())


@pytest.mark.parametrize(
    "other",
    [
        call_of(["2"], tenant=uuid4()),
        replace(call_of(["2"]), purpose=Purpose.QUERY),
        replace(call_of(["2"]), table="issues"),
        call_of(["2"], lane=Lane.BULK),
        call_of(["2"] * (SMALL_TEXTS + 1)),
        call_of(["2"], tokens=600),
    ],
)
def test_what_is_of_another_kind_or_large_goes_alone(other: EmbedCall) -> None:
    async def check() -> None:
        target = Gated()
        tasks = await beside_one(target, [call_of(["1"]), call_of(["1"]), other])
        await sent(target, 3)
        assert other in [replace(call, texts=other.texts, tokens=other.tokens) for call in target.calls[1:]]
        assert sorted(len(call.texts) for call in target.calls) == sorted([1, 1, len(other.texts)])
        target.open.set()
        await asyncio.gather(*tasks)

    asyncio.run(check())


def test_a_failure_reaches_everyone_with_an_error_of_its_own() -> None:
    async def check() -> None:
        target = Gated()
        tasks = await beside_one(target, [call_of([str(number)]) for number in range(1, 5)])
        target.error = ProviderUnavailable("It is gone.", retry_after=3)
        target.open.set()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(error) for error in errors] == [str(target.error)] * 4
        assert len(set(map(id, errors[1:]))) == 3
        assert {error.retry_after for error in errors if isinstance(error, ProviderUnavailable)} == {3}

    asyncio.run(check())


def test_a_defect_of_the_target_leaves_nobody_waiting() -> None:
    async def check() -> None:
        target = Gated()
        tasks = await beside_one(target, [call_of(["1"]), call_of(["2"])])
        target.error = RuntimeError("a defect")
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        target.open.set()
        async with asyncio.timeout(10):
            errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(errors[1], ProviderUnavailable)

    asyncio.run(check())


def test_a_caller_that_gives_up_costs_the_others_nothing() -> None:
    async def check() -> None:
        target = Gated()
        tasks = await beside_one(target, [call_of(["1"]), call_of(["2"]), call_of(["3"])])
        await sent(target, 2)
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert not target.cancelled
        target.open.set()
        assert (await tasks[2]).vectors[0, 0] == 3

    asyncio.run(check())


def test_a_call_that_all_gave_up_is_given_up() -> None:
    async def check() -> None:
        target = Gated()
        tasks = await beside_one(target, [call_of(["1"]), call_of(["2"]), call_of(["3"])])
        await sent(target, 2)
        for task in tasks[1:]:
            task.cancel()
        async with asyncio.timeout(10):
            while not target.cancelled:
                await asyncio.sleep(0.001)
        assert [list(call.texts) for call in target.cancelled] == [["2", "3"]]
        target.open.set()
        await tasks[0]

    asyncio.run(check())
