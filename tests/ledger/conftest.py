"""What tests of the ledger share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ray_app.settings import Settings
from ray_app.store.edge import EdgeStore
from ray_app.tenants import Placement
from ray_app.workspace import Workspace
from tests.support.parts_site import Site
from tests.support.sync_site import CountedBackend, SyncSite


@pytest.fixture
def site(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Site]:
    """A tenant on the embedded store, and the stages of a job called one after the other."""
    workspace = Workspace(make_settings())
    tenant, _ = workspace.registry.create("acme", 1, Placement.EMBEDDED)
    store = EdgeStore(tmp_path / "edge")
    yield Site(workspace, store, tenant)
    store.close()
    workspace.close()


@pytest.fixture
def changing(site: Site) -> SyncSite:
    """A tenant ``acme`` (client 1) with an empty index of pull requests."""
    found = SyncSite(site.workspace, site.store, site.tenant)
    found.index()
    return found


@pytest.fixture
def backend(site: Site) -> Iterator[CountedBackend]:
    """The stub model, counting."""
    made = CountedBackend(site.workspace)
    yield made
    made.close()
