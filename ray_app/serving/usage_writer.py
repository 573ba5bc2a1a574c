"""Writing usage before callers are answered: one transaction for all that finish at about the same time."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ray_app.errors import DatabaseUnavailable
from ray_app.serving.usage_log import UsageLog

logger: Final = logging.getLogger(__name__)

#: Seconds between tries while the ledger is down.
RETRY: Final = 5.0


class UsageWriter:
    """Flushes a ``UsageLog`` for callers on one event loop.

    While the ledger is down callers are not held up, and what they spent stays in memory until it
    is back: an answer that is paid for is worth more than its record, and the memory still counts
    against budgets. It is lost if the process ends first, which the log then says.
    """

    def __init__(self, log: UsageLog, retry: float = RETRY) -> None:
        self._log = log
        self._retry_seconds = retry
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._retry: asyncio.Task[None] | None = None

    async def flush(self) -> None:
        """Return when everything added before is in the ledger, or the ledger is known to be down."""
        if self._retry is not None:
            return
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
        await asyncio.shield(self._next)

    async def close(self) -> None:
        """Write what is left; what cannot be written is lost, and logged."""
        if self._retry is not None:
            self._retry.cancel()
        if self._running is not None:
            await asyncio.wait([self._running])
        try:
            await asyncio.to_thread(self._log.flush)
        except DatabaseUnavailable as error:
            logger.error("Usage that was not recorded yet is lost: %s", error)

    async def _after(self, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        # From here on what is added may be too late for this transaction.
        self._running, self._next = self._next, None
        try:
            await asyncio.to_thread(self._log.flush)
        except DatabaseUnavailable as error:
            logger.warning("Usage cannot be recorded and is kept in memory: %s", error)
            if self._retry is None:
                self._retry = asyncio.create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        while True:
            await asyncio.sleep(self._retry_seconds)
            try:
                await asyncio.to_thread(self._log.flush)
            except DatabaseUnavailable:
                continue
            self._retry = None
            return
