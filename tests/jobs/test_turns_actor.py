"""The turns actor as a plain object in virtual time: who waits is answered, the dead keep nothing."""

from __future__ import annotations

import asyncio

from ray_app.actors.turns import BEAT, TurnsActor
from ray_app.turns import LEASE, Ask
from tests.support.virtual_time import run_virtual


def test_a_killed_worker_keeps_neither_its_turn_nor_its_place() -> None:
    async def main() -> list[str]:
        actor = TurnsActor(now=asyncio.get_running_loop().time)
        done: list[str] = []

        async def take(name: str, worker: str) -> None:
            await actor.take("stub", 1, Ask(name, worker, 10, worker))
            done.append(name)

        await take("killed holds", "killed")
        zombie = asyncio.create_task(take("killed waits", "killed"))
        alive = asyncio.create_task(take("alive", "alive"))
        for _ in range(int(LEASE / BEAT) + 2):
            await asyncio.sleep(BEAT)
            await actor.hear("stub", "alive")
        await asyncio.wait_for(alive, 1)
        await zombie  # it ends: nobody waits for it
        assert await actor.waiting() == {"stub": {}}
        return done

    assert "alive" in run_virtual(main())


def test_one_resource_does_not_wait_for_another_and_a_larger_job_raises_the_capacity() -> None:
    async def main() -> None:
        actor = TurnsActor(now=asyncio.get_running_loop().time)
        await actor.take("gateway", 1, Ask("g", "a", 10, "w"))
        await actor.take("stub", 1, Ask("s0", "a", 10, "w"))
        await actor.take("stub", 2, Ask("s1", "b", 10, "v"))
        waits = asyncio.create_task(actor.take("stub", 1, Ask("s2", "b", 10, "v")))
        await asyncio.sleep(0)
        assert await actor.waiting() == {"gateway": {}, "stub": {"b": 1}}
        await actor.give_back("stub", "s0")
        await asyncio.wait_for(waits, 1)

    run_virtual(main())
