"""The short way from a proxy to a router: both ends, with nothing of Serve in between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.shortcut import LARGEST_BODY, Piece, Request, Shortcut, answer_pieces
from ray_app.errors import ProviderUnavailable


class Here:
    """``Routers`` that are an application of this process."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.calls = 0

    def ask(self, request: Request) -> AsyncGenerator[Piece, None]:
        self.calls += 1
        return answer_pieces(self._app, request)


async def never() -> None:
    await asyncio.Event().wait()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = HttpRequest(scope, receive)
    body = await request.body()
    answer = {"method": request.method, "url": request.url.path, "query": request.url.query}
    await JSONResponse({**answer, "body": body.decode()}, 201, {"x-id": request.headers.get("x-id", "")})(
        scope, receive, send
    )


def request_of(method: str = "POST", path: str = "/v1/search", **headers: str) -> Scope:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "query_string": b"a=1", "headers": raw}


async def ask(
    routers: Here | None,
    scope: Scope,
    messages: list[Message],
    *,
    then: Callable[[], Awaitable[object]] = never,
) -> tuple[bool, list[Message]]:
    waiting, sent = deque(messages), []

    async def receive() -> Message:
        if not waiting:
            await then()
        return waiting.popleft() if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def find() -> Here | None:
        return routers

    return await Shortcut(find).answer(scope, receive, send), sent


def body_of(sent: list[Message]) -> bytes:
    return b"".join(message["body"] for message in sent[1:])


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_request_arrives_whole_and_its_answer_comes_back() -> None:
    scope = request_of(content_length="6", x_id="7", host="here")
    answered, sent = asyncio.run(ask(Here(echo), scope, [part(b"abc", more=True), part(b"def")]))
    assert answered
    assert sent[0]["status"] == 201
    assert dict(sent[0]["headers"])[b"x-id"] == b"7"
    assert body_of(sent) == b'{"method":"POST","url":"/v1/search","query":"a=1","body":"abcdef"}'
    assert [message["more_body"] for message in sent[1:]] == [False]


def test_a_large_answer_comes_in_pieces() -> None:
    content = bytes(range(256)) * 10_000
    _, sent = asyncio.run(ask(Here(Response(content)), request_of("GET"), []))
    assert body_of(sent) == content
    assert [message["more_body"] for message in sent[1:]] == [True, True, False]


def test_an_answer_may_be_empty() -> None:
    _, sent = asyncio.run(ask(Here(Response(status_code=204)), request_of("DELETE"), []))
    assert sent[0]["status"] == 204
    assert body_of(sent) == b""


@pytest.mark.parametrize(
    "scope",
    [
        request_of(path="/readyz"),
        request_of(content_length=str(LARGEST_BODY + 1)),
        request_of(content_length="many"),
        request_of(transfer_encoding="chunked"),
    ],
)
def test_what_is_large_or_of_unknown_size_goes_serves_way_unread(scope: Scope) -> None:
    routers = Here(echo)
    assert asyncio.run(ask(routers, scope, [])) == (False, [])
    assert not routers.calls


def test_without_an_application_serve_answers() -> None:
    assert asyncio.run(ask(None, request_of(content_length="1"), [])) == (False, [])


def test_a_client_that_hangs_up_cancels_its_call() -> None:
    working, over = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        working.set()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    routers = Here(slow)
    scope = request_of(content_length="1")
    answered, sent = asyncio.run(ask(routers, scope, [part(b"x")], then=working.wait))
    assert answered
    assert not sent
    assert over.is_set()


def test_a_client_that_hangs_up_early_calls_nothing() -> None:
    routers = Here(echo)
    scope = request_of(content_length="6")

    async def at_once() -> None: ...

    answered, sent = asyncio.run(ask(routers, scope, [part(b"abc", more=True)], then=at_once))
    assert (answered, sent, routers.calls) == (True, [], 0)


@pytest.mark.parametrize("error", [ProviderUnavailable("It is gone."), asyncio.CancelledError()])
def test_a_lost_replica_leaves_the_request_without_an_answer(error: BaseException) -> None:
    async def lost(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    answered, sent = asyncio.run(ask(Here(lost), request_of("GET"), []))
    assert answered
    assert not sent


def test_a_client_has_its_answer_before_the_application_ends_and_may_go_then() -> None:
    answered, over = asyncio.Event(), asyncio.Event()

    async def thorough(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(b"here")(scope, receive, send)
        await answered.wait()
        await asyncio.sleep(0)
        over.set()

    async def check() -> None:
        sent = []

        async def receive() -> Message:
            await answered.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)
            if not message.get("more_body", True):
                answered.set()

        async def find() -> Here:
            return Here(thorough)

        async with asyncio.timeout(10):
            assert await Shortcut(find).answer(request_of("GET"), receive, send)
        assert body_of(sent) == b"here"
        assert over.is_set()

    asyncio.run(check())
