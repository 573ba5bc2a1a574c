"""Limits of an endpoint, learnt from its refusals."""

from __future__ import annotations

import pytest

from tests.support.fake_gateway import FakeGateway
from tests.support.gateway_helpers import (
    TEXTS,
    MakeProvider,
    assert_embedded,
    sizes,
    statuses,
)


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
    assert_embedded(embedded, TEXTS)
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
    assert_embedded(provider.embed_documents(texts), texts)
    assert statuses(gateway).count(400) <= 2, "no more than were under way together"


def test_one_input_at_a_time_is_learnt_too(gateway: FakeGateway, connect: MakeProvider) -> None:
    gateway.behaviour.max_inputs = 1
    assert connect(gateway).embed_documents(TEXTS).faults == {}
    assert sizes(gateway) == [10] + [1] * 10


def test_a_limit_on_tokens_is_learnt(gateway: FakeGateway, connect: MakeProvider) -> None:
    gateway.behaviour.max_request_tokens = 10
    provider = connect(gateway)
    assert_embedded(provider.embed_documents(TEXTS), TEXTS)
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
