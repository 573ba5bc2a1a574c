"""What stands in front of Serve's proxy: its headers are nobody else's, its errors have the API's shape."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.arrivals import Arrivals, Guest
from deployments.edge import Edge


class Proxy:
    """Stands in for Serve's: answers what it is told, and remembers what it got."""

    def __init__(self, response: Response) -> None:
        self.headers: dict[bytes, bytes] = {}
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = dict(scope["headers"])
        await self._response(scope, receive, send)


def call(
    proxy: ASGIApp, *, path: str = "/v1/search", arrivals: Arrivals | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.replace("__", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": raw}
    asyncio.run(Edge(proxy, arrivals)(scope, receive, send))
    start, *bodies = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], answered, b"".join(part["body"] for part in bodies)


def test_headers_that_serve_obeys_do_not_get_through() -> None:
    proxy = Proxy(JSONResponse({}))
    call(
        proxy,
        x__request__timeout__seconds="0",
        x__request__disconnect__disabled="?1",
        x__session__id="a",
        serve_multiplexed_model_id="m",
        authorization="Bearer k",
    )
    assert proxy.headers == {b"authorization": b"Bearer k"}


@pytest.mark.parametrize(
    ("identity", "kept"), [("abc-1", True), ("a b", False), ("x" * 129, False), ("", False)]
)
def test_only_a_usable_request_id_gets_through(identity: str, kept: bool) -> None:
    proxy = Proxy(JSONResponse({}))
    call(proxy, x__request__id=identity)
    assert (b"x-request-id" in proxy.headers) == kept


@pytest.mark.parametrize(
    "response",
    [
        PlainTextResponse("Path '/x' not found.", 404),
        PlainTextResponse("Deployment is gone: secret", 503),
        PlainTextResponse("Internal Server Error", 500),
        PlainTextResponse("Request timed out", 408),
    ],
)
def test_serves_own_errors_are_503_in_the_apis_shape(response: Response) -> None:
    response.headers["x-request-id"] = "mine"
    status, headers, body = call(Proxy(response))
    assert (status, headers["x-request-id"], headers["retry-after"]) == (503, "mine", "3")
    assert int(headers["content-length"]) == len(body)
    error: dict[str, Any] = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("server_error", "unavailable")
    assert bytes(response.body).decode() not in error["message"]


def test_no_answer_at_all_is_503_too() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return

    status, _, body = call(silent)
    assert (status, json.loads(body)["error"]["code"]) == (503, "unavailable")


@pytest.mark.parametrize(
    "response",
    [
        JSONResponse({"error": {}}, 404),
        PlainTextResponse("page"),
        JSONResponse({}, 503),
        HTMLResponse("a page of the console that says so", 404),
    ],
)
def test_the_apis_answers_are_left_alone(response: Response) -> None:
    status, _, body = call(Proxy(response))
    assert (status, body) == (response.status_code, response.body)


def test_a_crowd_is_told_when_to_come_back_and_the_watchers_are_let_in() -> None:
    arrivals = Arrivals(1)
    arrivals.enter(Guest(b"Bearer k"))
    status, headers, body = call(Proxy(JSONResponse({})), arrivals=arrivals, authorization="Bearer k")
    assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
    assert 0 < int(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])
    for path in ("/healthz", "/readyz", "/-/healthz"):
        assert call(Proxy(JSONResponse({})), arrivals=arrivals, path=path)[0] == 200


def test_a_request_leaves_whatever_becomes_of_it() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("gone")

    arrivals = Arrivals(1)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            call(broken, arrivals=arrivals)
        assert call(Proxy(JSONResponse({})), arrivals=arrivals)[0] == 200
    assert arrivals.under_way == 0
