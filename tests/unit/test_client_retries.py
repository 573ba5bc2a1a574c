"""When the client sends a request again, how long it waits before, and what it raises in the end."""

from __future__ import annotations

import asyncio
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from ray_app.client import (
    AdminClient,
    BadAnswer,
    BadRequest,
    ClientError,
    Conflict,
    Forbidden,
    NoAnswer,
    NotFound,
    QuotaExhausted,
    Refused,
    RowbeamClient,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from ray_app.client.drivers import AsyncConnection
from ray_app.client.steps import Operation, Patience, Request, call_json
from ray_app.errors import InputError

KEY = "rb_0123abcd_very-secret-0123456789"
GET = Request("GET", "/v1/models")
POST_ONCE = Request("POST", "/v1/tenants", b"{}", repeatable=False)


def body(message: str = "No.", code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "t", "param": param, "code": code}}


class Script:
    """A server that gives its answers one after the other, and a clock that only waits move."""

    def __init__(self, *answers: httpx.Response | Exception, max_wait: float = 120.0) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        self.client = RowbeamClient(
            "http://rowbeam.test",
            KEY,
            transport=httpx.MockTransport(self._answer),
            max_wait=max_wait,
            sleep=self.waits.append,
            clock=lambda: sum(self.waits),
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(self, request: Request = GET) -> dict[str, Any]:
        def operation(patience: Patience) -> Operation[dict[str, Any]]:
            return call_json(patience, request)

        return self.client._run(operation)


def ok() -> httpx.Response:
    return httpx.Response(200, json={"fine": True})


def test_the_key_goes_with_every_request() -> None:
    script = Script(httpx.Response(503), ok())
    assert script.run() == {"fine": True}
    assert [request.headers["authorization"] for request in script.requests] == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_it_waits_as_long_as_the_server_says(headers: dict[str, str], wait: float, status: int) -> None:
    script = Script(httpx.Response(status, headers=headers, json=body()), ok())
    script.run()
    assert wait <= script.waits[0] <= wait + 0.1


def test_the_server_may_name_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    script = Script(httpx.Response(503, headers={"retry-after": date}), ok())
    script.run()
    assert 25 < script.waits[0] < 31


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("hung up"),
        httpx.ReadTimeout("slow"),
        httpx.Response(502),
        httpx.Response(503),
        httpx.Response(504),
        httpx.Response(429),
    ],
)
def test_where_the_server_says_nothing_it_backs_off_with_jitter(failure: httpx.Response | Exception) -> None:
    script = Script(*[failure] * 5, ok())
    assert script.run() == {"fine": True}
    assert len(set(script.waits)) == 5
    assert all(0 <= wait <= 0.5 * 2**turn for turn, wait in enumerate(script.waits))


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 413, 422, 500])
def test_what_would_be_refused_again_is_not_sent_again(status: int) -> None:
    script = Script(httpx.Response(status, json=body()))
    with pytest.raises(Refused) as refused:
        script.run()
    assert refused.value.status_code == status
    assert script.waits == []


def test_x_should_retry_overrules_the_status() -> None:
    script = Script(httpx.Response(500, headers={"x-should-retry": "true"}), ok())
    assert script.run() == {"fine": True}
    script = Script(httpx.Response(503, headers={"x-should-retry": "false", "retry-after": "1"}))
    with pytest.raises(Unavailable):
        script.run()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_filter", BadRequest),
        (401, "invalid_api_key", Unauthorized),
        (403, "permission_denied", Forbidden),
        (404, "table_not_found", NotFound),
        (409, "job_conflict", Conflict),
        (413, "request_too_large", BadRequest),
        (429, "rate_limit_exceeded", TooManyRequests),
        (429, "insufficient_quota", QuotaExhausted),
        (500, "internal_error", Unavailable),
        (503, "overloaded", Unavailable),
    ],
)
def test_errors_say_what_the_server_said(status: int, code: str, kind: type[Refused]) -> None:
    headers = {"x-request-id": "req-7", "x-should-retry": "false"}
    script = Script(httpx.Response(status, headers=headers, json=body("It is so.", code, "records[3].id")))
    with pytest.raises(kind) as raised:
        script.run()
    error = raised.value
    assert (type(error), error.status_code, error.code) == (kind, status, code)
    assert (error.message, error.param, error.request_id) == ("It is so.", "records[3].id", "req-7")
    assert str(error) == f"{status} {code}: It is so. (request req-7)"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(again), str(again), again.code) == (kind, str(error), code)


