"""A running API with one tenant for each test that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from pydantic import SecretStr

from ray_app.settings import Settings
from tests.conftest import fresh_database
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


@pytest.fixture(scope="module")
def shared_site(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiSite]:
    """A ``site`` for all tests of a module that leave nothing behind."""
    with fresh_database(postgres_url, template_database) as url:
        settings = Settings(
            home=tmp_path_factory.mktemp("home"), database_url=SecretStr(url), local_model="stub"
        )
        with ApiSite(settings) as site:
            yield site


@pytest.fixture(scope="module")
def shared_http(shared_site: ApiSite) -> Iterator[httpx.Client]:
    """A client of a tenant ``acme`` of ``shared_site``."""
    with shared_site.http(shared_site.add_tenant("acme")) as client:
        yield client
