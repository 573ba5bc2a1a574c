"""In front of Serve's own proxy: what it would obey from a stranger, what it would answer by itself, and
how many it lets in.

Serve loads it where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH is ``deployments.edge:middlewares``.
"""

from __future__ import annotations

import math
import re
import time
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.arrivals import Arrivals, Guest
from deployments.shortcut import Shortcut
from ray_app.api.errors import error_body
from ray_app.api.tracing import TraceMiddleware
from ray_app.logs import configure_logs
from ray_app.metrics.declared import HTTP_REFUSALS
from ray_app.settings import Settings
from ray_app.tracing.spans import start_tracing

#: Headers by which a caller could end its own requests early, keep them alive after it has hung up, or
#: choose its replica.
_OBEYED: Final = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve_multiplexed_model_id",
        b"x-session-id",
    }
)
_REQUEST_ID: Final = b"x-request-id"
#: What the API takes for an id too; Serve would put anything into its answers and logs.
_USABLE: Final = re.compile(rb"[!-~]{1,128}")
#: The API answers all its own errors in JSON, defects too, and the console in HTML: anything else is
#: Serve's, which has no application to send the request to, or has lost the replica that had it.
_OURS: Final = (b"application/json", b"text/html")
_UNAVAILABLE: Final = error_body(
    "The server is starting, shutting down or has lost a part that is being replaced.",
    kind="server_error",
    code="unavailable",
)
_CROWDED: Final = error_body(
    "The server has more requests than it can answer in time. Send it again later.",
    kind="server_error",
    code="overloaded",
)
#: Asked by whoever watches the server, and answered in any crowd.
_WATCHED: Final = ("/healthz", "/readyz", "/-/")
#: Headers with a caller's credentials.
_CREDENTIALS: Final = (b"authorization", b"api-key")
#: Seconds until a replica is replaced, or nearly.
_RETRY_AFTER: Final = "3"


def middlewares() -> list[Middleware]:
    """What Serve's proxies wrap themselves in."""
    from deployments.handles import find_routers  # brings Ray along
    from deployments.logs import ServeLogHandler
    from ray_app.actors.metrics import export_metrics

    for reason in ("crowded", "unavailable"):
        HTTP_REFUSALS.start(reason)
    export_metrics()
    settings = Settings.from_env()
    configure_logs(settings, handler=ServeLogHandler())
    edge = Middleware(Edge, shortcut=Shortcut(find_routers))
    # Serve makes the last one the outermost.
    return [edge, Middleware(TraceMiddleware, part="proxy")] if start_tracing(settings, "proxy") else [edge]


class Edge:
    """Drops headers that are Serve's business, gives its errors the API's shape, and bounds a crowd."""

    def __init__(
        self, app: ASGIApp, arrivals: Arrivals | None = None, shortcut: Shortcut | None = None
    ) -> None:
        self._app = app
        self._arrivals = arrivals or Arrivals()
        self._shortcut = shortcut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "headers": [pair for pair in scope["headers"] if _passes(*pair)]}
        if scope["path"].startswith(_WATCHED):
            await self._pass_on(scope, receive, send)
            return
        caller = b"\n".join(value for name, value in scope["headers"] if name in _CREDENTIALS)
        guest = Guest(caller, str(scope.get("client")))
        wait = self._arrivals.enter(guest)
        if wait is not None:
            await _crowded(wait)(scope, receive, send)
            return
        began = time.monotonic()
        try:
            await self._pass_on(scope, receive, send)
        finally:
            self._arrivals.leave(guest, time.monotonic() - began)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(scope, receive, send)
        try:
            if self._shortcut is None or not await self._shortcut.answer(scope, answer.receive, answer.send):
                await self._app(scope, answer.receive, answer.send)
        finally:
            if not answer.begun:  # its replica died, and the HTTP server would say so in plain text
                HTTP_REFUSALS.add(not answer.hung_up, "unavailable")
                await _unavailable()(scope, receive, send)


class _Answer:
    """The answer on its way out; 503 in place of an error that is not the API's."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._connection = scope, receive, send
        self._replaced = False
        self.begun = False
        self.hung_up = False

    async def receive(self) -> Message:
        message = await self._connection[1]()
        self.hung_up = self.hung_up or message["type"] == "http.disconnect"
        return message

    async def send(self, message: Message) -> None:
        self.begun = True
        if message["type"] == "http.response.start" and _is_bare_error(message):
            self._replaced = True
            HTTP_REFUSALS.add(1, "unavailable")
            await _unavailable(Headers(raw=message["headers"]).get("x-request-id"))(*self._connection)
        elif not self._replaced:
            await self._connection[2](message)


def _unavailable(request_id: str | None = None) -> JSONResponse:
    headers = {"retry-after": _RETRY_AFTER} | ({"x-request-id": request_id} if request_id else {})
    return JSONResponse(_UNAVAILABLE, 503, headers=headers)


def _crowded(wait: float) -> JSONResponse:
    HTTP_REFUSALS.add(1, "crowded")
    headers = {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}
    return JSONResponse(_CROWDED, 503, headers=headers)


def _passes(name: bytes, value: bytes) -> bool:
    # ASGI servers write names in lower case.
    return name not in _OBEYED and (name != _REQUEST_ID or _USABLE.fullmatch(value) is not None)


def _is_bare_error(message: Message) -> bool:
    kinds = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
    return message["status"] >= 400 and not any(kind.startswith(_OURS) for kind in kinds)
