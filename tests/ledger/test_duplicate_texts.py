"""A text that the tenant has a vector of already is not sent to the model: real Postgres, real Edge."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from ray_app.db.indexes import list_indexes
from ray_app.reports import Counts
from ray_app.reuse import TextReuse, stored_lookup
from ray_app.spaces import EmbeddingSpace, VectorType
from ray_app.store.port import IndexKey
from ray_app.tenants import Placement, Tenant
from ray_app.text import text_hash
from tests.support.parts_site import TABLE, Site

#: More than one window of the stub's chunker.
LONG = " ".join(f"word{number}" for number in range(600))


def space_of(site: Site) -> EmbeddingSpace:
    return list_indexes(site.workspace.ledger, site.tenant.incarnation)[TABLE, VectorType.CONTENT].space


def lookup_of(site: Site, tenant: Tenant | None = None) -> Callable[[list[str]], set[str]]:
    """Which of some texts have a vector at hand, for ``tenant`` or the site's own."""
    space, workspace = space_of(site), site.workspace
    stored = stored_lookup(
        workspace.ledger, site.store, workspace.registry.scope(tenant or site.tenant), space
    )

    def known(texts: list[str]) -> set[str]:
        found = stored([text_hash(item, space) for item in texts])
        return {item for item in texts if text_hash(item, space) in found}

    return known


def share(site: Site) -> None:
    """From here on the stages look into ledger and store before they ask the model."""
    space = space_of(site)
    scope = site.workspace.registry.scope(site.tenant)
    site.reuse = TextReuse(space, stored_lookup(site.workspace.ledger, site.store, scope, space), capacity=1)


def test_a_text_of_an_earlier_job_is_not_embedded_again(site: Site) -> None:
    site.insert((1, "login fails"), (2, LONG))
    assert site.backfill() == Counts(read=2, embedded=2, chunks=4)
    billed = site.texts_billed()
    share(site)
    site.insert((3, "login fails"), (4, "a new one"), (5, LONG), (6, "login fails"))
    assert site.backfill() == Counts(read=6, embedded=4, unchanged=2, chunks=6, reused=5)
    assert site.texts_billed() - billed == 1
    scope, space = site.workspace.registry.scope(site.tenant), space_of(site)
    index = IndexKey(TABLE, "content", space)
    for original, copy in (("1", "3"), ("1", "6"), ("2", "5")):
        expected = site.store.vectors_of(scope, index, original)
        assert site.store.vectors_of(scope, index, copy) == pytest.approx(expected, abs=1e-6)
    assert set(site.find("login fails")) == {"1", "3", "6"}
    assert site.backfill() == Counts(read=6, unchanged=6)


def test_another_tenants_texts_are_never_at_hand(site: Site) -> None:
    site.insert((1, "login fails"))
    site.backfill()
    other, _ = site.workspace.registry.create("globex", 2, Placement.EMBEDDED)
    assert lookup_of(site)(["login fails", "another"]) == {"login fails"}
    assert lookup_of(site, other)(["login fails", "another"]) == set()


@pytest.mark.parametrize("change", ["deleted", "overwritten"])
def test_a_point_that_changed_behind_the_ledger_gives_no_vector(site: Site, change: str) -> None:
    site.insert((1, "login fails"))
    site.backfill()
    scope, index = site.workspace.registry.scope(site.tenant), IndexKey(TABLE, "content", space_of(site))
    with site.workspace.ledger.begin() as connection:
        ledger = connection.execute(text("SELECT * FROM rowbeam.qdrant_vectors")).mappings().one()
    if change == "deleted":
        site.store.delete(scope, index, [("1", 0)])
    else:
        site.sql("UPDATE pull_requests SET title = 'another text' WHERE id = 1")
        site.backfill()
        # As if the point had been written and its transaction were still under way.
        site.sql(
            "UPDATE rowbeam.qdrant_vectors SET text_hash = :text_hash, content_hash = :content_hash",
            text_hash=ledger["text_hash"],
            content_hash=ledger["content_hash"],
        )
    assert lookup_of(site)(["login fails"]) == set()


def test_a_ledger_from_before_texts_were_recognised_knows_none(site: Site) -> None:
    site.insert((1, "login fails"))
    site.backfill()
    site.sql("UPDATE rowbeam.qdrant_vectors SET text_hash = NULL")
    assert lookup_of(site)(["login fails"]) == set()
