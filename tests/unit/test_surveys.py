"""Turns for what reads whole tables: bounded, shared out by tenant, and kept when a client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from ray_app.api.surveys import Surveys
from ray_app.tenants import Placement, Tenant, TenantState


def tenant(name: str) -> Tenant:
    return Tenant(uuid4(), name, 1, Placement.EMBEDDED, TenantState.ACTIVE, datetime.now(UTC))


class Desk:
    """Surveys that end when they are told to."""

    def __init__(self, surveys: Surveys) -> None:
        self._surveys = surveys
        self.begun: list[str] = []
        self.running: set[str] = set()
        self._ends: dict[str, asyncio.Event] = {}

    def ask(self, owner: Tenant, name: str) -> asyncio.Task[str]:
        async def survey() -> str:
            self.begun.append(name)
            self.running.add(name)
            await self._ends[name].wait()
            self.running.discard(name)
            return name

        self._ends[name] = asyncio.Event()
        return asyncio.create_task(self._surveys.run(owner, survey))

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 10))


def test_a_tenants_next_survey_stands_behind_those_of_others() -> None:
    async def scene() -> None:
        desk, acme = Desk(Surveys(2)), tenant("acme")
        asked = [desk.ask(acme, f"acme {number}") for number in range(5)]
        await settle()
        assert desk.begun == ["acme 0"], "one at a time"
        others = [desk.ask(tenant(name), name) for name in ("globex", "initech")]
        await settle()
        assert desk.running == {"acme 0", "globex"}, "two at once"
        await desk.end("acme 0")
        assert desk.running == {"globex", "initech"}, "the others come before acme's second"
        await desk.end("globex")
        assert desk.running == {"initech", "acme 1"}
        for name in ("initech", *(f"acme {number}" for number in range(1, 5))):
            await desk.end(name)
        assert [await task for task in asked] == [f"acme {number}" for number in range(5)]
        assert [await task for task in others] == ["globex", "initech"]

    run(scene())


def test_a_client_that_hangs_up_in_the_line_leaves_it() -> None:
    async def scene() -> None:
        desk, acme = Desk(Surveys(1)), tenant("acme")
        first, second = desk.ask(acme, "first"), desk.ask(acme, "second")
        third, fourth = desk.ask(tenant("globex"), "third"), desk.ask(tenant("initech"), "fourth")
        await settle()
        for gone in (second, third):
            gone.cancel()
        await settle()
        await desk.end("first")
        assert desk.begun == ["first", "fourth"]
        await desk.end("fourth")
        assert (await first, await fourth) == ("first", "fourth")
        assert second.cancelled()
        assert third.cancelled()

    run(scene())


def test_a_survey_keeps_its_turn_when_its_client_hangs_up() -> None:
    async def scene() -> None:
        desk, acme = Desk(Surveys(2)), tenant("acme")
        asked = []
        for number in range(4):
            asked.append(desk.ask(acme, str(number)))
            await settle()
            asked[-1].cancel()
            await settle()
        assert desk.running == {"0"}, "hanging up and asking again does not double the work"
        await desk.end("0")
        last = desk.ask(acme, "last")
        await settle()
        await desk.end("last")
        assert await last == "last"

    run(scene())


def test_a_survey_that_fails_gives_its_turn_back() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def scene() -> None:
        surveys, acme = Surveys(1), tenant("acme")
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await surveys.run(acme, fail)

    run(scene())
