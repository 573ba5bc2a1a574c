"""A running API with one tenant for each test that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from ray_app.settings import Settings
from tests.support.api_site import ApiSite


@pytest.fixture
def site(make_settings: Callable[..., Settings]) -> Iterator[ApiSite]:
    """The API over the stub model, with no tenants."""
    with ApiSite(make_settings()) as site:
        yield site


@pytest.fixture
def key(site: ApiSite) -> str:
    """The key of a tenant ``acme``."""
    return site.add_tenant("acme")


@pytest.fixture
def http(site: ApiSite, key: str) -> Iterator[httpx.Client]:
    """A client of ``acme``."""
    with site.http(key) as client:
        yield client


@pytest.fixture
def admin(site: ApiSite) -> Iterator[httpx.Client]:
    """The operator's client."""
    with site.http(site.admin_key) as client:
        yield client
