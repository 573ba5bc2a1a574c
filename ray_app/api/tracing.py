"""A span for each request, in the proxy and in the router."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ray_app.tracing.spans import TRACEPARENT, annotate, span, traceparent

_HEADER: Final = TRACEPARENT.encode()
#: What is worth a trace; who watches the server asks for other paths, all the time.
_TRACED: Final = "/v1/"


class TraceMiddleware:
    """Goes on with the caller's trace, or begins one, and hands it on in the same header.

    The span says method, route and status. A route's pattern stands for the path and the query, whose
    values are the caller's own.
    """

    def __init__(self, app: ASGIApp, part: str) -> None:
        self._app = app
        self._part = part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_TRACED):
            await self._app(scope, receive, send)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                annotate(**{"http.response.status_code": message["status"]})
            await send(message)

        method = scope["method"] if scope["method"].isalpha() else "-"
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"").decode("latin-1")
        said = {"http.request.method": method}
        with span(f"{self._part} {method}", kind="server", parent=given, **said):
            others = [pair for pair in scope["headers"] if pair[0] != _HEADER]
            inner = {**scope, "headers": [*others, (_HEADER, traceparent().encode())]}
            try:
                await self._app(inner, receive, send_on)
            finally:
                route = getattr(inner.get("route"), "path", None)
                if route is not None:
                    annotate(f"{self._part} {method} {route}", **{"http.route": route})
