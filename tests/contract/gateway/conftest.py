from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ray_app.providers.gateway import GatewayProvider
from ray_app.settings import GatewaySettings, Settings
from ray_app.workspace import Workspace
from tests.support.fake_gateway import FakeGateway
from tests.support.gateway_helpers import KEY, QUICK, MakeProvider
from tests.support.proxy_site import ProxySite


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


@pytest.fixture
def proxy_site(gateway: FakeGateway, make_settings: Callable[..., Settings]) -> Iterator[ProxySite]:
    workspace = Workspace(make_settings())
    yield ProxySite(gateway, workspace)
    workspace.close()
