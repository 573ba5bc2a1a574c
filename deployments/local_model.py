"""The local model as a deployment: one class, placed on CPUs or on a GPU."""

from __future__ import annotations

import asyncio

from deployments.logs import ServeLogHandler
from deployments.loopback import listen_on_loopback
from ray_app.actors.metrics import export_metrics
from ray_app.logs import configure_logs
from ray_app.providers.port import Embedded
from ray_app.serving.local_model import LocalModel, local_model
from ray_app.serving.port import EmbedCall
from ray_app.serving.traced import TracedLocalModel
from ray_app.settings import Settings
from ray_app.tracing.spans import start_tracing, stop_tracing


class LocalModelReplica:
    """One copy of the model. It is ready when it has encoded something, and healthy while it can."""

    async def __init__(self, threads: int, device: str, model: str) -> None:  # type: ignore[misc]  # Serve awaits it
        """``threads`` are torch's, for the whole process; ``device`` is ``cpu`` or ``cuda``.

        ``model`` is what the setting ``local_model`` may be.
        """
        listen_on_loopback()
        changes = {"encoder_threads": threads, "local_model": model}
        settings = Settings.from_env().model_copy(update=changes)
        configure_logs(settings, handler=ServeLogHandler())
        traced = start_tracing(settings, "local model")
        self._model = local_model(settings, device=device, kind=TracedLocalModel if traced else LocalModel)
        await self._model.warm_up()
        self._exporter = export_metrics(self._model.sample)

    async def embed(self, call: EmbedCall) -> Embedded:
        """See ``EmbeddingTarget``."""
        return await self._model.embed(call)

    async def check(self) -> None:
        """See ``EmbeddingTarget``."""
        await self._model.check()

    async def check_health(self) -> None:
        """Serve replaces a replica for which this raises three times running."""
        await self._model.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What ``deployments.autoscaling`` decides by."""
        load = self._model.stats().load
        return {"queued_tokens": load.queued_tokens, "tokens_per_second": load.tokens_per_second}

    async def __del__(self) -> None:
        """Called by Serve when the calls under way have ended."""
        self._model.close()
        self._exporter.stop()
        await asyncio.to_thread(stop_tracing)
