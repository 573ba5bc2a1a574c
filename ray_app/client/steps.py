"""What the client does, without doing it: an operation yields steps, and a driver takes them.

One implementation serves the synchronous and the asynchronous client. An operation is a generator: it
yields a ``Request`` and is sent the response, or has ``httpx.RequestError`` thrown in; it yields a
``Pause`` and is sent None when that is over.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from ray_app.client.errors import BadAnswer, ClientError, NoAnswer, refusal
from ray_app.providers.retry import Backoff

T = TypeVar("T")

#: Statuses after which the same request may succeed, when the server does not say otherwise.
_TRANSIENT: Final = frozenset({429, 502, 503, 504})
#: Those after which it is certain that the request was not begun.
_NOT_BEGUN: Final = frozenset({429, 503})
#: Errors before anything was sent.
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
#: On top of a wait the server asked for, in seconds: clients told the same come back one by one.
_SPREAD: Final = 0.1
_RANDOM: Final = random.SystemRandom()
_BACKOFF: Final = Backoff(base=0.5, cap=20.0)


@dataclass(frozen=True)
class Request:
    """One HTTP request, as often as it is tried."""

    method: str
    path: str
    #: The body, as JSON; None sends none.
    body: bytes | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whether doing it twice leaves the same as doing it once.
    repeatable: bool = True


@dataclass(frozen=True)
class Pause:
    """Do nothing for so many seconds."""

    seconds: float


Step: TypeAlias = Request | Pause
Operation: TypeAlias = Generator[Step, httpx.Response | None, T]


@dataclass(frozen=True)
class Patience:
    """When a request is tried again.

    The server's own word comes first: ``retry-after-ms``, else ``Retry-After``, and ``x-should-retry``. Where
    it says nothing, backoff with full jitter. A request that is not repeatable is tried again only when
    it is certain that it was not begun.
    """

    #: Seconds that one request may take altogether, waits included; no wait is begun that ends later.
    max_wait: float
    clock: Callable[[], float]
    uniform: Callable[[float, float], float] = _RANDOM.uniform
    backoff: Backoff = _BACKOFF

    def call(self, request: Request) -> Operation[httpx.Response]:
        """Send ``request`` until it is answered with success.

        Raises:
            Refused: the server refuses it, and trying again is of no use or takes too long.
            NoAnswer: no answer came, in all that time.
        """
        begun, attempt = self.clock(), 0
        while True:
            try:
                response = yield request
                assert response is not None  # noqa: S101 - for mypy: a request is answered or raises
            except httpx.RequestError as error:
                failure: ClientError = _no_answer(error)
                again = request.repeatable or isinstance(error, _NOT_SENT)
                asked = None
            else:
                if response.is_success:
                    return response
                failure = refused = refusal(response)
                again, asked = _may_repeat(request, response), refused.retry_after
            wait = self._wait(attempt, asked)
            if not again or self.clock() - begun + wait > self.max_wait:
                raise failure
            yield Pause(wait)
            attempt += 1

    def _wait(self, attempt: int, asked: float | None) -> float:
        if asked is None:
            return self.backoff.wait(attempt, uniform=self.uniform)
        return asked + self.uniform(0.0, _SPREAD)


def call_json(patience: Patience, request: Request) -> Operation[dict[str, Any]]:
    """The JSON object that answers ``request``.

    Raises:
        BadAnswer: the answer is none. Else as ``Patience.call``.
    """
    response = yield from patience.call(request)
    if response.status_code == httpx.codes.NO_CONTENT:
        return {}
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise BadAnswer(
            f"{request.method} {request.path} was answered with something else than a JSON object.",
            hint="Does the address belong to a Rowbeam server?",
        )
    return body


def segment(text: str) -> str:
    """``text`` as one segment of a path, whatever it holds."""
    # Dots are no characters to escape, and on their own they mean a folder.
    return "%2E" * len(text) if text in (".", "..") else quote(text, safe="")


def _may_repeat(request: Request, response: httpx.Response) -> bool:
    said = response.headers.get("x-should-retry")
    if said in ("true", "false"):
        return said == "true" and (request.repeatable or response.status_code in _NOT_BEGUN)
    return response.status_code in (_TRANSIENT if request.repeatable else _NOT_BEGUN)


def _no_answer(error: httpx.RequestError) -> NoAnswer:
    if isinstance(error, httpx.TimeoutException):
        what = "took too long to answer"
    elif isinstance(error, httpx.TransportError):
        what = "cannot be reached, or hung up"
    else:
        what = "sent what cannot be read"
    reason = f": {error}" if str(error) else ""
    failure = NoAnswer(f"The server {what}{reason}.")
    failure.__cause__ = error
    return failure
