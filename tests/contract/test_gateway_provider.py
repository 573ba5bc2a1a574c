"""The gateway provider against a real HTTP server that misbehaves in every way endpoints do."""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import numpy as np
import pytest
from pydantic import SecretStr

from ray_app.errors import ItemError, ProviderRefused, ProviderUnavailable
from ray_app.providers.gateway import GatewayProvider, probe_dimensions
from ray_app.providers.gateway_client import HARMLESS
from ray_app.providers.retry import Backoff
from ray_app.settings import GatewaySettings
from tests.support import fake_gateway as fake
from tests.support.fake_gateway import FakeGateway, vector_of

KEY = "sk-test-0123456789"
#: No test should wait for real backoffs.
QUICK = Backoff(base=0.001, cap=0.01)
#: A step that changes nothing, to let scripted failures begin later.
HEALTHY = fake.Altered(lambda body: body)
TEXTS = [f"text number {number}" for number in range(10)]

MakeProvider = Callable[..., GatewayProvider]


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway(api_key=KEY) as server:
        yield server


@pytest.fixture
def connect() -> Iterator[MakeProvider]:
    """Make a provider for a gateway; it is closed after the test."""
    providers: list[GatewayProvider] = []

    def make(gateway: FakeGateway, *, concurrency: int = 4, **settings: object) -> GatewayProvider:
        values = {
            "url": gateway.url,
            "api_key": KEY,
            "model": "fake-embedding",
            "timeout": 5.0,
            "outage_budget": 5.0,
        } | settings
        provider = GatewayProvider(
            GatewaySettings.model_validate(values), concurrency=concurrency, backoff=QUICK
        )
        providers.append(provider)
        gateway.requests.clear()
        return provider

    yield make
    for provider in providers:
        provider.close()


