"""What is counted where things happen, seen through the parts' public doors."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from ray_app.api.errors import install_error_handlers
from ray_app.api.middleware import RequestMiddleware
from ray_app.encoders.batching import BatchBudget
from ray_app.errors import (
    BudgetExhausted,
    InvalidFilter,
    IsolationViolation,
    Overloaded,
    ProviderUnavailable,
    StoreUnavailable,
)
from ray_app.metrics.counting import count_outcomes, count_part
from ray_app.metrics.declared import (
    COST,
    ENCODE_PADDING,
    ENCODE_TEXTS,
    ENCODE_TOKENS,
    GATEWAY_OPENINGS,
    HTTP_ERRORS,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    ISOLATION_VIOLATIONS,
    PROVIDER_SECONDS,
    PROVIDER_UP,
    QUEUE_SECONDS,
    QUEUE_TOKENS,
    RECORDS,
    STORE_SECONDS,
    TEXTS_DONE,
    TOKENS,
)
from ray_app.parts import Part, PartKey
from ray_app.providers.gateway_faults import Fault, Verdict
from ray_app.providers.port import Embedded
from ray_app.reports import Counts
from ray_app.serving.batcher import TokenBatcher
from ray_app.serving.breaker import BreakerPolicy, CircuitBreaker
from ray_app.serving.gateway_call import outcome_of
from ray_app.serving.pool import PricedTarget, ProviderPool
from ray_app.serving.port import EmbedCall, Lane
from ray_app.spaces import EmbeddingSpace
from ray_app.store.filters import require_tenant
from ray_app.store.payload import check_tenant
from ray_app.store.port import IndexKey
from ray_app.store.routing import RoutedStore
from ray_app.tenants import Placement, TenantScope
from tests.support.counted import Growth
from tests.support.fake_encoder import DIMENSIONS, FakeEncoder, tokens_of

TENANT = UUID(int=1)
SPACE = EmbeddingSpace(model="m", revision="r", dimensions=2, max_tokens=8)
INDEX = IndexKey("issues", "content", SPACE)


def test_a_batch_is_counted_with_its_padding_and_how_long_its_calls_waited() -> None:
    grown = Growth(ENCODE_TEXTS, ENCODE_TOKENS, ENCODE_PADDING, QUEUE_SECONDS)
    encoder = FakeEncoder()
    texts = ["one", "one two three four"]

    async def scene() -> None:
        batcher = TokenBatcher(encoder.encode, DIMENSIONS, BatchBudget(64, 8), provider="here")
        counts = [tokens_of(text) for text in texts]
        await batcher.embed(texts, counts, tenant=TENANT, lane=Lane.INTERACTIVE)
        batcher.sample()
        batcher.close()

    asyncio.run(scene())
    lengths = [tokens_of(text) for text in texts]
    assert grown.seen(ENCODE_TEXTS, "here", "online").total == len(texts)
    assert grown.of(ENCODE_TOKENS, "here", "online") == sum(lengths)
    assert grown.of(ENCODE_PADDING, "here", "online") == 2 * max(lengths) - sum(lengths) > 0
    assert grown.seen(QUEUE_SECONDS, "here", "interactive").count == 1
    assert QUEUE_TOKENS.values()["here", "interactive"] == 0


class Target:
    """A provider that ends each call as it is told."""

    name = "told"
    space = SPACE

    def __init__(self) -> None:
        self.error: BaseException | None = None

    async def embed(self, call: EmbedCall) -> Embedded:
        if self.error is not None:
            raise self.error
        return Embedded(np.ones((len(call.texts), 2), np.float32), 1)

    async def check(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "raised", "outcome"),
    [
        (None, None, "answered"),
        (ProviderUnavailable("down"), ProviderUnavailable, "unavailable"),
        (Overloaded("full", retry_after=1), Overloaded, "overloaded"),
        (BudgetExhausted("spent"), BudgetExhausted, "refused"),
        (asyncio.CancelledError(), asyncio.CancelledError, "cancelled"),
        (ZeroDivisionError(), ZeroDivisionError, "failed"),
    ],
)
def test_a_providers_call_is_measured_by_how_it_ends(error: Any, raised: Any, outcome: str) -> None:
    grown, target = Growth(PROVIDER_SECONDS), Target()
    pool = ProviderPool([PricedTarget(target)])
    target.error = error

    async def scene() -> None:
        call = EmbedCall(SPACE, ["text"], [1], TENANT)
        if raised is None:
            await pool.embed(call)
        else:
            with pytest.raises(raised):
                await pool.embed(call)

    asyncio.run(scene())
    assert grown.seen(PROVIDER_SECONDS, "told", outcome).count == 1
    pool.sample()
    assert PROVIDER_UP.values()["told",] == (outcome not in ("unavailable", "overloaded"))


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault(Verdict.WAIT, "", 429), "throttled"),
        (Fault(Verdict.WAIT, "", 503), "failed"),
        (Fault(Verdict.WAIT, ""), "failed"),
        (Fault(Verdict.SUSPECT, "", 500), "failed"),
        (Fault(Verdict.REFUSED, "", 400), "refused"),
        (Fault(Verdict.TOO_LARGE, "", 413), "refused"),
        (Fault(Verdict.DENIED, "", 401), "denied"),
    ],
)
def test_a_gateways_failure_has_one_outcome(fault: Fault, outcome: str) -> None:
    assert outcome_of(fault) == outcome


def test_a_breaker_counts_each_time_it_opens() -> None:
    grown, now = Growth(GATEWAY_OPENINGS), [0.0]
    breaker = CircuitBreaker(BreakerPolicy(failures=1, cool_down=1), lambda: now[0])
    breaker.failed(breaker.era, "down")
    now[0] = 2.0
    assert breaker.take_probe()
    breaker.probe_failed("still down", refused=True)
    breaker.probe_succeeded()
    assert grown.all(GATEWAY_OPENINGS) == {("failing",): 1, ("refused",): 1}


class Store:
    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    def count(self, *_: Any) -> int:
        if self._error is not None:
            raise self._error
        return 7


@pytest.mark.parametrize(
    ("placement", "engine"), [(Placement.EMBEDDED, "edge"), (Placement.POOLED, "server")]
)
@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "ok"), (StoreUnavailable("gone"), "error"), (InvalidFilter("no"), "refused")],
)
def test_a_stores_call_is_measured_by_engine_and_outcome(
    placement: Placement, engine: str, error: BaseException | None, outcome: str
) -> None:
    grown, store = Growth(STORE_SECONDS), Store(error)
    routed = RoutedStore(lambda: store, lambda: store)  # type: ignore[arg-type,return-value]
    scope = TenantScope(TENANT, placement, b"secret")
    if error is None:
        assert routed.count(scope, INDEX) == 7
    else:
        with pytest.raises(type(error)):
            routed.count(scope, INDEX)
    assert grown.seen(STORE_SECONDS, engine, "count", outcome).count == 1


class Foreign:
    def __init__(self) -> None:
        self.payload = {"_t": str(UUID(int=2))}


def test_a_wall_that_holds_something_back_is_counted() -> None:
    grown = Growth(ISOLATION_VIOLATIONS)
    scope = TenantScope(TENANT, Placement.EMBEDDED, b"secret")
    check_tenant(scope, [])
    assert grown.of(ISOLATION_VIOLATIONS) == 0
    with pytest.raises(IsolationViolation):
        check_tenant(scope, [Foreign()])  # type: ignore[list-item]
    with pytest.raises(IsolationViolation):
        require_tenant(object(), TENANT)
    assert grown.of(ISOLATION_VIOLATIONS) == 2


def test_a_part_is_counted_as_the_ledger_counts_it() -> None:
    grown = Growth(RECORDS, TEXTS_DONE, TOKENS, COST)
    counts = Counts(read=10, embedded=4, unchanged=3, no_text=1, dead=2, chunks=6, reused=2)
    key = PartKey("job", 1, 0, None, None)
    part = Part(key, "issues", "content", "s", 1, counts, provider="p", tokens=40, cost=Decimal("0.5"))
    count_part(part)
    assert grown.all(RECORDS) == {
        ("job", "issues", "p", "embedded"): 4,
        ("job", "issues", "none", "unchanged"): 3,
        ("job", "issues", "none", "no_text"): 1,
        ("job", "issues", "none", "dead"): 2,
    }
    assert grown.all(TEXTS_DONE) == {
        ("job", "issues", "p", "embedded"): 4,
        ("job", "issues", "p", "reused"): 2,
    }
    assert grown.all(TOKENS) == {("job", "issues", "p"): 40}
    assert grown.all(COST) == {("job", "issues", "p"): 0.5}


def test_pushed_records_of_an_older_state_count_as_unchanged_and_several_providers_as_that() -> None:
    grown = Growth(RECORDS)
    count_outcomes("online", "issues", "a,b", ["embedded", "older", "unchanged", "dead"])
    assert grown.all(RECORDS) == {
        ("online", "issues", "several", "embedded"): 1,
        ("online", "issues", "none", "unchanged"): 2,
        ("online", "issues", "none", "dead"): 1,
    }


def test_requests_are_counted_by_template_and_status_and_errors_by_code() -> None:
    grown = Growth(HTTP_REQUESTS, HTTP_SECONDS, HTTP_ERRORS)
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/things/{thing}")
    async def thing(thing: str) -> str:
        if thing == "broken":
            raise ZeroDivisionError
        if thing == "busy":
            raise Overloaded("full", retry_after=1)
        return thing

    app.add_middleware(RequestMiddleware)
    sent = [("GET", "/things/a-secret"), ("GET", "/things/broken"), ("GET", "/things/busy"), ("GET", "/no")]
    sent += [("BREW", "/things/tea")]

    async def scene() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for method, path in sent:
                await client.request(method, path)

    asyncio.run(scene())
    route = "/things/{thing}"
    assert grown.all(HTTP_REQUESTS) == {
        ("GET", route, "2xx"): 1,
        ("GET", route, "5xx"): 2,
        ("GET", "none", "4xx"): 1,
        ("other", route, "4xx"): 1,
    }
    assert ("GET", route, "4xx") in HTTP_REQUESTS.totals()  # it begins at 0, for its growth to be seen
    assert grown.seen(HTTP_SECONDS, "GET", route).count == 3
    codes = {"internal_error": 1, "overloaded": 1, "unknown_url": 1, "method_not_allowed": 1}
    assert grown.all(HTTP_ERRORS) == {(code,): number for code, number in codes.items()}
