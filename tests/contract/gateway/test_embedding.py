"""What the gateway provider gives when the endpoint is well."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal

import numpy as np
import pytest
from pydantic import SecretStr

from ray_app.errors import ItemError, ProviderRefused, ProviderUnavailable
from ray_app.providers.gateway import GatewayProvider, probe_dimensions
from ray_app.providers.gateway_client import HARMLESS
from ray_app.settings import GatewaySettings
from tests.support import fake_gateway_steps as fake
from tests.support.fake_gateway import FakeGateway
from tests.support.gateway_helpers import (
    KEY,
    TEXTS,
    MakeProvider,
    assert_embedded,
)


def test_vectors_are_normalised_and_in_the_order_of_the_texts(
    gateway: FakeGateway, connect: MakeProvider
) -> None:
    embedded = connect(gateway).embed_documents(TEXTS)
    assert embedded.vectors.dtype == np.float32
    assert_embedded(embedded, TEXTS)
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
    assert gateway.connections == 1


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
