"""Turns for what reads whole tables, such as a plan: few at once, and one at a time of each tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from ray_app.tenants import Tenant

T = TypeVar("T")

#: Of the server's threads, so that most are left for what is quick.
AT_ONCE: Final = 2


class Surveys:
    """Runs surveys in the order they came, a tenant's next one behind those of all others.

    A caller that hangs up while it waits leaves the line. Once begun, a survey keeps its turn to
    its end, whoever still waits for it: its thread cannot be stopped, and must not be doubled.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._slots = asyncio.Semaphore(at_once)
        #: A tenant's lock lives as long as somebody holds it or waits for it.
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, tenant: Tenant, survey: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer of ``survey``, which is called when it is its turn."""
        turn = self._turns.setdefault(tenant.incarnation, asyncio.Lock())
        await turn.acquire()
        try:
            await self._slots.acquire()
        except BaseException:
            turn.release()
            raise

        def end(task: asyncio.Task[T]) -> None:
            self._running.discard(task)
            self._slots.release()
            turn.release()
            if not task.cancelled():
                task.exception()  # seen, so that asyncio does not report it for a client that hung up

        task = asyncio.create_task(survey())
        self._running.add(task)
        task.add_done_callback(end)
        return await asyncio.shield(task)
