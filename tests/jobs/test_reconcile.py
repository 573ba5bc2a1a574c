"""Drift made on real parts, found to the record, and mended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import qdrant_edge
from sqlalchemy import text

from ray_app.db.indexes import list_indexes
from ray_app.errors import ConflictError
from ray_app.identity import partition_id
from ray_app.launching import open_store_for
from ray_app.reconciling.drift import Kind
from ray_app.reconciling.operation import Repair
from ray_app.reconciling.reports import ReconcileReport
from ray_app.reports import JobState
from ray_app.store.port import IndexKey, PointBatch, PointMeta, VectorStore
from ray_app.tenants import TenantScope
from tests.support.site import TABLE, JobSite

pytestmark = pytest.mark.ray

ROWS = 120


@contextmanager
def opened(site: JobSite) -> Iterator[tuple[VectorStore, TenantScope, IndexKey]]:
    """The store as the product opens it, with what names the index of the site's table."""
    workspace = site.rowbeam.workspace
    tenant = workspace.registry.get("acme")
    (index,) = list_indexes(workspace.ledger, tenant.incarnation).values()
    with open_store_for(workspace.settings) as store:
        key = IndexKey(index.table, str(index.vector_type), index.space)
        yield store, workspace.registry.scope(tenant), key


def vectors_folder(site: JobSite) -> Path:
    return site.rowbeam.workspace.settings.edge_dir


def plant(site: JobSite, tenant: str) -> None:
    """A point of somebody else in the tenant's own folder, past all walls."""
    with opened(site) as (_, scope, key):
        name = str(scope.incarnation)
        path = vectors_folder(site) / key.space.space_id / name[:2] / name
        partition = partition_id(scope.secret, scope.incarnation, key.table, key.vector_type)
    shard = qdrant_edge.EdgeShard.load(str(path))
    payload = {"_t": tenant, "_p": str(partition), "_v": 1, "_h": "x", "pk": "7", "c": 0, "text": "theirs"}
    vector = np.ones(key.space.dimensions).tolist()
    point = qdrant_edge.Point(str(uuid4()), {"dense": vector}, payload)
    shard.update(qdrant_edge.UpdateOperation.upsert_points([point]))
    shard.flush()
    shard.close()


def by_kind(report: ReconcileReport) -> dict[Kind, set[str]]:
    """The records named, which must be all that was counted."""
    found: dict[Kind, set[str]] = defaultdict(set)
    for item in report.examples:
        found[item.kind].add(item.record_id)
    for kind, records in found.items():
        assert len(records) == report.count(kind)
    assert sum(map(len, found.values())) == report.drift
    return dict(found)


def ids(*numbers: int) -> set[str]:
    return {str(number) for number in numbers}


def check_mended(site: JobSite, report: ReconcileReport, rows: int = ROWS) -> None:
    """``rows`` have text."""
    assert report.in_step
    assert report.repaired == report.drift > 0
    assert all(site.rowbeam.job(job).state is JobState.SUCCEEDED for job in report.jobs)
    again = site.rowbeam.reconcile("acme", grace=0)
    assert again.clean, again
    assert again.ledger_points == again.stored_points == rows
    site.check_exact(rows)


def test_single_records_of_every_kind(open_site: Callable[..., JobSite]) -> None:
    site = open_site()
    site.insert(ROWS)
    assert site.backfill().state is JobState.SUCCEEDED
    site.insert(5, client=2, first=1000)
    report = site.rowbeam.reconcile("acme", grace=0)
    assert report.clean
    assert (report.rows, report.ledger_points, report.stored_points) == (ROWS, ROWS, ROWS)

    # Without a word in updated_at, which is what no watermark finds.
    site.sql(f"ALTER TABLE {TABLE} DISABLE TRIGGER USER")
    site.sql(f"UPDATE {TABLE} SET title = 'another title' WHERE id IN (1, 2)")
    site.sql(f"UPDATE {TABLE} SET status = 'closed' WHERE id = 3")
    site.sql(f"DELETE FROM {TABLE} WHERE id IN (10, 11)")
    site.sql(f"UPDATE {TABLE} SET title = '', description = '' WHERE id = 12")
    site.insert(1, first=ROWS)
    site.sql("DELETE FROM rowbeam.qdrant_vectors WHERE record_id = '20'")
    with opened(site) as (store, scope, key):
        store.delete(scope, key, [("30", 0)])
        extra = PointMeta("40", 1, "superfluous", "hash", "stub", "2026-01-01T00:00:00+00:00")
        lost = PointMeta("gone", 0, "no row", "hash", "stub", "2026-01-01T00:00:00+00:00")
        vectors = np.ones((2, key.space.dimensions), np.float32)
        store.upsert(scope, key, PointBatch([extra, lost], vectors, version=1))
    plant(site, str(uuid4()))

    young = site.rowbeam.reconcile("acme")
    assert young.recent == 3  # a job has just written them; the planted one is from 1970
    expected = {
        Kind.MISSING: ids(ROWS, 20, 30),
        Kind.STALE: ids(1, 2, 3),
        Kind.ORPHAN: ids(10, 11, 12) | {"gone"},
        Kind.DUPLICATE: ids(40),
    }
    report = site.rowbeam.reconcile("acme", grace=0)
    found = by_kind(report)
    assert len(found.pop(Kind.WRONG_TENANT)) == 1
    assert found == expected
    assert by_kind(young)[Kind.ORPHAN] == {"gone"}

    with pytest.raises(ConflictError, match="more than 1%"):
        site.rowbeam.reconcile("acme", grace=0, repair=Repair(share=0.01))
    assert by_kind(site.rowbeam.reconcile("acme", grace=0)).keys() == {*expected, Kind.WRONG_TENANT}
    with site.database.begin() as connection:  # a row without text is none to coverage's count either
        connection.execute(text(f"DELETE FROM {TABLE} WHERE id = 12"))
    check_mended(site, site.rowbeam.reconcile("acme", grace=0, repair=Repair()), ROWS - 2)
    with opened(site) as (store, scope, key):
        assert {point.record_id for point in store.scroll(scope, key)}.isdisjoint({"gone", "10", "11", "12"})
    assert [hit.record_id for hit in site.rowbeam.search("acme", TABLE, "another title", limit=2)]
