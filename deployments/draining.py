"""Letting requests under way finish while new ones are turned away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

#: Answered to the last: a server that drains is alive, and not ready.
_ALIVE: Final = "/healthz"
_REQUEST_ID: Final = b"x-request-id"
#: Seconds after which a client may look for the server, or its successor, again.
_RETRY_AFTER: Final = 5
_REFUSAL: Final = {
    "error": {
        "message": "The server is shutting down and takes no new requests.",
        "type": "server_error",
        "param": None,
        "code": "shutting_down",
    }
}


class DrainGate:
    """An ASGI application in front of another that counts requests under way and can close."""

    def __init__(self, app: App) -> None:
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

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._closed and scope["path"] != _ALIVE:
            await _refuse(send)
            return
        self._under_way += 1
        self._idle.clear()
        try:
            await self._app(scope, receive, _without_request_id(send))
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()


def _without_request_id(send: Send) -> Send:
    """Serve's proxy adds the header to every answer, beside one that is there."""

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != _REQUEST_ID]
            message = {**message, "headers": kept}
        await send(message)

    return send_on


async def _refuse(send: Send) -> None:
    body = json.dumps(_REFUSAL).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(_RETRY_AFTER).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
