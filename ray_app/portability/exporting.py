"""Export of one tenant: each of its indexes as a Parquet file that anybody can read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from sqlalchemy import Connection

from ray_app.db import copies, ledger
from ray_app.db.audits import LedgerPoint
from ray_app.db.copies import LedgerCopy
from ray_app.db.indexes import PinnedIndex, list_indexes
from ray_app.db.records import lock_records
from ray_app.errors import ConflictError, IndexMoved, TenantMoved
from ray_app.portability import manifests
from ray_app.portability.folders import create, digest, new_folder, written
from ray_app.portability.manifests import ExportManifest, FileEntry, IndexEntry, SpaceEntry
from ray_app.portability.reports import ExportedIndex, ExportReport
from ray_app.portability.rows import REPEATED, ExportedPoint, schema_of, to_table
from ray_app.reconciling.drift import differs
from ray_app.store.port import IndexKey, OpenStore, PointCopy, StoredPoint, VectorStore
from ray_app.tenants import Tenant, TenantScope
from ray_app.text import data_hash
from ray_app.workspace import Workspace

#: Points of one row group, about; whole records, so a text of very many chunks makes a larger one.
GROUP_POINTS: Final = 1_000
#: Records of the ledger looked up at once.
PAGE_RECORDS: Final = 2_000
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9_]+")


def export_tenant(
    workspace: Workspace,
    open_store: OpenStore,
    tenant: Tenant,
    out: Path,
) -> ExportReport:
    """Write the tenant's indexes, as they are pinned, to the new folder ``out``.

    Writes go on meanwhile. Each record is as it was at one moment, points and ledger rows together;
    one whose points and rows differ when nobody writes it is left out, and counted.

    Raises:
        ConflictError: ``out`` exists, or the tenant has no index.
        IndexMoved, TenantMoved: an index changed its model, or the tenant its place, meanwhile.
        InputError: the folder cannot be written.
        UnknownTenant: the tenant was removed meanwhile.
        StoreUnavailable, DatabaseUnavailable.
    """
    began = time.monotonic()
    out = out.absolute()
    pinned = list_indexes(workspace.ledger, tenant.incarnation)
    if not pinned:
        raise ConflictError(f"{tenant.name} has no index.", hint="rowbeam backfill makes them.")
    with new_folder(out) as draft:
        with open_store() as store:
            scope = workspace.registry.scope(tenant)
            entries = tuple(
                _IndexExport(workspace, store, scope, index).write(draft, number)
                for number, index in enumerate(pinned.values())
            )
        if workspace.registry.scope(tenant) != scope:
            raise TenantMoved(f"{tenant.name} was moved to another place meanwhile.", hint="Try again.")
        if not list_indexes(workspace.ledger, tenant.incarnation).items() >= pinned.items():
            raise IndexMoved(f"An index of {tenant.name} changed its model meanwhile.", hint="Try again.")
        manifest = ExportManifest(
            created_at=datetime.now(UTC),
            software=manifests.software(),
            tenant=tenant.name,
            incarnation=tenant.incarnation,
            indexes=entries,
        )
        manifests.write(draft, manifest)
    return ExportReport(tenant.name, out, tuple(map(_reported, entries)), round(time.monotonic() - began, 2))


def _reported(entry: IndexEntry) -> ExportedIndex:
    return ExportedIndex(
        *(entry.table, entry.vector_type, entry.space.model),
        *(entry.records, entry.points, entry.left_out, entry.file.bytes),
    )


class _IndexExport:
    """One index on its way into a file, a row group at a time."""

    def __init__(
        self, workspace: Workspace, store: VectorStore, scope: TenantScope, index: PinnedIndex
    ) -> None:
        self._ledger = workspace.ledger
        self._store = store
        self._scope = scope
        self._index = index
        self._key = IndexKey(index.table, str(index.vector_type), index.space)
        self._place = (scope.incarnation, index.table, str(index.vector_type), index.space.space_id)
        self._left_out = 0

    def write(self, folder: Path, number: int) -> IndexEntry:
        index = self._index
        plain = _NOT_PLAIN.sub("_", index.table)
        path = folder / f"{number:03}-{plain}-{index.vector_type}.parquet"
        records = points = 0
        # A file tells what it is also without the manifest.
        about = json.dumps({**describe(index), "space": index.space.to_json()})
        schema = schema_of(index.space).with_metadata({"rowbeam": about})
        with (
            written(path),
            create(path) as file,
            pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=list(REPEATED)) as writer,
        ):
            for group in self._groups():
                found = self._read(group)
                if found:
                    writer.write_table(to_table(self._key, found).cast(schema), row_group_size=len(found))
                records += len({each.row.record_id for each in found})
                points += len(found)
        with written(path):
            sha256 = digest(path, sync=True)
        return IndexEntry(
            table=index.table,
            vector_type=index.vector_type,
            space=SpaceEntry.of(index.space),
            space_id=index.space.space_id,
            preference=index.preference,
            records=records,
            points=points,
            left_out=self._left_out,
            file=FileEntry(path=path.name, bytes=path.stat().st_size, sha256=sha256),
        )

    def _groups(self) -> Iterator[list[str]]:
        """Records in byte order, by as many as make a row group."""
        last: str | None = None
        while True:
            with self._ledger.connect() as connection:
                page = ledger.record_page(connection, *self._place, last, None, PAGE_RECORDS)
            if not page:
                return
            group: list[str] = []
            points = 0
            for record, chunks in page.items():
                if group and points + chunks > GROUP_POINTS:
                    yield group
                    group, points = [], 0
                group.append(record)
                points += chunks
                last = record
            yield group

    def _read(self, records: Sequence[str]) -> list[ExportedPoint]:
        """The points of records, those that are in step; the others are looked at again under their locks."""
        with self._ledger.connect() as connection:
            found, suspects = self._join(connection, records)
        if suspects:
            with self._ledger.begin() as connection:
                # Nobody writes them now: what differs was not merely being written.
                lock_records(connection, self._scope.incarnation, self._index.table, suspects)
                more, amiss = self._join(connection, suspects)
            self._left_out += len(amiss)
            found = sorted([*found, *more], key=lambda each: (each.row.record_id.encode(), each.row.chunk))
        return found

    def _join(self, connection: Connection, records: Sequence[str]) -> tuple[list[ExportedPoint], list[str]]:
        """Points with their ledger rows, and the records where the two differ."""
        rows = copies.rows_of(connection, self._place, records)
        keys = [(row.record_id, row.chunk) for row in rows]
        points = {
            (point.record_id, point.chunk): point
            for point in self._store.copies_of(self._scope, self._key, keys)
        }
        found: list[ExportedPoint] = []
        suspects: list[str] = []
        for record, group in groupby(rows, key=lambda row: row.record_id):
            own = list(group)
            agreeing = [
                ExportedPoint(point, row)
                for row in own
                if (point := points.get((record, row.chunk))) is not None and not _differ(row, point)
            ]
            if len(agreeing) == len(own) and _is_whole(own):
                found += agreeing
            else:
                suspects.append(record)
        return found, suspects


def _differ(row: LedgerCopy, point: PointCopy) -> bool:
    """As reconciling has it."""
    known = LedgerPoint(
        *(row.record_id, row.chunk, row.point_id, row.content_hash, row.version, row.data_hash)
    )
    there = StoredPoint(
        *(point.point_id, point.record_id, point.chunk, point.content_hash, point.version),
        data_hash(point.data),
    )
    return differs(known, there)


def _is_whole(rows: Sequence[LedgerCopy]) -> bool:
    """Whether these are all chunks of one text."""
    one_text = len({row.content_hash for row in rows}) == 1
    return one_text and [row.chunk for row in rows] == list(range(len(rows)))


def describe(index: PinnedIndex) -> dict[str, str]:
    """What a file says of itself: table, vector type and space of its points."""
    return {
        "table": index.table,
        "vector_type": str(index.vector_type),
        "space_id": index.space.space_id,
    }
