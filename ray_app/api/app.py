"""The HTTP API as one ASGI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI

from ray_app.api import backfills, embeddings, erasures, health, models, records, reports, search, tenants
from ray_app.api.console.install import add_console
from ray_app.api.documentation import DOCUMENTED_ERRORS, add_documentation
from ray_app.api.errors import install_error_handlers
from ray_app.api.middleware import BodyLimitMiddleware, HangUpMiddleware, RequestMiddleware
from ray_app.api.principals import AuthenticationMiddleware
from ray_app.api.services import Services
from ray_app.api.tracing import TraceMiddleware
from ray_app.errors import DatabaseUnavailable
from ray_app.tracing.spans import enabled as tracing_enabled

log = logging.getLogger(__name__)

#: Each module has its routes in ``router``; paths are written out there, from "/v1" on.
ROUTES: Final[Sequence[Any]] = (embeddings, models, tenants, erasures, records, search, backfills, reports)
#: Seconds between two writes of online usage, which a crash would lose.
USAGE_INTERVAL: Final = 2.0


def create_api(services: Services) -> FastAPI:
    """The application; its routes reach ``services`` through ``FromServices``."""
    app = FastAPI(
        title="Rowbeam",
        version=version("rowbeam"),
        summary="Embeds, indexes and searches the rows of tenants.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to an address made of the caller's own host header
    )
    app.state.services = services
    install_error_handlers(app)
    app.include_router(health.router)
    for module in ROUTES:
        app.include_router(module.router, responses=DOCUMENTED_ERRORS)
    add_documentation(app)
    add_console(app, services)
    # The one added last is the outermost.
    app.add_middleware(AuthenticationMiddleware, services=services)
    app.add_middleware(BodyLimitMiddleware, limit=services.options.max_body_bytes)
    app.add_middleware(HangUpMiddleware)
    app.add_middleware(RequestMiddleware)
    if tracing_enabled():
        app.add_middleware(TraceMiddleware, part="router")
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    flusher = asyncio.create_task(_flush_usage(services))
    try:
        yield
    finally:
        flusher.cancel()
        await asyncio.wait([flusher])
        await _flush(services)


async def _flush_usage(services: Services) -> None:
    while True:
        await asyncio.sleep(USAGE_INTERVAL)
        await _flush(services)


async def _flush(services: Services) -> None:
    try:
        await services.in_thread(services.usage.flush)
    except DatabaseUnavailable:
        log.warning("Usage cannot be written at the moment; it is kept for the next time")
