"""What the console's routes work with, made once for a server."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Depends, Request

from ray_app.api.console.coverage_desk import CoverageDesk
from ray_app.api.services import Services
from ray_app.console.alerts import Observations
from ray_app.console.login_attempts import LoginAttempts
from ray_app.console.sessions import Sessions
from ray_app.reports import Check

T = TypeVar("T")

#: What sessions are signed for, so that their key is nobody else's.
_PURPOSE: Final = "console sessions"
#: Seconds for which an answer that costs calls of other processes serves every page that asks.
OBSERVED: Final = 5.0
CHECKED: Final = 30.0
#: Seconds that a page waits for a newer answer than the one it has.
_PATIENCE: Final = 1.0


class Remembered(Generic[T]):
    """The last answer, while it is fresh, and for longer while the next one keeps a page waiting.

    Used on one event loop; ``clock`` counts seconds and never goes back.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._kept: tuple[float, T] | None = None
        self._asking: asyncio.Task[T] | None = None

    async def get(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Raises what ``ask`` does, when that is known in time."""
        kept = self._kept
        if kept is not None and self._clock() - kept[0] <= self._seconds:
            return kept[1]
        if self._asking is None:
            self._asking = asyncio.create_task(ask())
            self._asking.add_done_callback(self._take)
        asking = self._asking
        await asyncio.wait([asking], timeout=None if kept is None else _PATIENCE)
        return asking.result() if asking.done() or kept is None else kept[1]

    def _take(self, asked: asyncio.Task[T]) -> None:
        self._asking = None
        if not asked.cancelled() and asked.exception() is None:
            self._kept = self._clock(), asked.result()


@dataclass
class Console:
    """The console of one router."""

    services: Services
    coverage: CoverageDesk
    attempts: LoginAttempts = field(default_factory=LoginAttempts)
    observations: Remembered[Observations] = field(default_factory=lambda: Remembered(OBSERVED))
    checks: Remembered[list[Check]] = field(default_factory=lambda: Remembered(CHECKED))
    _sessions: Sessions | None = None

    @classmethod
    def of(cls, services: Services) -> Console:
        return cls(services, CoverageDesk(services))

    async def sessions(self) -> Sessions:
        """Sessions under a key that follows from the deployment's secret, which all routers read in the
        ledger, and the admin key: another admin key ends every session.

        Raises:
            DatabaseUnavailable: the ledger cannot be asked; it is, once.
        """
        if self._sessions is None:
            registry = self.services.workspace.registry
            secret = await self.services.in_thread(registry.derived_secret, _PURPOSE)
            digest = self.services.authenticator.admin_digest
            self._sessions = Sessions(hmac.digest(secret, digest, "sha256"))
        return self._sessions


async def console_of(request: Request) -> Console:
    """For FastAPI, which calls what is not async in a thread."""
    console: Console = request.app.state.console
    return console


FromConsole = Annotated[Console, Depends(console_of)]