def expected(texts: list[str], dimensions: int = 8) -> np.ndarray:
    rows = np.stack([vector_of(text, dimensions) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def statuses(gateway: FakeGateway) -> list[int]:
    return [request.status for request in gateway.requests]


def sizes(gateway: FakeGateway) -> list[int]:
    return [len(request.texts) for request in gateway.requests if request.texts != [HARMLESS]]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


# What it gives.


def test_vectors_are_normalised_and_in_the_order_of_the_texts(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    embedded = connect(gateway).embed_documents(TEXTS)
    assert embedded.vectors.dtype == np.float32
    np.testing.assert_allclose(embedded.vectors, expected(TEXTS), rtol=1e-5, atol=1e-6)
    assert embedded.faults == {}
    assert len(gateway.requests) == 1


def test_a_query_and_a_document_of_the_same_text_are_equal(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    provider = connect(gateway)
    np.testing.assert_array_equal(provider.embed_query("one"), provider.embed_documents(["one"]).vectors[0])


def test_no_texts_need_no_request(gateway: FakeGateway, connect: MakeProvider) -> None:
    embedded = connect(gateway).embed_documents([])
    assert embedded.vectors.shape == (0, 8)
    assert gateway.requests == []


def test_an_event_loop_can_await_it_and_call_it(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway)

    async def both() -> None:
        documents, query = await asyncio.gather(
            provider.aembed_documents(TEXTS), provider.aembed_query(TEXTS[3])
        )
        np.testing.assert_allclose(query, documents.vectors[3], rtol=1e-6)
        np.testing.assert_allclose(provider.embed_query(TEXTS[3]), query, rtol=1e-6)

    asyncio.run(both())


def test_connections_are_kept(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway)
    for text in TEXTS:
        provider.embed_query(text)
    assert len(gateway._connections) == 1


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_blank_text_is_a_fault_and_never_sent(gateway: FakeGateway, connect: MakeProvider, text: str) -> None:
    provider = connect(gateway)
    embedded = provider.embed_documents(["one", text, "two"])
    assert set(embedded.faults) == {1}
    assert not embedded.vectors[1].any()
    assert gateway.texts == ["one", "two"]
    with pytest.raises(ItemError):
        provider.embed_query(text)


def test_odd_text_arrives_as_it_is(gateway: FakeGateway, connect: MakeProvider) -> None:
    texts = ["emoji 👩‍💻", 'quote " backslash \\ newline \n', "nul \x00", "中文", "a" * 100_000]
    embedded = connect(gateway).embed_documents([*texts, "half a pair \ud800"])
    assert gateway.texts == texts
    assert set(embedded.faults) == {5}


# Space, size and price.


def test_the_space_of_an_unknown_model_has_the_probed_size() -> None:
    with FakeGateway(dimensions=24) as server:
        settings = GatewaySettings(url=server.url, model="unknown-model")
        assert probe_dimensions(settings) == 24
        provider = GatewayProvider(settings)
        assert provider.space.dimensions == 24
        assert [request.texts for request in server.requests] == [[HARMLESS]] * 2
        provider.close()


def test_a_known_model_is_not_probed(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, model="text-embedding-3-large")
    assert (provider.space.dimensions, provider.space.max_tokens) == (3072, 8191)
    assert gateway.requests == []


def test_two_endpoints_that_serve_one_model_serve_one_space(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    with FakeGateway(api_key=KEY) as other:
        assert connect(gateway).space.space_id == connect(other).space.space_id


def test_dimensions_are_sent_only_when_configured(gateway: FakeGateway, connect: MakeProvider) -> None:
    connect(gateway).embed_query("a")
    assert "dimensions" not in gateway.requests[-1].body
    provider = connect(gateway, dimensions=5)
    assert provider.embed_query("a").shape == (5,)
    assert gateway.requests[-1].body["dimensions"] == 5


def test_tokens_and_cost_come_from_the_answers(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, price_per_million=0.5, max_inputs=4)
    embedded = provider.embed_documents(TEXTS)
    assert embedded.tokens == 30
    assert embedded.cost == Decimal("0.000015")


def test_tokens_are_estimated_when_the_endpoint_does_not_count(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    gateway.behaviour.counts_usage = False
    assert connect(gateway, price_per_million=1).embed_documents(["a" * 25, "b" * 24]).tokens == 20


def test_an_unknown_price_is_known_to_be_unknown(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway)
    assert provider.price is None
    assert provider.embed_documents(["a"]).cost == 0


# Differences between endpoints.


@pytest.mark.parametrize("field", ["encoding_format", "dimensions"])
def test_a_refused_field_is_left_out_from_then_on(
    gateway: FakeGateway, connect: MakeProvider, field: str
) -> None:
    gateway.behaviour.refuses = {field}
    provider = connect(gateway, dimensions=8)
    for _ in range(2):
        embedded = provider.embed_documents(TEXTS)
        np.testing.assert_allclose(embedded.vectors, expected(TEXTS), rtol=1e-5, atol=1e-6)
        assert embedded.faults == {}
    assert statuses(gateway)[-1] == 200
    assert [request.status for request in gateway.requests if request.texts == TEXTS] == [400, 200, 200]


def test_refused_dimensions_that_the_model_does_not_have_are_an_operators_matter(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    gateway.behaviour.refuses = {"dimensions"}
    with pytest.raises(ProviderRefused, match="8 dimensions where 5 are expected"):
        connect(gateway, dimensions=5).embed_documents(TEXTS)


def test_decimal_numbers_are_read_when_base64_was_asked_for(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    gateway.behaviour.floats_only = True
    embedded = connect(gateway).embed_documents(TEXTS)
    assert gateway.requests[-1].body["encoding_format"] == "base64"
    np.testing.assert_allclose(embedded.vectors, expected(TEXTS), rtol=1e-5, atol=1e-6)


def test_vectors_are_placed_by_index(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway)
    gateway.script(fake.items(lambda items: items[::-1]))
    np.testing.assert_allclose(provider.embed_documents(TEXTS).vectors, expected(TEXTS), rtol=1e-5, atol=1e-6)


def test_without_indexes_texts_are_sent_one_by_one(gateway: FakeGateway, connect: MakeProvider) -> None:
    gateway.behaviour.indexed = False
    provider = connect(gateway)
    embedded = provider.embed_documents(TEXTS[:4])
    np.testing.assert_allclose(embedded.vectors, expected(TEXTS[:4]), rtol=1e-5, atol=1e-6)
    gateway.requests.clear()
    provider.embed_documents(TEXTS[:4])
    assert sizes(gateway) == [1, 1, 1, 1]


def test_a_vector_left_out_is_asked_for_again(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway)
    gateway.script(fake.items(lambda items: items[:3] + items[4:]))
    embedded = provider.embed_documents(TEXTS)
    np.testing.assert_allclose(embedded.vectors, expected(TEXTS), rtol=1e-5, atol=1e-6)
    assert [request.texts for request in gateway.requests] == [TEXTS, [TEXTS[3]]]


@pytest.mark.parametrize(
    "step",
    [
        fake.Reply(200, b"<html>welcome</html>"),
        fake.Reply(200, b"[]"),
        fake.Reply(200, b'{"error": {"message": "upstream"}}'),
        fake.altered("data", [1, 2]),
        fake.items(lambda items: [item | {"index": 0} for item in items]),
        fake.items(lambda items: [item | {"index": item["index"] + 1} for item in items]),
        fake.items(lambda items: [items[0] | {"embedding": [1.0]}, *items[1:]]),
        fake.items(lambda items: [*items, items[0]]),
    ],
)
def test_an_answer_that_makes_no_sense_is_asked_for_again(
    gateway: FakeGateway, connect: MakeProvider, step: fake.Step
) -> None:
    provider = connect(gateway)
    gateway.script(step)
    embedded = provider.embed_documents(TEXTS)
    np.testing.assert_allclose(embedded.vectors, expected(TEXTS), rtol=1e-5, atol=1e-6)
    assert [request.texts for request in gateway.requests] == [TEXTS, TEXTS]


def test_vectors_of_another_size_are_refused(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway)
    gateway.dimensions = 9
    with pytest.raises(ProviderRefused, match="9 dimensions where 8 are expected") as caught:
        provider.embed_documents(TEXTS)
    assert "ROWBEAM_GATEWAY_DIMENSIONS" in str(caught.value)


def test_vectors_of_another_known_model_are_refused(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, model="text-embedding-3-small", dimensions=8)
    gateway.behaviour.model = "text-embedding-ada-002-v2"
    with pytest.raises(ProviderRefused, match="serves text-embedding-ada-002-v2, not text-embedding-3-small"):
        provider.embed_documents(TEXTS)


# Limits.


def test_requests_stay_within_the_configured_limits(gateway: FakeGateway, connect: MakeProvider) -> None:
    connect(gateway, max_inputs=3).embed_documents(TEXTS)
    assert sorted(sizes(gateway)) == [1, 3, 3, 3]
    gateway.requests.clear()
    connect(gateway, max_request_tokens=18).embed_documents(["a" * 15] * 10)  # 6 estimated tokens each
    assert sorted(sizes(gateway)) == [1, 3, 3, 3]


@pytest.mark.parametrize(
    ("status", "message", "first_sizes"),
    [
        (400, "Too many inputs. The max number of inputs is {limit}.", [10, 3]),
        (422, "batch size {count} > maximum allowed batch size {limit}", [10, 3]),
        (413, "batch size {count} > maximum allowed batch size {limit}", [10, 3]),
        (400, "<400> batch size is invalid, it should not be larger than {limit}.", [10, 3]),
        (400, "Too many inputs.", [10, 5]),
        (400, "no", [10, 5]),
        (422, "unprocessable", [10, 5]),
    ],
)
def test_a_limit_on_inputs_is_learnt(
    gateway: FakeGateway, connect: MakeProvider, status: int, message: str, first_sizes: list[int]
) -> None:
    gateway.behaviour.max_inputs = 3
    gateway.behaviour.too_many = (status, message)
    provider = connect(gateway)
    embedded = provider.embed_documents(TEXTS)
    np.testing.assert_allclose(embedded.vectors, expected(TEXTS), rtol=1e-5, atol=1e-6)
    assert embedded.faults == {}
    assert sizes(gateway)[:2] == first_sizes
    gateway.requests.clear()
    provider.embed_documents(TEXTS)
    assert set(statuses(gateway)) == {200}, "the limit is remembered"


def test_requests_that_wait_are_cut_to_the_limit_learnt_meanwhile(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    gateway.behaviour.max_inputs = 3
    provider = connect(gateway, max_inputs=10, concurrency=2)
    texts = [f"text {number}" for number in range(100)]
    np.testing.assert_allclose(provider.embed_documents(texts).vectors, expected(texts), rtol=1e-5, atol=1e-6)
    assert statuses(gateway).count(400) <= 2, "no more than were under way together"


def test_one_input_at_a_time_is_learnt_too(gateway: FakeGateway, connect: MakeProvider) -> None:
    gateway.behaviour.max_inputs = 1
    assert connect(gateway).embed_documents(TEXTS).faults == {}
    assert sizes(gateway) == [10] + [1] * 10


def test_a_limit_on_tokens_is_learnt(gateway: FakeGateway, connect: MakeProvider) -> None:
    gateway.behaviour.max_request_tokens = 10
    provider = connect(gateway)
    assert provider.embed_documents(TEXTS).faults == {}
    gateway.requests.clear()
    provider.embed_documents(TEXTS)
    assert set(statuses(gateway)) == {200}


def test_a_limit_on_the_body_is_learnt(gateway: FakeGateway, connect: MakeProvider) -> None:
    gateway.behaviour.max_body = 4_000
    provider = connect(gateway)
    texts = [f"{number} " + "a" * 1_000 for number in range(10)]
    assert provider.embed_documents(texts).faults == {}
    gateway.requests.clear()
    provider.embed_documents(texts)
    assert set(statuses(gateway)) == {200}


def test_a_text_too_large_for_any_request_is_a_fault(gateway: FakeGateway, connect: MakeProvider) -> None:
    gateway.behaviour.max_body = 4_000
    embedded = connect(gateway).embed_documents(["one", "a" * 5_000, "two"])
    assert set(embedded.faults) == {1}
    assert "413" in str(embedded.faults[1])


# Texts at fault.


@pytest.mark.parametrize("status", [400, 422, 500, 424])
def test_texts_at_fault_do_not_spoil_the_others(
    gateway: FakeGateway, connect: MakeProvider, status: int
) -> None:
    gateway.behaviour.poison = {"number 3", "number 7"}
    gateway.behaviour.poison_status = status
    embedded = connect(gateway).embed_documents(TEXTS)
    assert set(embedded.faults) == {3, 7}
    assert all(isinstance(fault, ItemError) for fault in embedded.faults.values())
    good = [number for number in range(10) if number not in {3, 7}]
    np.testing.assert_allclose(embedded.vectors[good], expected(TEXTS)[good], rtol=1e-5, atol=1e-6)
    assert not embedded.vectors[[3, 7]].any()


def test_nan_is_the_texts_fault(gateway: FakeGateway, connect: MakeProvider) -> None:
    gateway.behaviour.nan = {"number 3"}
    embedded = connect(gateway).embed_documents(TEXTS)
    assert set(embedded.faults) == {3}
    assert np.isfinite(embedded.vectors).all()


def test_a_fault_of_a_query_is_raised(gateway: FakeGateway, connect: MakeProvider) -> None:
    gateway.behaviour.poison = {"bad"}
    with pytest.raises(ItemError, match="HTTP 400, invalid_request_error"):
        connect(gateway).embed_query("bad")


def test_no_text_is_charged_when_the_endpoint_refuses_everything(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    provider = connect(gateway)
    with gateway.outage(fake.error(400, "model_not_found")), pytest.raises(ProviderRefused, match="harmless"):
        provider.embed_documents(TEXTS)
    assert len(gateway.requests) == 3, "the texts, a harmless one, a harmless one in a simpler form"


def test_no_text_is_charged_when_the_endpoint_gives_nan_for_everything(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    provider = connect(gateway)
    gateway.behaviour.nan = {""}
    with pytest.raises(ProviderUnavailable, match="usable"):
        provider.embed_documents(TEXTS)


@pytest.mark.parametrize("status", [400, 500])
def test_no_text_is_charged_when_the_endpoint_breaks_while_looking_for_the_fault(
    gateway: FakeGateway, connect: MakeProvider, status: int
) -> None:
    provider = connect(gateway, outage_budget=0.3)
    failure = fake.error(status)
    # The texts fail, the harmless one does not; but then everything does.
    gateway.script(*[failure] * (4 if status == 500 else 1), HEALTHY)
    with gateway.outage(failure), pytest.raises(ProviderUnavailable):
        provider.embed_documents(TEXTS)


# Failures of the endpoint.


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
    np.testing.assert_allclose(embedded.vectors, expected(TEXTS), rtol=1e-5, atol=1e-6)
    assert [request.texts for request in gateway.requests] == [TEXTS] * 3


def test_a_request_that_times_out_is_retried(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, timeout=0.2)
    gateway.script(fake.Hang())
    assert provider.embed_documents(TEXTS).faults == {}
    assert len(gateway.requests) == 2


def test_an_answer_that_trickles_in_times_out_as_a_whole(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway, timeout=0.3)
    gateway.script(fake.Trickle(0.02))
    assert provider.embed_documents(TEXTS).faults == {}
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
        until(lambda: "Next try" in caplog.text)
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
    gateway.script(*[fake.rate_limited(retry_after_ms="300"), HEALTHY] * 4)
    assert provider.embed_documents(TEXTS).faults == {}
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
    provider = connect(gateway, outage_budget=0.3)
    with gateway.outage(fake.error(status)), pytest.raises(ProviderUnavailable, match=f"HTTP {status}"):
        provider.embed_documents(TEXTS)
    assert len(gateway.requests) > 1
    assert provider.embed_documents(TEXTS).faults == {}, "it works again after the outage"


def test_a_server_that_is_gone_is_an_outage_and_may_come_back(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    provider = connect(gateway, outage_budget=0.3)
    gateway.close()
    with pytest.raises(ProviderUnavailable, match="no connection"):
        provider.embed_documents(TEXTS)
    gateway.restart()
    assert provider.embed_documents(TEXTS).faults == {}


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
        until(lambda: bool(gateway.requests))
        provider.close()
        with pytest.raises(RuntimeError, match="closed"):
            call.result(timeout=10)
    with pytest.raises(RuntimeError, match="closed"):
        provider.embed_query("late")
    assert not [thread for thread in threading.enumerate() if thread.name == "rowbeam-gateway"]


# Addresses and secrets.


def test_azure_deployments_are_asked_the_azure_way(connect: MakeProvider) -> None:
    with FakeGateway(api_key=KEY, deployment="small") as server:
        assert connect(server).embed_query("one").shape == (8,)
        (request,) = server.requests
        assert request.path == "/openai/deployments/small/embeddings"
        assert request.query == {"api-version": ["2024-02-01"]}
        assert request.headers["api-key"] == KEY
        assert "authorization" not in request.headers


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/embeddings", "/embeddings"])
def test_a_url_may_be_given_with_or_without_its_end(
    gateway: FakeGateway, connect: MakeProvider, path: str
) -> None:
    assert connect(gateway, url=gateway.base_url + path).embed_query("one").shape == (8,)


def test_no_key_sends_none(connect: MakeProvider) -> None:
    with FakeGateway() as server:
        connect(server, api_key=None).embed_query("one")
        assert not {"authorization", "api-key"} & server.requests[0].headers.keys()


def test_neither_key_nor_text_shows_in_errors_logs_or_repr(
    gateway: FakeGateway, connect: MakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret_text = "the salary of Ada is 31337"
    provider = connect(gateway, outage_budget=0.3)
    gateway.behaviour.poison = {"salary"}  # the fake repeats the text in its message, and the key on 401
    shown = [repr(provider), repr(provider.embed_documents([secret_text, "b"]).faults)]
    gateway.behaviour.poison = set()
    steps = [[fake.error(503, message=secret_text)] * 2, [fake.Reply(200, secret_text.encode())]]
    for step in steps:
        gateway.script(*step)
        provider.embed_documents([secret_text])
    with gateway.outage(fake.error(503, KEY, KEY)), pytest.raises(ProviderUnavailable) as down:
        provider.embed_documents([secret_text])
    gateway.api_key = "another"
    with pytest.raises(ProviderRefused) as refused:
        provider.embed_documents([secret_text])
    shown += [repr(down.value), str(down.value), repr(refused.value), str(refused.value), caplog.text]
    assert "Next try in" in caplog.text
    for text in shown:
        assert KEY not in text
        assert "salary" not in text


def test_settings_mask_the_key() -> None:
    assert KEY not in repr(GatewaySettings(url="http://x", api_key=SecretStr(KEY)))
