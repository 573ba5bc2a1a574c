"""A lone short text is embedded in the router; everything else, and everything when that fails, is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

import numpy as np
import pytest

from ray_app.encoders.stub import STUB_SPACE
from ray_app.errors import ProviderUnavailable
from ray_app.providers.port import Embedded
from ray_app.serving import nearby
from ray_app.serving.nearby import NearbyTarget
from ray_app.serving.port import EmbedCall, Lane
from ray_app.spaces import EmbeddingSpace

TENANT = uuid4()
MAX_TOKENS = 10


class Place:
    """A target that notes what it is sent, and answers when it is let."""

    name = "place"
    space: EmbeddingSpace = STUB_SPACE

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.down: Exception | None = None

    async def embed(self, call: EmbedCall) -> Embedded:
        self.texts.extend(call.texts)
        await self.open.wait()
        if self.down is not None:
            raise self.down
        return Embedded(np.ones((len(call.texts), self.space.dimensions), np.float32), call.total_tokens)

    async def check(self) -> None:
        if self.down is not None:
            raise self.down


class World:
    def __init__(self) -> None:
        self.far, self.near = Place(), Place()
        self.target = NearbyTarget(self.far, self.near, max_tokens=MAX_TOKENS)

    async def ask(self, *texts: str, tokens: int = 5, lane: Lane = Lane.INTERACTIVE) -> Embedded:
        return await self.target.embed(EmbedCall(STUB_SPACE, texts, [tokens] * len(texts), TENANT, lane=lane))

    async def ready(self) -> None:
        """Ask until the copy answers."""
        async with asyncio.timeout(10):
            while not self.near.texts:
                await self.ask("warm")
                await asyncio.sleep(0)
        self.near.texts.clear()
        self.far.texts.clear()


def in_a_world(check: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        await check(World())

    asyncio.run(run())


def test_a_lone_short_text_stays_here_and_the_first_ones_do_not() -> None:
    async def check(world: World) -> None:
        await world.ask("first")
        assert (world.far.texts, world.near.texts) == (["first"], [])
        await world.ready()
        answer = await world.ask("short")
        assert answer.vectors.shape == (1, STUB_SPACE.dimensions)
        assert (world.far.texts, world.near.texts) == ([], ["short"])

    in_a_world(check)


@pytest.mark.parametrize(
    ("texts", "tokens", "lane"),
    [
        (["a", "b"], 1, Lane.INTERACTIVE),
        (["long"], MAX_TOKENS + 1, Lane.INTERACTIVE),
        (["of a job"], 1, Lane.BULK),
    ],
)
def test_everything_else_goes_to_the_replicas(texts: Sequence[str], tokens: int, lane: Lane) -> None:
    async def check(world: World) -> None:
        await world.ready()
        await world.ask(*texts, tokens=tokens, lane=lane)
        assert (world.far.texts, world.near.texts) == (list(texts), [])

    in_a_world(check)


@pytest.mark.parametrize("first_is_near", [True, False])
def test_what_comes_beside_something_else_goes_to_the_replicas(first_is_near: bool) -> None:
    async def check(world: World) -> None:
        await world.ready()
        busy = world.near if first_is_near else world.far
        busy.open.clear()
        first = asyncio.create_task(world.ask("first", tokens=1 if first_is_near else MAX_TOKENS + 1))
        while not busy.texts:
            await asyncio.sleep(0)
        second = asyncio.create_task(world.ask("second"))
        while "second" not in world.far.texts:
            await asyncio.sleep(0)
        busy.open.set()
        await asyncio.gather(first, second)
        await world.ask("third")
        assert world.near.texts == (["first"] if first_is_near else []) + ["third"]

    in_a_world(check)


def test_a_copy_that_fails_is_not_asked_again_and_nobody_notices() -> None:
    async def check(world: World) -> None:
        await world.ready()
        world.near.down = ProviderUnavailable("broken")
        await world.ask("one")
        await world.ask("two")
        assert (world.near.texts, world.far.texts) == (["one"], ["one", "two"])

    in_a_world(check)


def test_a_copy_that_is_stuck_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(world: World) -> None:
        await world.ready()
        monkeypatch.setattr(nearby, "PATIENCE", 0.05)
        world.near.open.clear()
        await world.ask("one")
        await world.ask("two")
        assert (world.near.texts, world.far.texts) == (["one"], ["one", "two"])

    in_a_world(check)


def test_a_copy_that_cannot_be_loaded_is_never_used() -> None:
    async def check(world: World) -> None:
        world.near.down = ProviderUnavailable("not converted here")
        for _ in range(20):
            await world.ask("text")
            await asyncio.sleep(0)
        assert not world.near.texts

    in_a_world(check)


def test_a_caller_that_gives_up_leaves_the_copy_in_use() -> None:
    async def check(world: World) -> None:
        await world.ready()
        world.near.open.clear()
        asking = asyncio.create_task(world.ask("given up"))
        while not world.near.texts:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        world.near.open.set()
        await world.ask("next")
        assert world.near.texts == ["given up", "next"]

    in_a_world(check)


def test_the_check_is_the_replicas_own() -> None:
    async def check(world: World) -> None:
        await world.ready()
        world.far.down = ProviderUnavailable("gone")
        with pytest.raises(ProviderUnavailable, match="gone"):
            await world.target.check()

    in_a_world(check)
