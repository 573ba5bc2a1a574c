"""What the client raises, as one tree below ``RowbeamError``.

    ClientError                  catch it to catch everything
    ├── NoAnswer                 the server could not be reached, or hung up, or took too long
    ├── BadAnswer                what came back is not an answer of Rowbeam
    ├── StillRunning             a job that was waited for has not ended in time
    └── Refused                  the server's own error, with its status, code and request id
        ├── BadRequest           400, 405, 413, 422: the request cannot be used
        ├── Unauthorized         401: the key is missing, wrong or revoked
        ├── Forbidden            403: the key may not do this
        ├── NotFound             404: no such thing, or none of this tenant's
        ├── Conflict             409: it clashes with what is there
        ├── TooManyRequests      429: a limit is used up, for ``retry_after`` seconds
        │   └── QuotaExhausted   no waiting helps
        └── Unavailable          5xx: the server, or something it needs, cannot answer now

No message, ``repr`` or attribute holds the API key.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final

import httpx

from ray_app.errors import RowbeamError
from ray_app.providers.retry import asked_wait

if TYPE_CHECKING:
    from ray_app.client.jobs import Job
    from ray_app.client.results import UpsertResult

#: Characters of an answer that is not ours, such as a proxy's page, that go into a message.
_LONGEST_QUOTE: Final = 200


class ClientError(RowbeamError):
    """Base class of all the client's errors."""

    #: What became of the rows sent before the error; set by ``upsert`` alone.
    result: UpsertResult | None = None


class NoAnswer(ClientError):
    """The server could not be reached, hung up or took too long. What was sent may have been done."""

    retryable = True


class BadAnswer(ClientError):
    """What came back is not an answer of Rowbeam: the address may be another server's, or a proxy's."""


class StillRunning(ClientError):
    """A job that was waited for has not ended in time; it goes on. ``job`` is how it stood."""

    def __init__(self, message: str, *, job: Job) -> None:
        super().__init__(message)
        self.job = job


class Refused(ClientError):
    """The server's own error."""

    #: The code for programs, such as ``rate_limit_exceeded``; None where the status says it all.
    code: str | None = None
    #: The part of the request at fault, such as ``records[3].id``.
    param: str | None = None
    #: What to quote to the server's operator.
    request_id: str | None = None
    #: Seconds after which the server takes the request, when it said so.
    retry_after: float | None = None
    #: The HTTP status.
    status_code: int = 0

    def __str__(self) -> str:
        code = f" {self.code}" if self.code else ""
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status_code}{code}: {self.message}{request}"


class BadRequest(Refused):
    """The request cannot be used; ``param`` names the part at fault."""

    status: ClassVar[int] = 400


class Unauthorized(Refused):
    """The API key is missing, wrong or revoked."""

    status: ClassVar[int] = 401


class Forbidden(Refused):
    """The key is valid and may not do this."""

    status: ClassVar[int] = 403


class NotFound(Refused):
    """There is no such thing, or none of this tenant's."""

    status: ClassVar[int] = 404


class Conflict(Refused):
    """The request clashes with what is there."""

    status: ClassVar[int] = 409


class TooManyRequests(Refused):
    """A limit of the tenant's is used up; the client has waited as long as it may."""

    status: ClassVar[int] = 429
    retryable = True


class QuotaExhausted(TooManyRequests):
    """The tenant's budget is spent: no waiting helps until somebody raises it, or the month ends."""

    retryable = False


class Unavailable(Refused):
    """The server, or something it needs, cannot answer now."""

    status: ClassVar[int] = 503
    retryable = True


_BY_STATUS: Final[Mapping[int, type[Refused]]] = {
    kind.status: kind for kind in (BadRequest, Unauthorized, Forbidden, NotFound, Conflict, TooManyRequests)
}


def refusal(response: httpx.Response) -> Refused:
    """The error that an answer with a status of 300 or more stands for."""
    status = response.status_code
    error = _error_object(response)
    code = _text(error.get("code"))
    kind = _BY_STATUS.get(status, Unavailable if status >= 500 else BadRequest)
    if code == "insufficient_quota":
        kind = QuotaExhausted
    refused = kind(_text(error.get("message")) or _unknown(response))
    refused.status_code = status
    refused.code = code
    refused.param = _text(error.get("param"))
    refused.request_id = response.headers.get("x-request-id")
    refused.retry_after = asked_wait(response.headers)
    return refused


def _error_object(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _unknown(response: httpx.Response) -> str:
    status = response.status_code
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "unknown status"
    if response.is_redirect:
        return f"{phrase}: the server is at another address."
    text = " ".join(response.text[:_LONGEST_QUOTE].split())
    return f"{phrase}, not in Rowbeam's words: {text!r}" if text else f"{phrase}."
