"""Every error in OpenAI's shape, with the truth about trying again and nothing about the inside."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ray_app import errors
from ray_app.api.documentation import DOCUMENTED_ERRORS
from ray_app.errors import RowbeamError
from ray_app.logs import configure_logs
from ray_app.serving.options import ServingOptions
from ray_app.settings import Settings
from tests.support.api_site import ApiSite
from tests.support.waiting import wait_for

SECRET = "db.internal:5432"


def everything(kind: type[RowbeamError] = RowbeamError) -> list[type[RowbeamError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(below for child in children for below in everything(child))]


@pytest.fixture(scope="module")
def raising(shared_site: ApiSite) -> Callable[[Exception], None]:
    """Makes ``GET /v1/raise`` raise this."""
    raised: list[Exception] = []

    async def fail() -> None:
        raise raised[-1]

    shared_site.app.add_api_route("/v1/raise", fail)
    return raised.append


@pytest.fixture
def answer_of(
    raising: Callable[[Exception], None], shared_http: httpx.Client
) -> Callable[[Exception], httpx.Response]:
    def answer(error: Exception) -> httpx.Response:
        raising(error)
        return shared_http.get("/v1/raise")

    return answer


Answer = Callable[[Exception], httpx.Response]


def make(kind: type[RowbeamError], message: str, **more: Any) -> RowbeamError:
    if issubclass(kind, errors.JobConflict):
        return kind(message, job_id="job-7", **more)
    if issubclass(kind, errors.RateLimited | errors.Overloaded):
        return kind(message, **{"retry_after": 1.5} | more)
    return kind(message, **more)


def check_shape(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)
    assert body["error"]["message"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("kind", everything(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_has_a_documented_status_and_the_shape(
    kind: type[RowbeamError], answer_of: Answer
) -> None:
    response = answer_of(make(kind, "What happened.", hint="What to do."))
    check_shape(response)
    assert response.status_code in DOCUMENTED_ERRORS


@pytest.mark.parametrize(
    "kind",
    [
        RowbeamError,
        errors.ConfigError,
        errors.InvalidTableSpec,
        *everything(errors.DependencyError),
        errors.IsolationViolation,
    ],
    ids=lambda kind: kind.__name__,
)
def test_what_is_the_operators_business_stays_in_the_log(
    kind: type[RowbeamError], answer_of: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    response = answer_of(make(kind, f"Nothing answers at {SECRET}.", hint=f"Start {SECRET}."))
    assert response.status_code in (500, 503)
    assert SECRET not in response.text
    assert SECRET in caplog.text


@pytest.mark.parametrize(
    ("error", "status", "code", "kind"),
    [
        (errors.InputError("No.", param="rows[3]"), 400, None, "invalid_request_error"),
        (errors.ItemError("No."), 400, "invalid_input", "invalid_request_error"),
        (errors.AuthError("No."), 401, "invalid_api_key", "authentication_error"),
        (errors.PermissionDenied("No."), 403, "permission_denied", "permission_error"),
        (errors.UnknownModel("No."), 404, "model_not_found", "invalid_request_error"),
        (errors.TooLarge("No."), 413, "request_too_large", "invalid_request_error"),
        (errors.JobConflict("No.", job_id="j"), 409, "job_conflict", "conflict_error"),
        (errors.RateLimited("No.", retry_after=1), 429, "rate_limit_exceeded", "rate_limit_error"),
        (errors.BudgetExhausted("No."), 429, "insufficient_quota", "insufficient_quota"),
        (errors.ProviderRefused("No."), 503, "provider_unavailable", "server_error"),
        (errors.Overloaded("No.", retry_after=1), 503, "overloaded", "server_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_codes_and_types_are_those_that_clients_branch_on(
    error: RowbeamError, status: int, code: str | None, kind: str, answer_of: Answer
) -> None:
    response = answer_of(error)
    body = check_shape(response)
    assert (response.status_code, body["code"], body["type"]) == (status, code, kind)
    assert body["param"] == getattr(error, "param", None)


@pytest.mark.parametrize(
    ("error", "should", "seconds", "milliseconds"),
    [
        (errors.RateLimited("No.", retry_after=0.0004), "true", "1", "1"),
        (errors.RateLimited("No.", retry_after=2.3411), "true", "3", "2342"),
        (errors.Overloaded("No.", retry_after=120.0), "true", "120", "120000"),
        (errors.RateLimited("No.", retry_after=120.5), "false", "121", "120500"),
        (errors.ProviderUnavailable("No.", retry_after=7), "true", "7", "7000"),
        (errors.ProviderUnavailable("No."), "true", None, None),
        (errors.ProviderRefused("No.", retry_after=7), "false", None, None),
        (errors.DatabaseUnavailable("No."), "true", None, None),
        (errors.BudgetExhausted("No."), "false", None, None),
        (errors.JobConflict("No.", job_id="j"), "false", None, None),
        (errors.ConfigError("No."), "false", None, None),
        (errors.IsolationViolation("No."), "false", None, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_when_to_try_again_is_said_to_the_millisecond(
    error: RowbeamError, should: str, seconds: str | None, milliseconds: str | None, answer_of: Answer
) -> None:
    headers = answer_of(error).headers
    assert headers.get("x-should-retry") == should
    assert (headers.get("retry-after"), headers.get("retry-after-ms")) == (seconds, milliseconds)


def test_a_hint_for_the_command_line_is_left_out(answer_of: Answer) -> None:
    for hint in ("rowbeam tenant list shows all.", "Set ROWBEAM_GATEWAY_URL.", "Use --resume."):
        assert (
            answer_of(errors.UnknownJob("No such job.", hint=hint)).json()["error"]["message"]
            == "No such job."
        )
    response = answer_of(errors.UnknownJob("No such job.", hint="Look at your jobs."))
    assert response.json()["error"]["message"] == "No such job. Look at your jobs."


def test_what_nobody_expected_is_500_with_the_reason_in_the_log_only(
    answer_of: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    response = answer_of(RuntimeError(f"password of {SECRET}"))
    assert response.status_code == 500
    assert check_shape(response)["code"] == "internal_error"
    assert SECRET not in response.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/nothing", 404, "unknown_url"),
        ("POST", "/v1/embeddings/", 404, "unknown_url"),
        ("GET", "/healthz/", 404, "unknown_url"),
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_addresses_and_methods_that_are_not_there(
    shared_http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = shared_http.request(method, path)
    assert (response.status_code, check_shape(response)["code"]) == (status, code)


def test_a_request_id_comes_back_and_a_bad_one_is_replaced(shared_http: httpx.Client) -> None:
    def round_trip(value: str | bytes) -> str:
        headers: dict[str, Any] = {"x-request-id": value}
        return shared_http.get("/healthz", headers=headers).headers["x-request-id"]

    assert round_trip("my-id:7") == "my-id:7"
    assert round_trip("x" * 128) == "x" * 128
    for bad in ("x" * 129, "two words", "", "caf\u00e9".encode("latin-1")):
        made = round_trip(bad)
        assert made != bad
        assert len(made) == 32
    assert round_trip("") != round_trip("")


def test_the_request_id_is_in_every_line_of_the_log(
    shared_http: httpx.Client, raising: Callable[[Exception], None], capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("ray_app")
    before = list(logger.handlers), logger.level
    lines: list[str] = []

    def logged() -> bool:
        """Whether both lines are there; the access is logged after the answer is sent."""
        lines.extend(line for line in capfd.readouterr().err.splitlines() if "healthz" not in line)
        return len(lines) >= 2

    for _ in range(2):
        configure_logs(Settings(home=Path("/nowhere"), log_format="text"))
    try:
        raising(errors.DatabaseUnavailable(f"Postgres at {SECRET} is gone."))
        shared_http.get("/v1/raise?q=query-value", headers={"x-request-id": "the-id"})
        wait_for(logged)
    finally:
        logger.handlers[:], logger.level = before
    assert len(lines) == 2  # each once
    assert all("request_id=the-id" in line for line in lines)
    assert "GET /v1/raise 503" in lines[1]
    assert "acme" not in "".join(lines), "the tenant goes by its incarnation"
    assert re.search(r"tenant=[0-9a-f-]{36}\]", lines[1])
    assert "query-value" not in "".join(lines)


@pytest.fixture
def small(make_settings: Callable[..., Settings]) -> Iterator[httpx.Client]:
    """A client of a server that takes 1,000 bytes."""
    options = ServingOptions(max_body_bytes=1000)
    with ApiSite(make_settings(), options=options) as site, site.http(site.add_tenant("acme")) as client:
        yield client


def test_a_body_over_the_limit_is_413_however_it_is_sent(small: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    body = b'{"model": "stub", "input": "' + b"x" * 970 + b'"}'
    assert len(body) == 1000
    assert small.post("/v1/embeddings", content=body, headers=headers).status_code == 200
    longer = body[:-1] + b" }"
    in_pieces = (longer[start : start + 100] for start in range(0, len(longer), 100))
    for content in (longer, in_pieces):
        response = small.post("/v1/embeddings", content=content, headers=headers)
        assert response.status_code == 413
        assert check_shape(response)["code"] == "request_too_large"
    assert small.post("/v1/embeddings", content=body, headers=headers).status_code == 200
