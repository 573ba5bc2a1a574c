"""Endpoints that speak the API in their own way."""

from __future__ import annotations

import pytest

from ray_app.errors import ProviderRefused
from tests.support import fake_gateway_steps as fake
from tests.support.fake_gateway import FakeGateway
from tests.support.gateway_helpers import (
    TEXTS,
    MakeProvider,
    assert_embedded,
    sizes,
    statuses,
)


@pytest.mark.parametrize("field", ["encoding_format", "dimensions"])
def test_a_refused_field_is_left_out_from_then_on(
    gateway: FakeGateway, connect: MakeProvider, field: str
) -> None:
    gateway.behaviour.refuses = {field}
    provider = connect(gateway, dimensions=8)
    for _ in range(2):
        embedded = provider.embed_documents(TEXTS)
        assert_embedded(embedded, TEXTS)
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
    assert_embedded(embedded, TEXTS)


def test_vectors_are_placed_by_index(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway)
    gateway.script(fake.items(lambda items: items[::-1]))
    assert_embedded(provider.embed_documents(TEXTS), TEXTS)


def test_without_indexes_texts_are_sent_one_by_one(gateway: FakeGateway, connect: MakeProvider) -> None:
    gateway.behaviour.indexed = False
    provider = connect(gateway)
    embedded = provider.embed_documents(TEXTS[:4])
    assert_embedded(embedded, TEXTS[:4])
    gateway.requests.clear()
    provider.embed_documents(TEXTS[:4])
    assert sizes(gateway) == [1, 1, 1, 1]


def test_a_vector_left_out_is_asked_for_again(gateway: FakeGateway, connect: MakeProvider) -> None:
    provider = connect(gateway)
    gateway.script(fake.items(lambda items: items[:3] + items[4:]))
    embedded = provider.embed_documents(TEXTS)
    assert_embedded(embedded, TEXTS)
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
    assert_embedded(embedded, TEXTS)
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
