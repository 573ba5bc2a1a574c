"""Calls that block: in a bounded number of threads, whatever their callers do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from ray_app.api.services import THREADS, Services

PARTS = ("workspace", "store", "backend", "admission", "authenticator", "usage", "jobs", "options")
WORD: ContextVar[str] = ContextVar("word", default="none")


@pytest.fixture
def services() -> Iterator[Services]:
    """Without parts: none is used here."""
    made: Any = Services(**dict.fromkeys(PARTS))  # type: ignore[arg-type]
    yield made
    made.threads.shutdown()


class Work:
    """Calls that wait until they are let go, and count themselves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._go = threading.Event()
        self.begun = 0
        self.running = 0

    def __call__(self) -> int:
        with self._lock:
            self.begun += 1
            self.running += 1
        assert self._go.wait(20)
        with self._lock:
            self.running -= 1
            return self.begun

    def let_go(self) -> None:
        self._go.set()

    async def reach(self, begun: int) -> None:
        for _ in range(2000):
            if self.begun >= begun:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.begun} of {begun} calls have begun")


def test_callers_that_hang_up_make_no_more_threads_and_no_more_calls(services: Services) -> None:
    work = Work()

    async def scene() -> None:
        for _ in range(3 * THREADS):
            caller = asyncio.create_task(services.in_thread(work))
            await asyncio.sleep(0.01)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        last = asyncio.create_task(services.in_thread(work))
        await work.reach(THREADS)
        assert work.running == THREADS
        work.let_go()
        await last
        assert work.begun == THREADS + 1, "those that hung up in the line were never called"

    asyncio.run(scene())


def test_a_call_has_its_callers_context_and_answers_or_raises(services: Services) -> None:
    def say(count: int, *, word: str) -> str:
        return f"{WORD.get()} {word}" * count

    async def scene() -> None:
        WORD.set("request-7")
        assert await services.in_thread(say, 1, word="done") == "request-7 done"
        with pytest.raises(ZeroDivisionError):
            await services.in_thread(lambda: 1 // 0)

    asyncio.run(scene())
