"""What embeds where no server runs: the local model in this process and, when configured, the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ray_app.serving.local_model import LocalModel, local_model
from ray_app.serving.pool import PricedTarget, ProviderPool
from ray_app.serving.port import EmbedCall, EmbeddingBackend, Load, Served
from ray_app.spaces import EmbeddingSpace, Preference
from ray_app.workspace import Workspace

if TYPE_CHECKING:
    from ray_app.serving.gateway_proxy import GatewayProxy


class LazyBackend:
    """An ``EmbeddingBackend`` that is made when something has to be embedded. Closed by ``own_backend``."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._pool: ProviderPool | None = None
        self._model: LocalModel | None = None
        self._proxy: GatewayProxy | None = None

    def _made(self) -> ProviderPool:
        if self._pool is not None:
            return self._pool
        workspace = self._workspace
        self._model = local_model(workspace.settings)
        targets = [PricedTarget(self._model)]
        if workspace.settings.gateway is not None:
            from ray_app.serving.gateway_proxy import GatewayProxy  # httpx, for who needs it

            space = workspace.providers.spaces_for(Preference.QUALITY)
            self._proxy = GatewayProxy(workspace, space=space)
            targets.append(PricedTarget(self._proxy, workspace.providers.price_per_million(space)))
        self._pool = ProviderPool(targets)
        return self._pool

    def spaces(self) -> list[EmbeddingSpace]:
        return list(self._made().spaces())

    async def embed(self, call: EmbedCall) -> Served:
        return await self._made().embed(call)

    def load(self, space: EmbeddingSpace) -> Load:
        return self._made().load(space)

    async def not_ready(self) -> list[str]:
        return list(await self._made().not_ready())

    async def close(self) -> None:
        """End what was made."""
        if self._proxy is not None:
            await self._proxy.close()
        if self._model is not None:
            self._model.close()


@asynccontextmanager
async def own_backend(workspace: Workspace) -> AsyncIterator[EmbeddingBackend]:
    """A backend of this process for as long as the block lasts; its model is loaded at its first text."""
    backend = LazyBackend(workspace)
    try:
        yield backend
    finally:
        await backend.close()
