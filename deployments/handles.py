"""Handles of deployments, used in the way that costs least."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import grpc  # type: ignore[import-untyped]  # its stubs are a package of their own
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.names import APPLICATION, ROUTER
from deployments.shortcut import Piece, Request
from ray_app.errors import ProviderUnavailable

#: What a call raises when its replica cannot be reached, is full, or dies.
LOST: Final = (RayError, RayServeException, grpc.aio.AioRpcError)


def direct(handle: DeploymentHandle) -> DeploymentHandle:
    """The handle for calls from the running event loop, over gRPC: without a thread and without the
    object store in between. What is sent and answered must be less than 4 MiB, gRPC's limit.

    ``handle`` must not have been used yet. Serve has no public name for either option of a single handle.
    """
    handle._init(_run_router_in_separate_loop=False)
    chosen: DeploymentHandle = handle.options(_by_reference=False)
    return chosen


class HandleRouters:
    """``Routers`` of the server on this cluster."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def ask(self, request: Request) -> AsyncGenerator[Piece, None]:
        """See ``Routers``."""
        pieces = self._handle.answer.remote(request)
        ended = False
        try:
            async for piece in pieces:
                yield piece
            ended = True
        except LOST as error:
            raise ProviderUnavailable(f"The router is gone ({type(error).__name__}).") from error
        finally:
            if not ended:
                pieces.cancel()


async def find_routers() -> HandleRouters | None:
    """None when there is no server yet."""
    try:
        await asyncio.to_thread(serve.get_deployment_handle, ROUTER, APPLICATION)
    except (RayServeException, RayError, KeyError):
        return None
    # Another one: in a proxy, the handle that is found is Serve's own and in use.
    return HandleRouters(direct(DeploymentHandle(ROUTER, APPLICATION)).options(stream=True))
