from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from ray_app import Rowbeam
from ray_app.settings import Settings
from tests.support.site import JobSite


@pytest.fixture
def open_site(make_settings: Callable[..., Settings], database: Engine) -> Iterator[Callable[..., JobSite]]:
    """A tenant on a fresh database and home; options are settings."""
    opened: list[Rowbeam] = []

    def open_(**options: object) -> JobSite:
        rowbeam = Rowbeam.open(make_settings(**options))
        opened.append(rowbeam.__enter__())
        if not any(tenant.name == "acme" for tenant in rowbeam.list_tenants()):
            rowbeam.add_tenant("acme", client_id=1)
        return JobSite(rowbeam, database)

    yield open_
    for rowbeam in opened:
        rowbeam.__exit__(None, None, None)
