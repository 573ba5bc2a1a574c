"""Keeping the embedded Postgres alive while a server runs on it."""

from __future__ import annotations

import asyncio
import logging

from ray_app.errors import DatabaseUnavailable
from ray_app.stack.embedded import Stack
from ray_app.workspace import Workspace

log = logging.getLogger("ray_app.router")


async def keep_database(workspace: Workspace, period: float = 5.0) -> None:
    """Look every ``period`` seconds whether the ledger answers; start its embedded server again if not."""
    stack = Stack(workspace.settings)
    while True:
        await asyncio.sleep(period)
        try:
            await asyncio.to_thread(_ask, workspace)
        except DatabaseUnavailable as error:
            log.warning("Starting Postgres again: %s", error)
            try:
                await asyncio.to_thread(stack.revive)
            except DatabaseUnavailable as failure:
                log.error("Postgres does not start: %s", failure)  # tried again after the next period


def _ask(workspace: Workspace) -> None:
    """Raises DatabaseUnavailable."""
    workspace.ledger.connect().close()
