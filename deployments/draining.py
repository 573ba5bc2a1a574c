"""Letting requests under way finish while new ones are turned away."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ray_app.api.errors import error_body
from ray_app.metrics.declared import HTTP_REFUSALS

#: Answered to the last: a server that drains is alive, and not ready.
_ALIVE: Final = "/healthz"
_REQUEST_ID: Final = b"x-request-id"
#: A client may look for the server, or its successor, again after this many seconds.
_REFUSAL: Final = JSONResponse(
    error_body(
        "The server is shutting down and takes no new requests.", kind="server_error", code="shutting_down"
    ),
    503,
    headers={"retry-after": "5"},
)


class DrainGate:
    """An ASGI application in front of another that counts requests under way and can close."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._under_way = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def under_way(self) -> int:
        return self._under_way

    def open(self) -> None:
        self._closed = False

    def close(self) -> None:
        """From now on every request but the liveness check is answered 503."""
        self._closed = True

    async def wait_idle(self, seconds: float) -> bool:
        """Whether all requests under way ended within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """For Serve's proxy, which adds a request id to every answer, beside one that is there."""
        await self.answer(scope, receive, _without_request_id(send))

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """For whoever adds no request id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._closed and scope["path"] != _ALIVE:
            HTTP_REFUSALS.add(1, "shutting_down")
            await _REFUSAL(scope, receive, send)
            return
        self._under_way += 1
        self._idle.clear()
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()


def _without_request_id(send: Send) -> Send:
    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != _REQUEST_ID]
            message = {**message, "headers": kept}
        await send(message)

    return send_on
