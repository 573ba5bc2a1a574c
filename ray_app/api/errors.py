"""Errors as OpenAI spells them: ``{"error": {"message", "type", "param", "code"}}``.

What is the caller's business is said; what is the operator's goes to the log, and the caller gets
the request id to ask with.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ray_app import errors
from ray_app.api.validation import describe
from ray_app.errors import DependencyError, InputError, RowbeamError
from ray_app.metrics.declared import HTTP_ERRORS, NONE

log = logging.getLogger(__name__)

#: Seconds; OpenAI's clients give up when asked to wait longer (openai-python 3.54, ``_base_client.py``).
LONGEST_RETRY_AFTER: Final = 120
#: The status over HTTP where it is not the error's own: a server that is set up wrong is not the
#: caller's fault, and OpenAI's API has no 422.
_STATUS: Final[Mapping[type[RowbeamError], int]] = {
    errors.ConfigError: 503,
    errors.InvalidTableSpec: 503,
    errors.ItemError: 400,
}
_CODES: Final[Mapping[type[RowbeamError], str]] = {
    errors.UnknownTenant: "tenant_not_found",
    errors.UnknownTable: "table_not_found",
    errors.UnknownVectorType: "unknown_vector_type",
    errors.UnknownJob: "job_not_found",
    errors.UnknownRecord: "record_not_found",
    errors.UnknownModel: "model_not_found",
    errors.UnknownKey: "key_not_found",
    errors.TooLarge: "request_too_large",
    errors.TextTooLong: "context_length_exceeded",
    errors.InvalidRecord: "invalid_record",
    errors.InvalidFilter: "invalid_filter",
    errors.ItemError: "invalid_input",
    errors.AuthError: "invalid_api_key",
    errors.PermissionDenied: "permission_denied",
    errors.RateLimited: "rate_limit_exceeded",
    errors.BudgetExhausted: "insufficient_quota",
    errors.TenantExists: "tenant_exists",
    errors.JobConflict: "job_conflict",
    errors.LostJob: "job_lost",
    errors.ConflictError: "conflict",
    errors.ConfigError: "not_configured",
    errors.InvalidTableSpec: "not_configured",
    errors.DatabaseUnavailable: "database_unavailable",
    errors.StoreUnavailable: "store_unavailable",
    errors.ProviderUnavailable: "provider_unavailable",
    errors.Overloaded: "overloaded",
    errors.RayUnavailable: "jobs_unavailable",
}
#: What is said in place of messages that name hosts, files or settings.
_PUBLIC: Final[Mapping[type[RowbeamError], str]] = {
    errors.ConfigError: "The server is not set up for this request.",
    errors.InvalidTableSpec: "The server is not set up for this table.",
    errors.DatabaseUnavailable: "The database cannot be reached at the moment.",
    errors.StoreUnavailable: "The vector store cannot be used at the moment.",
    errors.ProviderUnavailable: "No provider of this embedding space can answer at the moment.",
    errors.RayUnavailable: "Jobs cannot be started at the moment.",
    errors.Overloaded: "The server has as much work as it can do in time.",
    errors.DependencyError: "The server cannot answer at the moment.",
}
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_INTERNAL: Final = (
    "The server failed to answer this request; its operator finds the reason by the request id."
)
#: Hints for the command line's users are of no use to the caller of an API.
_COMMAND_LINE: Final = re.compile(r"\browbeam [a-z]|\bROWBEAM_|(?:^|\s)--[a-z]")


def error_response(error: RowbeamError) -> Response:
    """The answer for one of our errors; what it hides goes to the log."""
    status, message = say(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal_error(retry=error.retryable)
    body = error_body(
        message,
        kind=_type(status, error),
        code=_of(_CODES, error),
        param=getattr(error, "param", None),
    )
    return _answer(body, status, _headers(error, status))


def say(error: RowbeamError) -> tuple[int, str]:
    """The status, and what a caller is told; what is the operator's business goes to the log instead."""
    status = _of(_STATUS, error) or error.status
    public = _of(_PUBLIC, error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s: %s", type(error).__name__, error, exc_info=error)
        return status, _INTERNAL
    if public is not None:
        log.warning("%s: %s", type(error).__name__, error)
    return status, public or _message(error)


def internal_error(*, retry: bool = True) -> Response:
    """The 500 that says nothing about why."""
    headers = {} if retry else {"x-should-retry": "false"}
    return _answer(error_body(_INTERNAL, kind="server_error", code="internal_error"), 500, headers)


def error_body(
    message: str, *, kind: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of ours, FastAPI's and Starlette's in one shape."""
    app.add_exception_handler(RowbeamError, _on_rowbeam_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_rowbeam_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RowbeamError)  # noqa: S101 - for mypy: it was registered for no other
    return error_response(error)


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    problem = describe(error.errors())
    body = error_body(problem.message, kind="invalid_request_error", code=problem.code, param=problem.param)
    return _answer(body, 400)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, wrong method, a body that cannot be read."""
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    status = error.status_code
    message, code = {
        404: ("There is no such address; /openapi.json lists all.", "unknown_url"),
        405: (
            "This address does not take this method; the allow header names those it takes.",
            "method_not_allowed",
        ),
        413: (error.detail, "request_too_large"),
    }.get(status, ("The request cannot be read." if status < 500 else _INTERNAL, None))
    return _answer(error_body(message, kind=_type(status), code=code), status, error.headers)


def _answer(body: dict[str, Any], status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    HTTP_ERRORS.add(1, body["error"]["code"] or NONE)
    return JSONResponse(body, status, headers=headers)


def _of(table: Mapping[type[RowbeamError], Any], error: RowbeamError) -> Any:
    """The entry of the error's class, or of the nearest class above it."""
    return next((table[kind] for kind in type(error).__mro__ if kind in table), None)


def _message(error: RowbeamError) -> str:
    hint = error.hint if error.hint and not _COMMAND_LINE.search(error.hint) else None
    return f"{error.message} {hint}" if hint else error.message


def _type(status: int, error: RowbeamError | None = None) -> str:
    if isinstance(error, errors.BudgetExhausted):
        return "insufficient_quota"
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def _headers(error: RowbeamError, status: int) -> dict[str, str]:
    """When to try again, in the words that OpenAI's clients obey; a challenge for a missing key."""
    if status == HTTPStatus.UNAUTHORIZED:
        return {"www-authenticate": "Bearer"}
    if isinstance(error, InputError) and status < 500:
        return {}
    wait: float | None = getattr(error, "retry_after", None)
    retry = error.retryable and (wait is None or wait <= LONGEST_RETRY_AFTER)
    if isinstance(error, DependencyError) and not error.retryable:
        wait = None
    headers = {"x-should-retry": str(retry).lower()}
    if wait is not None:
        headers["retry-after"] = str(max(1, math.ceil(wait)))
        headers["retry-after-ms"] = str(max(1, math.ceil(wait * 1000)))
    return headers
