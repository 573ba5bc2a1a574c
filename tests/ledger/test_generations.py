"""Two generations of an index side by side: what belongs to the one changes no answer of the other."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert

from ray_app.backfilling import create_redrive
from ray_app.coverage import coverage
from ray_app.db import dead_letters, ledger, operators, recognition, records
from ray_app.db.indexes import list_indexes
from ray_app.db.overview import read_overview
from ray_app.db.schema import qdrant_vectors, spaces
from ray_app.encoders.stub import POISON
from ray_app.offboarding.removing import remove_tenant
from ray_app.onboarding import count_points
from ray_app.parts import Fault, Part
from ray_app.records.directory import IndexDirectory
from ray_app.records.single import delete_record, record_state
from ray_app.reports import CoverageRow
from ray_app.spaces import EmbeddingSpace, VectorType
from ray_app.store.port import IndexKey
from ray_app.tenants import TenantScope
from ray_app.writing import store_points
from tests.support.parts_site import TABLE, Site

OTHER = EmbeddingSpace(model="other", revision="2", dimensions=8)
KIND = VectorType.CONTENT


@pytest.fixture
def scope(site: Site) -> TenantScope:
    """Three records and a dead letter, in the pinned space and, of other texts, in another one too."""
    site.insert((1, "red apples"), (2, "green pears"), (3, "blue plums"), (4, f"bad {POISON}"))
    site.backfill()
    scope = site.workspace.registry.scope(site.tenant)
    site.store.ensure_index(scope, IndexKey(TABLE, KIND, OTHER), ())
    add_generation(site, scope)
    return scope


def add_generation(site: Site, scope: TenantScope) -> None:
    """Records 1, 2 and 5 in ``OTHER``, two chunks each, at a later version, and two dead letters."""
    job = site.start()
    template = next(iter(site.parts(job)))
    ids = [record for record in ("1", "2", "5") for _ in range(2)]
    part = replace(
        template,
        space_id=OTHER.space_id,
        version=template.version + 3_600_000_000,
        record_ids=ids,
        chunk_numbers=[0, 1] * 3,
        texts=[f"other {record}" for record in ids],
        hashes=[f"other-{record}" for record in ids],
        data=[{} for _ in ids],
        updated_at=[None] * 6,
        row_hashes=["00"] * 6,
        faults=[Fault(record, "other", "embed", "ItemError", "Odd.") for record in ("4", "6")],
        vectors=np.eye(6, 8, dtype=np.float32),
        provider="stub",
    )
    write(site, scope, part)
    site.sql("DELETE FROM rowbeam.jobs")


def write(site: Site, scope: TenantScope, part: Part) -> None:
    store_points(site.store, scope, IndexKey(TABLE, KIND, OTHER), part)
    with site.workspace.ledger.begin() as connection:
        connection.execute(
            insert(spaces).values(space_id=OTHER.space_id, spec=OTHER.to_json()).on_conflict_do_nothing()
        )
        ledger.write_part(connection, scope, OTHER, part, charge=False)


def where(site: Site, space: EmbeddingSpace | None = None) -> tuple[UUID, str, str, str]:
    pinned = list_indexes(site.workspace.ledger, site.tenant.incarnation)[TABLE, KIND].space
    return site.tenant.incarnation, TABLE, KIND, (space or pinned).space_id


def test_points_of_both_stand_under_the_same_ids(site: Site, scope: TenantScope) -> None:
    vectors = qdrant_vectors.c
    with site.workspace.ledger.connect() as connection:
        rows = connection.execute(
            select(vectors.point_id, vectors.space_id).where(vectors.record_id == "1", vectors.chunk == 0)
        ).all()
    assert len({row.point_id for row in rows}) == 1
    assert len({row.space_id for row in rows}) == len(rows) == 2
    assert site.store.count(scope, IndexKey(TABLE, KIND, OTHER)) == 6


@pytest.mark.usefixtures("scope")
def test_the_ledger_answers_for_one_space(site: Site) -> None:
    mine, others = where(site), where(site, OTHER)
    with site.workspace.ledger.connect() as connection:
        assert [ledger.record_count(connection, *it) for it in (mine, others)] == [3, 3]
        assert [ledger.point_count(connection, *it) for it in (mine, others)] == [3, 6]
        assert ledger.record_page(connection, *mine, None, None, 10) == {"1": 1, "2": 1, "3": 1}
        assert ledger.record_page(connection, *others, None, None, 10) == {"1": 2, "2": 2, "5": 2}
        assert ledger.record_edges(connection, *mine, 1) == (["1", "2", "3"], 3)
        assert ledger.record_edges(connection, *others, 2) == (["2"], 3)
        assert ledger.entries(connection, *others, ["1", "3"]).keys() == {"1"}
        assert ledger.entries(connection, *others, ["1"])["1"].content_hash == "other-1"
        assert recognition.row_hashes(connection, *others, ["1", "3"]) == {"1": "00"}
        assert dead_letters.open_hashes(connection, *mine, ["4", "6"]).keys() == {"4"}
        assert dead_letters.open_hashes(connection, *others, ["4", "6"]) == {"4": "other", "6": "other"}
        newest = connection.scalar(
            select(func.max(qdrant_vectors.c.version)).where(qdrant_vectors.c.record_id == "1")
        )
        assert records.newer_records(connection, *mine, ["1", "2"], newest - 1) == set()
        assert records.newer_records(connection, *others, ["1", "3"], newest - 1) == {"1"}


@pytest.mark.usefixtures("scope")
def test_reports_see_the_pinned_generation_alone(site: Site) -> None:
    assert count_points(site.workspace, site.store, site.tenant) == (3, 3)
    (row,) = [row for row in coverage(site.workspace, site.tenant) if row.table == TABLE]
    assert isinstance(row, CoverageRow)
    assert (row.rows, row.embedded, row.points, row.stale, row.dead) == (4, 3, 3, 0, 1)
    (letter,) = dead_letters.list_open(site.workspace.ledger, site.tenant.incarnation)
    assert letter.record_id == "4"
    with site.workspace.ledger.connect() as connection:
        assert read_overview(connection).dead_letters == {TABLE: 1}
    (counted,) = operators.count_dead_letters(site.workspace.ledger, letter.first_at)
    assert counted.total == 1


@pytest.mark.usefixtures("scope")
def test_a_backfill_finds_nothing_to_do(site: Site) -> None:
    counts, left = site.prescan_counts()
    assert (counts.unchanged, counts.dead, left) == (3, 1, 0)
    assert site.find("pears", limit=1) == ["2"]


def test_a_backfill_leaves_the_other_generation_alone(site: Site, scope: TenantScope) -> None:
    site.sql("UPDATE pull_requests SET title = 'long yellow bananas' WHERE id = 1")
    site.sql("UPDATE pull_requests SET status = 'closed' WHERE id = 2")
    site.sql("DELETE FROM pull_requests WHERE id = 3")
    counts = site.backfill()
    assert (counts.embedded, counts.deleted) == (1, 1)
    assert site.store.count(scope, IndexKey(TABLE, KIND, OTHER)) == 6
    with site.workspace.ledger.connect() as connection:
        assert ledger.entries(connection, *where(site, OTHER), ["1"])["1"].content_hash == "other-1"
        assert ledger.point_count(connection, *where(site, OTHER)) == 6


@pytest.mark.usefixtures("scope")
def test_a_redrive_takes_the_pinned_generations_letters(site: Site) -> None:
    job_id = create_redrive(site.workspace, site.tenant)
    with site.workspace.ledger.connect() as connection:
        keys = connection.execute(
            text("SELECT keys FROM rowbeam.ranges WHERE job_id = :job"), {"job": job_id}
        ).scalars()
        assert list(keys) == [["4"]]


def test_one_record_is_told_and_deleted_in_its_pinned_space(site: Site, scope: TenantScope) -> None:
    directory = IndexDirectory(site.workspace, site.store)
    _, (state,) = record_state(directory, site.tenant, TABLE, "1")
    assert (state.chunks, state.model) == (1, "stub")
    assert delete_record(directory, site.tenant, scope, TABLE, "1")[1] == 1
    with site.workspace.ledger.connect() as connection:
        assert ledger.point_count(connection, *where(site)) == 2


def test_a_removed_tenant_leaves_nothing_of_either(site: Site, scope: TenantScope) -> None:
    report = remove_tenant(site.workspace, site.store, "acme")
    assert report.proven
    assert site.store.count(scope, IndexKey(TABLE, KIND, OTHER)) == 0
