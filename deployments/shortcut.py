"""The short way from a proxy to a router: one call with the whole request in it.

Serve's own way costs a stream and two actor calls back to the proxy, for the body and for the news that
the client hung up: about three times the work of the request itself when that is one short text.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ray_app.api.middleware import WHOLE
from ray_app.errors import ProviderUnavailable

log = logging.getLogger(__name__)

#: Bytes of a body that goes this way. A proxy holds it whole, once for each request it lets in.
LARGEST_BODY: Final = 256 * 1024
#: Bytes of an answer in one message; gRPC takes 4 MiB.
_PIECE: Final = 1024**2
_PREFIX: Final = "/v1/"
#: What an application needs of a scope, and can be pickled.
_CARRIED: Final = (
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path"),
    *("query_string", "root_path", "headers", "client", "server"),
)
#: Seconds after which an application that was not there is looked for again.
_LOOK_AGAIN: Final = 1.0

#: Status and headers, in the first piece of an answer; a piece of its body; and whether more follow.
Piece: TypeAlias = "tuple[tuple[int, list[tuple[bytes, bytes]]] | None, bytes, bool]"


@dataclass(frozen=True)
class Request:
    """A request as it travels."""

    scope: dict[str, Any]
    body: bytes


class Routers(Protocol):
    """The replicas of the router, one of which answers."""

    def ask(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer; closing it early cancels the call. Raises ProviderUnavailable."""


class Shortcut:
    """The proxy's end. Used on one event loop. ``find`` answers None while there is no application."""

    def __init__(self, find: Callable[[], Awaitable[Routers | None]]) -> None:
        self._look = find
        self._routers: Routers | None = None
        self._looked_at = float("-inf")

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request; False, with nothing read, when it has to go Serve's way.

        When the client hangs up, or the replica is lost, this ends without an answer.
        """
        size = _body_size(scope)
        if size is None or (routers := await self._find()) is None:
            return False
        body = await _read(receive, size)
        if body is not None:
            carried = {name: scope[name] for name in _CARRIED if name in scope}
            await _forward(routers, Request(carried, body), receive, send)
        return True

    async def _find(self) -> Routers | None:
        if self._routers is None and time.monotonic() - self._looked_at > _LOOK_AGAIN:
            self._looked_at = time.monotonic()
            self._routers = await self._look()
        return self._routers


async def answer_pieces(app: ASGIApp, request: Request) -> AsyncGenerator[Piece, None]:
    """The router's end: what ``app`` answers, in pieces. A caller that is gone cancels it.

    The last piece goes out as soon as it is there; what ``app`` does then, such as a line in a log, nobody
    waits for.
    """
    answer = _Whole()
    scope = {**request.scope, WHOLE: True}
    task: asyncio.Task[None] = asyncio.ensure_future(app(scope, _body_of(request), answer.send))
    task.add_done_callback(answer.end)
    try:
        await answer.complete
        body = b"".join(answer.parts)
        for start in range(0, len(body) or 1, _PIECE):
            stop = start + _PIECE
            yield answer.head if start == 0 else None, body[start:stop], stop < len(body)
        await task
    finally:
        task.cancel()


class _Whole:
    """An answer that is gathered."""

    def __init__(self) -> None:
        self.head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self.parts: list[bytes] = []
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.head = message["status"], list(message.get("headers", ()))
            return
        self.parts.append(message.get("body", b""))
        if not message.get("more_body", False) and not self.complete.done():
            self.complete.set_result(None)

    def end(self, task: asyncio.Task[None]) -> None:
        """The application is done, with an answer or without."""
        if self.complete.done():
            return
        if task.cancelled():
            self.complete.cancel()
        elif error := task.exception():
            self.complete.set_exception(error)
        else:
            self.complete.set_result(None)


def _body_of(request: Request) -> Receive:
    unread: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]

    async def receive() -> Message:
        if unread:
            return unread.pop()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # for ever

    return receive


def _body_size(scope: Scope) -> int | None:
    """Bytes of the body, when it can go the short way."""
    if not scope["path"].startswith(_PREFIX):
        return None
    said = b"0"
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            said = value
    return int(said) if said.isdigit() and int(said) <= LARGEST_BODY else None


async def _read(receive: Receive, size: int) -> bytes | None:
    """The body; None when the client hung up first."""
    parts: list[bytes] = []
    more = size > 0
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _forward(routers: Routers, request: Request, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for mypy: ASGI applications run in tasks
    gone = False

    async def listen() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel("the client hung up")

    listener = asyncio.create_task(listen())
    try:
        async with aclosing(routers.ask(request)) as pieces:
            await _send_on(pieces, send)
            listener.cancel()  # the client may go now; the router may have something left to do
            async for _ in pieces:
                pass
    except asyncio.CancelledError:
        if gone:
            task.uncancel()
        if task.cancelling():
            raise  # somebody else wants this task to end; otherwise it was the replica's
    except ProviderUnavailable as error:
        log.warning("A request was lost: %s", error.message)
    finally:
        listener.cancel()


async def _send_on(pieces: AsyncGenerator[Piece, None], send: Send) -> None:
    """Up to the last one."""
    async for head, part, more in pieces:
        if head is not None:
            status, headers = head
            await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": part, "more_body": more})
        if not more:
            break
