"""An endpoint that is down, throttles, or refuses us."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from ray_app.errors import ProviderRefused, ProviderUnavailable
from tests.support import fake_gateway_steps as fake
from tests.support.fake_gateway import FakeGateway
from tests.support.gateway_helpers import (
    HEALTHY,
    TEXTS,
    MakeProvider,
    assert_embedded,
    statuses,
)
from tests.support.waiting import wait_for


@pytest.mark.parametrize(
    "step",
    [
        *(fake.error(status) for status in (408, 409, 429, 500, 502, 503, 504)),
        fake.rate_limited(retry_after="0"),
        fake.Drop(),
        fake.Drop(midway=True),
    ],
)
def test_what_passes_is_retried(gateway: FakeGateway, connect: MakeProvider, step: fake.Step) -> None:
    provider = connect(gateway)
    gateway.script(step, step)
    embedded = provider.embed_documents(TEXTS)
    assert_embedded(embedded, TEXTS)
    assert [request.texts for request in gateway.requests] == [TEXTS] * 3


def test_a_request_that_times_out_is_retried(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, timeout=1.0)
    gateway.script(fake.Hang())
    assert_embedded(provider.embed_documents(TEXTS), TEXTS)
    assert len(gateway.requests) == 2


def test_an_answer_that_trickles_in_times_out_as_a_whole(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, timeout=1.0)
    gateway.script(fake.Trickle(0.02))
    assert_embedded(provider.embed_documents(TEXTS), TEXTS)
    assert len(gateway.requests) == 2


@pytest.mark.parametrize(
    "headers",
    [{"retry_after_ms": "300"}, {"retry_after": "0.3"}, {"retry_after": "5", "retry_after_ms": "300"}],
)
def test_the_wait_asked_for_is_kept(
    gateway: FakeGateway, connect: MakeProvider, headers: dict[str, str]
) -> None:
    provider = connect(gateway)
    gateway.script(fake.rate_limited(**headers))
    provider.embed_documents(TEXTS)
    assert statuses(gateway) == [429, 200]
    assert gateway.requests[1].at - gateway.requests[0].at >= 0.3


def test_the_wait_asked_for_holds_for_other_calls(
    gateway: FakeGateway, connect: MakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider = connect(gateway)
    gateway.script(fake.rate_limited(retry_after_ms="300"))
    with ThreadPoolExecutor() as pool:
        first = pool.submit(provider.embed_query, "one")
        wait_for(lambda: "Next try" in caplog.text)
        provider.embed_query("two")
        first.result()
    refused, *others = gateway.requests
    assert len(others) == 2
    assert all(other.at - refused.at >= 0.3 for other in others)


def test_a_wait_longer_than_the_budget_is_not_waited(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, outage_budget=30)
    gateway.script(fake.rate_limited(retry_after="86400"))
    with pytest.raises(ProviderUnavailable) as caught:
        provider.embed_documents(TEXTS)
    assert caught.value.retry_after == 86400
    assert caught.value.retryable


def test_a_search_waits_less_than_a_job(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, outage_budget=300)
    gateway.script(fake.rate_limited(retry_after="15"))
    with pytest.raises(ProviderUnavailable) as caught:
        provider.embed_query("one")
    assert caught.value.retry_after == 15


def test_failures_with_successes_between_are_no_outage(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, outage_budget=1, concurrency=1, max_inputs=2)
    for _ in range(4):
        gateway.script(fake.rate_limited(retry_after_ms="300"), HEALTHY)
    assert_embedded(provider.embed_documents(TEXTS), TEXTS)
    assert gateway.requests[-1].at - gateway.requests[0].at > 1


def test_a_failure_ends_the_waits_of_its_call(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, outage_budget=300, max_inputs=5)
    gateway.behaviour.latency = 0.1  # so that both requests are on the wire
    gateway.script(fake.rate_limited(retry_after="50"), fake.insufficient_quota())
    with ThreadPoolExecutor() as pool:
        call = pool.submit(provider.embed_documents, TEXTS)
        with pytest.raises(ProviderRefused, match="insufficient_quota"):
            call.result(timeout=20)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_outage_ends_when_the_budget_does(
    gateway: FakeGateway, connect: MakeProvider, status: int
) -> None:
    provider = connect(gateway, outage_budget=1.0)
    with gateway.outage(fake.error(status)), pytest.raises(ProviderUnavailable, match=f"HTTP {status}"):
        provider.embed_documents(TEXTS)
    assert len(gateway.requests) > 1
    assert_embedded(provider.embed_documents(TEXTS), TEXTS)  # it works again after the outage


def test_a_server_that_is_gone_is_an_outage_and_may_come_back(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    provider = connect(gateway, outage_budget=0.3)
    gateway.close()
    with pytest.raises(ProviderUnavailable, match="no connection"):
        provider.embed_documents(TEXTS)
    gateway.restart()
    assert_embedded(provider.embed_documents(TEXTS), TEXTS)


def test_no_budget_means_no_second_try(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, outage_budget=0)
    gateway.script(fake.error(503))
    with pytest.raises(ProviderUnavailable):
        provider.embed_documents(TEXTS)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("step", "hint"),
    [
        (fake.insufficient_quota(), "quota"),
        (fake.error(401), "ROWBEAM_GATEWAY_API_KEY"),
        (fake.error(402), "quota"),
        (fake.error(403), "may not use"),
        (fake.error(404), "ROWBEAM_GATEWAY_MODEL"),
        (fake.Reply(302, b"", {"location": "http://127.0.0.1:1/"}), "redirects"),
        (fake.error(418), "ROWBEAM_GATEWAY_URL"),
    ],
)
def test_what_only_an_operator_can_change_is_not_retried(
    gateway: FakeGateway, connect: MakeProvider, step: fake.Step, hint: str
) -> None:
    provider = connect(gateway)
    gateway.script(step)
    with pytest.raises(ProviderRefused, match=hint) as caught:
        provider.embed_documents(TEXTS)
    assert not caught.value.retryable
    assert len(gateway.requests) == 1


def test_spending_of_a_failed_call_is_reported(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, max_inputs=2, price_per_million=1)
    gateway.behaviour.latency = 0.05  # so that several requests are under way when one is refused
    gateway.script(*[HEALTHY] * 3, fake.insufficient_quota())
    with pytest.raises(ProviderRefused) as caught:
        provider.embed_documents(TEXTS * 4)
    assert len(gateway.requests) < 20, "what was not sent yet is not sent any more"
    spent = sum(map(fake.tokens_of, gateway.texts))
    assert spent >= 3 * 2 * 3
    assert (caught.value.tokens, caught.value.cost) == (spent, Decimal(spent) / 1_000_000)
    clone = copy.copy(caught.value)  # as pickle does it between processes
    assert (clone.tokens, clone.cost, str(clone)) == (spent, caught.value.cost, str(caught.value))


def test_tokens_of_an_answer_that_makes_no_sense_are_counted(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    provider = connect(gateway)
    gateway.script(fake.items(lambda items: [item | {"index": 0} for item in items]))
    assert provider.embed_documents(TEXTS).tokens == 60


def test_closing_ends_a_call_that_waits(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway)
    gateway.script(fake.Hang())
    with ThreadPoolExecutor() as pool:
        call = pool.submit(provider.embed_documents, TEXTS)
        wait_for(lambda: bool(gateway.requests))
        provider.close()
        with pytest.raises(RuntimeError, match="closed"):
            call.result(timeout=10)
    with pytest.raises(RuntimeError, match="closed"):
        provider.embed_query("late")
    assert not [thread for thread in threading.enumerate() if thread.name == "rowbeam-gateway"]
