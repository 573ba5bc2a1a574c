"""The gateway proxy as a deployment: one replica, so that budgets, rates and the breaker are one."""

from __future__ import annotations

import asyncio

from deployments.logs import ServeLogHandler
from deployments.loopback import listen_on_loopback
from ray_app.actors.metrics import export_metrics
from ray_app.logs import configure_logs, logging_for
from ray_app.providers.port import Embedded
from ray_app.serving.gateway_proxy import GatewayProxy
from ray_app.serving.port import EmbedCall
from ray_app.settings import Settings
from ray_app.tracing.spans import span, start_tracing, stop_tracing
from ray_app.workspace import Workspace


class GatewayProxyReplica:
    """Everything that is sent to the AI gateway goes through here, online and bulk."""

    async def __init__(self) -> None:  # type: ignore[misc]  # Serve awaits it
        listen_on_loopback()
        settings = Settings.from_env()
        configure_logs(settings, handler=ServeLogHandler())
        start_tracing(settings, "gateway proxy")
        self._workspace = Workspace(settings)
        # May ask the gateway for the size of its vectors.
        self._proxy = await asyncio.to_thread(GatewayProxy, self._workspace)
        self._exporter = export_metrics(self._proxy.sample)

    async def embed(self, call: EmbedCall) -> Embedded:
        """See ``EmbeddingTarget``."""
        with (
            logging_for(job=call.job_id, incarnation=call.incarnation),
            span("gateway proxy", kind="server", parent=call.traceparent, texts=len(call.texts)),
        ):
            return await self._proxy.embed(call)

    async def check(self) -> None:
        """See ``EmbeddingTarget``. Not for Serve: a gateway that is down is no reason to start anew."""
        await self._proxy.check()

    async def __del__(self) -> None:
        """Called by Serve when the calls under way have ended."""
        await self._proxy.close()
        self._exporter.stop()
        self._workspace.close()
        await asyncio.to_thread(stop_tracing)
