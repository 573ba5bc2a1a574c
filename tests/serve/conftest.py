"""One server for each file of tests: a cluster takes ten seconds of two cores to start, and a third of a core
while nobody asks it anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.serve_site import ServeSite, new_site


@pytest.fixture(scope="module")
def site() -> Iterator[ServeSite]:
    """A server that is up, with the stub model."""
    with new_site() as site:
        site.up()
        yield site
