"""Coverage: how much of each index is in step with its table, compared row by row."""

from __future__ import annotations

from dataclasses import replace

from ray_app.db import dead_letters, ledger
from ray_app.db.generations import list_migrations
from ray_app.db.indexes import PinnedIndex, list_indexes
from ray_app.db.source import SourceTable
from ray_app.errors import UnknownTable
from ray_app.reading import RangeReader
from ray_app.reports import CoverageRow
from ray_app.spaces import Preference, VectorType
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace


def coverage(workspace: Workspace, tenant: Tenant) -> list[CoverageRow]:
    """One row for each index the tenant has or a backfill would make, by priority.

    Compares every row's text hash, so it reads the tables once; no model is loaded. A row whose
    payload columns alone have changed is not stale: its vectors are right, and the next backfill
    refreshes what filters see.
    """
    pinned = list_indexes(workspace.ledger, tenant.incarnation)
    with workspace.ledger.connect() as connection:
        beside = {
            (row.table, row.vector_type): f"{row.space.model} {row.stage.replace('_', ' ')}"
            for row in list_migrations(connection, tenant.incarnation).values()
        }
    tables = dict.fromkeys([spec.name for spec in workspace.tables.select()])
    tables |= dict.fromkeys(table for table, _ in pinned)
    rows = []
    for spec in workspace.tables.select(tables):
        try:
            source = workspace.source_table(spec.name)
        except UnknownTable:
            continue  # a platform need not have every shipped table
        kinds = [kind for table, kind in pinned if table == spec.name] or list(spec.vector_types)
        rows += [_cover(workspace, tenant, source, kind, pinned.get((spec.name, kind))) for kind in kinds]
    return [replace(row, migration=beside.get((row.table, VectorType(row.vector_type)))) for row in rows]


def _cover(
    workspace: Workspace, tenant: Tenant, source: SourceTable, kind: VectorType, pinned: PinnedIndex | None
) -> CoverageRow:
    space = pinned.space if pinned else workspace.providers.spaces_for(Preference.FAST)
    index = pinned or PinnedIndex(source.spec.name, kind, space, Preference.FAST)
    reader = RangeReader(
        workspace.reader(tenant, index, source), workspace.source, workspace.ledger, outage_budget=0
    )
    total = stale = no_text = 0
    lo = None
    while True:
        page = reader.page(lo, None)
        known, dead = reader.lookup(page.rows)
        diff = reader.compare(page.rows, known, dead)
        total += len(page.rows)
        no_text += diff.no_text + len(diff.emptied)
        stale += len(diff.emptied) + sum(1 for change in diff.changes if change.old_chunks)
        if page.last:
            break
        lo = page.hi
    records, points, waiting = _ledger_counts(workspace, tenant, index)
    return CoverageRow(
        table=index.table,
        vector_type=index.vector_type,
        rows=total,
        embedded=records,
        stale=stale + _gone(reader),
        no_text=no_text,
        dead=waiting,
        space_id=space.space_id if pinned else None,
        model=space.model if pinned else None,
        points=points,
    )


def _gone(reader: RangeReader) -> int:
    total, lo = 0, None
    while True:
        gone, _, last = reader.gone(lo, None)
        total += len(gone)
        if last is None:
            return total
        lo = last


def _ledger_counts(workspace: Workspace, tenant: Tenant, index: PinnedIndex) -> tuple[int, int, int]:
    """Records, points and open dead letters of an index."""
    where = (tenant.incarnation, index.table, index.vector_type, index.space.space_id)
    with workspace.ledger.connect() as connection:
        records = ledger.record_count(connection, *where)
        points = ledger.point_count(connection, *where)
        return records, points, dead_letters.count_open(connection, *where)
