"""What happens to every request around its route, as plain ASGI: ids, logs, sizes, hang-ups.

Plain, because Starlette's ``BaseHTTPMiddleware`` hides a client's hanging up from the route.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ray_app.api.authentication import Principal
from ray_app.api.errors import error_response, internal_error
from ray_app.errors import TooLarge
from ray_app.logs import request_id, tenant
from ray_app.metrics.declared import HTTP_REQUESTS, HTTP_SECONDS, NONE

log = logging.getLogger(__name__)
access_log = logging.getLogger("ray_app.api.access")

#: nginx's status for a client that hung up before its answer; only logged, for nobody receives it.
CLIENT_CLOSED_REQUEST: Final = 499
#: Set in the scope of a request that came whole, and whose task is cancelled when its client hangs up.
WHOLE: Final = "rowbeam.whole"
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
#: Values of the metrics' labels.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER: Final = "other"
_STATUSES: Final = ("2xx", "3xx", "4xx", "5xx")


class RequestMiddleware:
    """The outermost: gives the request its id, answers what nobody caught, and logs one line.

    The id is the client's ``x-request-id`` when it can be used, and goes back in the same header.
    It is for people: nothing is looked up or kept by it, for clients repeat theirs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        identity = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        tokens = request_id.set(identity), tenant.set(None)
        answer = _Answer(send, identity)
        started = time.perf_counter()
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            log.exception("The request failed")
            if answer.status is not None:
                raise  # it has begun: only a broken connection can say that it is not whole
            await internal_error()(scope, receive, answer.send)
        finally:
            seconds = time.perf_counter() - started
            _log_access(scope, answer, seconds)
            _count(scope, answer, seconds)
            request_id.reset(tokens[0])
            tenant.reset(tokens[1])


class _Answer:
    """What was sent, and the request id on its way out."""

    def __init__(self, send: Send, identity: str) -> None:
        self._send = send
        self._identity = identity
        self.status: int | None = None
        self.bytes = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self._identity
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        await self._send(message)


def _log_access(scope: Scope, answer: _Answer, seconds: float) -> None:
    """One line. The route's pattern stands for the path, whose values are the caller's own."""
    route = getattr(scope.get("route"), "path", "-")
    caller = scope.get("state", {}).get("caller")
    access_log.info(
        "%s %s %d %.1f ms %d bytes key=%s",
        scope["method"] if scope["method"].isalpha() else "-",
        route,
        answer.status or CLIENT_CLOSED_REQUEST,
        seconds * 1000,
        answer.bytes,
        caller.key_id if isinstance(caller, Principal) else "-",
    )


def _count(scope: Scope, answer: _Answer, seconds: float) -> None:
    """As the log line, in metrics. A caller may send any method; those that no route takes are one."""
    method = scope["method"] if scope["method"] in _METHODS else _OTHER
    route = getattr(scope.get("route"), "path", NONE)
    status = f"{(answer.status or CLIENT_CLOSED_REQUEST) // 100}xx"
    if HTTP_REQUESTS.total(method, route, status) == 0:
        for each in _STATUSES:
            HTTP_REQUESTS.start(method, route, each)
    HTTP_REQUESTS.add(1, method, route, status)
    HTTP_SECONDS.observe(seconds, method, route)


class BodyLimitMiddleware:
    """Refuses a body of more than ``limit`` bytes: by what it says of itself, else while it comes in."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope).get("content-length", "")
        message = f"The body has more than {self._limit:,} bytes."
        if said.isdecimal() and int(said) > self._limit:
            error = TooLarge(message, hint="Send it in several requests.")
            await error_response(error)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            part = await receive()
            received += len(part.get("body", b""))
            if received > self._limit:
                # FastAPI, which reads the body, lets no other exception through.
                raise HTTPException(413, f"{message} Send it in several requests.")
            return part

        await self._app(scope, counted, send)


class HangUpMiddleware:
    """Cancels the route when its client hangs up, so that whatever it held is free again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or WHOLE in scope:
            await self._app(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for mypy: ASGI applications run in tasks
        line = _Line(receive, send, task)
        listener = asyncio.create_task(line.listen())
        try:
            await self._app(scope, line.receive, line.send)
        except asyncio.CancelledError:
            if not line.cancelled or task.uncancel() > 0:
                raise  # somebody else wants this task to end
        finally:
            listener.cancel()


class _Line:
    """The connection of one request, listened to also while the route is at work."""

    def __init__(self, receive: Receive, send: Send, task: asyncio.Task[object]) -> None:
        self._receive = receive
        self._send = send
        self._task = task
        # One: what the route does not read yet waits in the server, whose buffers are bounded.
        self._parts: asyncio.Queue[Message] = asyncio.Queue(1)
        self._answered = False
        self.cancelled = False

    async def listen(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                break
            await self._parts.put(message)
        if not self._answered:
            self.cancelled = True
            self._task.cancel("the client hung up")
        await self._parts.put(message)

    async def receive(self) -> Message:
        return await self._parts.get()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True
        await self._send(message)
