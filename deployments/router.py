"""The ingress: the HTTP API in front of the providers' deployments."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from ray.serve.handle import DeploymentHandle

from deployments.draining import DrainGate
from deployments.keeping import keep_database
from deployments.logs import ServeLogHandler
from deployments.loopback import listen_on_loopback
from deployments.server import open_services
from deployments.shortcut import Piece, Request, answer_pieces
from ray_app.actors.metrics import export_metrics
from ray_app.api.app import create_api
from ray_app.logs import configure_logs
from ray_app.metrics.declared import HTTP_IN_PROGRESS
from ray_app.reporting import Reporter
from ray_app.serving.options import ServingOptions
from ray_app.settings import Settings
from ray_app.syncing.service import SyncService
from ray_app.tracing.spans import start_tracing, stop_tracing
from ray_app.workspace import Workspace

log = logging.getLogger("ray_app.router")
#: Seconds that a drain waits for requests under way; longer ones are cut off when the replica ends.
DRAIN_SECONDS: Final = 60.0


class Router:
    """A replica of the ingress. Everything it works with is made here and never pickled."""

    async def __init__(self, options: ServingOptions, handles: Mapping[str, DeploymentHandle]) -> None:  # type: ignore[misc]  # Serve awaits it
        listen_on_loopback()
        settings = Settings.from_env()
        configure_logs(settings, handler=ServeLogHandler())
        start_tracing(settings, "router")
        self._services = await open_services(options, handles)
        self._gate = DrainGate(create_api(self._services))
        self._exporter = export_metrics(lambda: HTTP_IN_PROGRESS.set(self._gate.under_way))
        workspace = self._services.workspace
        self._reporter = Reporter(Workspace(workspace.settings), self._services.store)
        self._reporter.start()
        self._sync = SyncService(
            Workspace(workspace.settings),
            self._services.store,
            self._services.backend,
            self._services.jobs.submit,
        )
        self._sync.start()
        self._keeper = (
            asyncio.create_task(keep_database(workspace)) if workspace.settings.embedded_database else None
        )

    def __serve_build_asgi_app__(self) -> DrainGate:
        return self._gate

    async def answer(self, request: Request) -> AsyncIterator[Piece]:
        """A request that came the short way, answered in pieces."""
        async for piece in answer_pieces(self._gate.answer, request):
            yield piece

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """``{"drain": "off" | "refuse" | "wait"}``: take requests, take none, or also wait for the last.

        A drain has two steps because Serve sends nothing to a replica while this runs: first every
        replica refuses at once, then each waits for what it has.
        """
        if config["drain"] == "off":
            self._gate.open()
            return
        self._gate.close()
        if config["drain"] == "wait" and not await self._gate.wait_idle(DRAIN_SECONDS):
            log.warning("%d requests did not end in %.0f s", self._gate.under_way, DRAIN_SECONDS)

    async def __del__(self) -> None:
        """Called by Serve when it stops the replica, after the application's own shutdown."""
        if self._keeper is not None:
            self._keeper.cancel()
        await self._sync.stop()
        self._reporter.stop()
        self._exporter.stop()
        self._services.store.close()
        self._services.workspace.close()
        await asyncio.to_thread(stop_tracing)
