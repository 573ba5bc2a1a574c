"""Retries of server calls, with the clock in the test's hand."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import httpx
import pytest
from qdrant_client.common import client_exceptions
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http import exceptions
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from ray_app.errors import StoreRefused, StoreUnavailable
from ray_app.store.server_calls import CollectionMissing, NotAppliedError, call, translate_error

MISSING = b'{"status": {"error": "Not found: Collection"}}'


def answered(status: int, content: bytes = b"", **headers: str) -> UnexpectedResponse:
    return UnexpectedResponse(status, "reason", content, httpx.Headers(headers))


class Flaky:
    """Raises ``errors`` in turn, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.waits: list[float] = []

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def run(self, budget: float = 1000.0) -> str:
        return call(self, budget=budget, sleep=self.waits.append)


def test_a_wait_the_server_asks_for_is_kept() -> None:
    flaky = Flaky(ResourceExhaustedResponse("", 7), answered(503, **{"Retry-After": "9"}), answered(429))
    assert flaky.run() == "done"
    assert flaky.waits[0] >= 7
    assert flaky.waits[1] >= 9
    assert flaky.waits[2] <= 1


def test_waits_stay_within_a_bound_that_doubles_up_to_a_limit() -> None:
    flaky = Flaky(*[answered(503) for _ in range(12)])
    assert flaky.run() == "done"
    assert all(0 <= wait <= min(0.25 * 2**n, 8) for n, wait in enumerate(flaky.waits))
    assert len(set(flaky.waits)) > 1


def test_a_wait_past_the_budget_is_not_begun() -> None:
    flaky = Flaky(ResourceExhaustedResponse("", 60))
    with pytest.raises(StoreUnavailable):
        flaky.run(budget=30)
    assert flaky.waits == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 507, 418])
def test_refusals_are_tried_once(status: int) -> None:
    flaky = Flaky(answered(status))
    with pytest.raises(StoreRefused):
        flaky.run()
    assert flaky.calls == 1


def test_a_defect_of_ours_is_not_dressed_up() -> None:
    with pytest.raises(TypeError):
        Flaky(TypeError("wrong argument")).run()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered(404, MISSING), CollectionMissing),
        (answered(404), StoreRefused),
        (ResponseHandlingException(httpx.ConnectError("refused")), StoreUnavailable),
        (ResponseHandlingException(httpx.ReadTimeout("slow")), StoreUnavailable),
        (ResponseHandlingException(ValueError("not a result")), StoreRefused),
        (NotAppliedError(), StoreUnavailable),
    ],
    ids=repr,
)
def test_each_error_has_its_name(error: Exception, kind: type[StoreUnavailable]) -> None:
    translated = translate_error(error)
    assert type(translated) is kind
    again = pickle.loads(pickle.dumps(translated))  # noqa: S301 - our own
    assert (type(again), str(again)) == (kind, str(translated))


@pytest.mark.parametrize("module", [exceptions, client_exceptions])
def test_every_error_of_the_client_is_caught(module: Any) -> None:
    """A class added by a later client fails here rather than in a job."""
    known = {
        "ApiException",
        "UnexpectedResponse",
        "ResponseHandlingException",
        "QdrantException",
        "ResourceExhaustedResponse",
    }
    defined = {
        name
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Exception) and value.__module__ == module.__name__
    }
    assert defined <= known
