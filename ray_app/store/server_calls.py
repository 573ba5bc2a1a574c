"""Calls to a Qdrant server: which failures are worth another try, and what they are called.

The one place where errors of the client library become Rowbeam's. Every call made through here is
idempotent, so a request whose answer was lost is simply sent again.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import httpx
from qdrant_client import models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from ray_app.errors import StoreRefused, StoreUnavailable

T = TypeVar("T")
log = logging.getLogger(__name__)

#: Timeout, throttled, and the server's own faults; 507 is a full disk or quota, which waiting does not cure.
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
#: What the client lets through when an answer is not JSON, or JSON without a result.
_UNREADABLE: Final = (json.JSONDecodeError, UnicodeDecodeError, AssertionError)
_FIRST_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 8.0
_SERVER: Final = "The Qdrant server"
_REFUSALS: Final = {
    400: ("finds our request wrong", "Check that it is the version this release was made for."),
    401: ("refuses the API key", "Set ROWBEAM_QDRANT_API_KEY to a key that may read and write."),
    403: ("refuses the API key", "Set ROWBEAM_QDRANT_API_KEY to a key that may read and write."),
    404: ("does not know what we ask for", "Check that ROWBEAM_QDRANT_URL is a Qdrant server's address."),
    409: ("says that the collection is there already", "Try again."),
    413: ("finds our request too large", "Raise its service.max_request_size_mb, or lower payload columns."),
    507: ("is out of storage", "Free space or raise its quota, then resume."),
}


class Call(Protocol):
    """Runs a call to the server, again while its failure is a passing one."""

    def __call__(self, operation: Callable[[], T]) -> T: ...


class CollectionMissing(StoreRefused):
    """The collection does not exist."""

    def __init__(self) -> None:
        super().__init__(
            "The tenant has no vectors in this space: it was removed, or never set up.",
            hint="Run the backfill again; it sets the index up.",
        )


class CollectionExists(StoreRefused):
    """Another process made the collection first."""


class NotAppliedError(Exception):
    """The server took a write but had not applied it when it answered; sending it again settles it."""


def applied(
    write: Callable[[], models.UpdateResult | list[models.UpdateResult]],
) -> Callable[[], None]:
    """``write``, failing until the server says that all of it is applied, not merely taken."""

    def settle() -> None:
        answer = write()
        results = answer if isinstance(answer, list) else [answer]
        if not results or any(item.status is not models.UpdateStatus.COMPLETED for item in results):
            raise NotAppliedError

    return settle


def call(operation: Callable[[], T], *, budget: float, sleep: Callable[[float], None] = time.sleep) -> T:
    """``operation()``, tried again while its failure is a passing one, for about ``budget`` seconds.

    Waits are drawn between nothing and a bound that doubles ("full jitter", Brooker, AWS
    Architecture Blog, 2015) so that many writers do not come back at once. A wait that the server
    asks for is kept; one past the budget ends the trying at once.

    Raises:
        StoreUnavailable: the budget is spent.
        StoreRefused: trying again would not help.
    """
    deadline = time.monotonic() + budget
    longest = _FIRST_WAIT
    while True:
        try:
            return operation()
        except (ApiException, QdrantException, NotAppliedError, *_UNREADABLE) as error:
            failure = translate_error(error)
            asked = _asked_wait(error)
            # Not a secret: spreads the retries.
            wait = max(asked, random.uniform(0, longest))  # noqa: S311
            if not failure.retryable or time.monotonic() + wait > deadline:
                raise failure from error
            log.warning("%s Trying again in %.1f s.", failure.message, wait)
        sleep(wait)
        longest = min(longest * 2, _LONGEST_WAIT)


def translate_error(error: Exception) -> StoreUnavailable:
    """Rowbeam's error for one of the client library's. Its text, which may quote rows, stays out."""
    if isinstance(error, UnexpectedResponse):
        return _for_response(error)
    if isinstance(error, QdrantException):
        # Raised for a 429 only; of the bare base class when its Retry-After is a date.
        return _for_status(429)
    if isinstance(error, NotAppliedError):
        return StoreUnavailable(f"{_SERVER} is too busy to apply a write.", hint="Try again later.")
    source = error.source if isinstance(error, ResponseHandlingException) else error
    if isinstance(source, httpx.TimeoutException):
        return StoreUnavailable(f"{_SERVER} did not answer in time.", hint="It may be overloaded.")
    if isinstance(source, httpx.TransportError):
        return StoreUnavailable(
            f"{_SERVER} cannot be reached ({type(source).__name__}).",
            hint="Check ROWBEAM_QDRANT_URL and that the server runs.",
        )
    return StoreRefused(
        f"{_SERVER} sent an answer that cannot be read ({type(source).__name__}).",
        hint="Check that ROWBEAM_QDRANT_URL is a Qdrant server of a version this release supports.",
    )


def _for_response(error: UnexpectedResponse) -> StoreUnavailable:
    # A proxy's or another service's 404 must not pass for an empty index.
    if error.status_code == 404 and _is_from_qdrant(error):
        return CollectionMissing()
    if error.status_code == 400 and b"Not existing vector name" in error.content:
        return StoreRefused(
            "The collection was made by an earlier release and has no room for words.",
            hint="Run the backfill again; it sets the index up.",
        )
    return _for_status(error.status_code or 0)


def _is_from_qdrant(error: UnexpectedResponse) -> bool:
    try:
        body = json.loads(error.content)
    except ValueError:
        return False
    status = body.get("status") if isinstance(body, dict) else None
    return isinstance(status, dict) and isinstance(status.get("error"), str)


def _for_status(status: int) -> StoreUnavailable:
    if status in _PASSING:
        reason = "throttles us" if status == 429 else "cannot answer now"
        return StoreUnavailable(f"{_SERVER} {reason} (HTTP {status}).", hint="Try again later.")
    reason, hint = _REFUSALS.get(status, ("gives an answer that was not expected", "See the server's log."))
    kind = CollectionExists if status == 409 else StoreRefused
    return kind(f"{_SERVER} {reason} (HTTP {status}).", hint=hint)


def _asked_wait(error: Exception) -> float:
    """Seconds of the answer's Retry-After; 0 when it has none or names a date."""
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    if isinstance(error, UnexpectedResponse):
        text = error.headers.get("Retry-After", "")
        return float(text) if text.isdecimal() else 0.0
    return 0.0
