"""Texts at fault, and the rule that no text is charged for the endpoint's failures."""

from __future__ import annotations

import numpy as np
import pytest

from ray_app.errors import ItemError, ProviderRefused, ProviderUnavailable
from tests.support import fake_gateway_steps as fake
from tests.support.fake_gateway import FakeGateway
from tests.support.gateway_helpers import (
    HEALTHY,
    TEXTS,
    MakeProvider,
    expected,
)


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