def test_a_longer_wait_than_it_may_is_not_begun() -> None:
    script = Script(httpx.Response(429, headers={"retry-after": "30"}), max_wait=20)
    with pytest.raises(TooManyRequests) as refused:
        script.run()
    assert refused.value.retry_after == 30
    assert script.waits == []


def test_it_gives_up_when_its_time_is_over() -> None:
    script = Script(*[httpx.ConnectError("refused")] * 1000, max_wait=20)
    with pytest.raises(NoAnswer, match="refused"):
        script.run()
    assert 0 < sum(script.waits) <= 20


@pytest.mark.parametrize("failure", [httpx.ReadTimeout("slow"), httpx.Response(502), httpx.Response(504)])
def test_what_must_not_be_done_twice_is_not_sent_twice(failure: httpx.Response | Exception) -> None:
    script = Script(failure)
    with pytest.raises(ClientError):
        script.run(POST_ONCE)
    assert len(script.requests) == 1


@pytest.mark.parametrize("failure", [httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(429)])
def test_what_was_certainly_not_begun_is_sent_again(failure: httpx.Response | Exception) -> None:
    script = Script(failure, ok())
    assert script.run(POST_ONCE) == {"fine": True}


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(200, text="<html>login</html>"), httpx.Response(200, json=[1]), httpx.Response(200)],
)
def test_an_answer_of_something_else_is_told_apart(answer: httpx.Response) -> None:
    with pytest.raises(BadAnswer, match="Rowbeam server"):
        Script(answer).run()


def test_an_error_page_of_a_proxy_is_quoted_in_short() -> None:
    with pytest.raises(Unavailable) as refused:
        Script(httpx.Response(500, text="<html>\n" + "x" * 10_000)).run()
    assert "Internal Server Error" in str(refused.value)
    assert len(str(refused.value)) < 400


def test_the_asynchronous_client_waits_and_raises_alike() -> None:
    waits: list[float] = []
    answers = [httpx.ConnectError("refused"), httpx.Response(429, headers={"retry-after-ms": "70"}), ok()]

    def answer(_: httpx.Request) -> httpx.Response:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def run() -> dict[str, Any]:
        transport = httpx.MockTransport(answer)
        async with AsyncConnection("http://rowbeam.test", KEY, transport=transport, sleep=sleep) as client:
            return await client._run(lambda patience: call_json(patience, GET))

    assert asyncio.run(run()) == {"fine": True}
    assert waits[0] <= 0.5
    assert 0.07 <= waits[1] <= 0.17


# The key.


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f" {KEY}", "rb_ü", f"{KEY}\r\nx-evil: 1"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(InputError) as refused:
        RowbeamClient("http://rowbeam.test", key)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["rowbeam.test", "ftp://rowbeam.test", "http://", "http://me:pw@rowbeam.test"]
)
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(InputError) as refused:
        RowbeamClient(url, KEY)
    assert "pw" not in str(refused.value)


def shown(client: RowbeamClient | AdminClient) -> Iterator[str]:
    yield from (
        repr(client),
        str(client),
        repr(vars(client)),
        repr(client._http.headers),
        repr(client._http.auth),
    )


@pytest.mark.parametrize("kind", [RowbeamClient, AdminClient])
def test_the_key_is_shown_nowhere(
    kind: Callable[..., RowbeamClient | AdminClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    failures = [httpx.ConnectError("refused"), httpx.Response(401, json=body("Wrong key."))]

    def answer(request: httpx.Request) -> httpx.Response:
        failure = failures.pop(0)
        if isinstance(failure, httpx.ConnectError):
            failure.request = request
            raise failure
        return failure

    client = kind("http://rowbeam.test", KEY, transport=httpx.MockTransport(answer), sleep=lambda _: None)
    with pytest.raises(Unauthorized) as refused:
        client._run(lambda patience: call_json(patience, GET))
    error = refused.value
    told = [*shown(client), str(error), repr(error), repr(vars(error)), caplog.text]
    assert not [text for text in told if KEY in text or "very-secret" in text]


def test_the_client_brings_no_ray_no_model_no_store_and_no_database() -> None:
    code = "import sys, ray_app.client; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"ray", "torch", "transformers", "qdrant_client", "qdrant_edge", "sqlalchemy", "numpy", "fastapi"}
    assert set(loaded.split()) & heavy == set()
    assert "httpx" in loaded.split()
