"""Import of one tenant: the points and ledger rows of an export, for a tenant that has no such index yet.

It is a job, with a range for each row group: visible, locking its tables, and resumed by importing the
same files again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from sqlalchemy.exc import IntegrityError

from ray_app.backfilling import ensure_indexes
from ray_app.db import clock, copies, jobs, ranges
from ray_app.db.generations import Generation, note_changes
from ray_app.db.idempotency import Asked, find_job, is_repeat
from ray_app.db.indexes import list_indexes
from ray_app.db.jobs import JobRequest, TakenJob
from ray_app.db.progress import job_progress
from ray_app.db.ranges import RangeSpec
from ray_app.errors import ConflictError, InputError, RowbeamError
from ray_app.identity import point_id
from ray_app.outage import ride_out
from ray_app.parts import Part, PartKey
from ray_app.portability.checking import CheckedExport, IndexFile, check_export
from ray_app.portability.folders import read_from
from ray_app.portability.rows import ExportedPoint, from_table
from ray_app.reports import IMPORT, Counts, JobProgress, JobState
from ray_app.store.port import IndexKey, OpenStore, VectorStore
from ray_app.tenants import Tenant, TenantScope
from ray_app.workspace import Workspace
from ray_app.writing import enter

#: Seconds between two reports of progress.
_REPORT: Final = 0.5


def import_tenant(
    workspace: Workspace,
    open_store: OpenStore,
    tenant: Tenant,
    folder: Path,
    on_progress: Callable[[JobProgress], None] | None = None,
) -> JobProgress:
    """Write an export's points and ledger rows for ``tenant``, whichever tenant and deployment they are of.

    The files are checked whole before anything is written. Records that were written since the import
    began are left as they are. An import that failed or was stopped is returned with its state, not
    raised; importing the same files again goes on with it.

    Raises:
        InputError: the folder is no export, or is damaged.
        ConfigError: nothing configured serves a space of it.
        UnknownTable, UnknownVectorType, InvalidTableSpec: a table of it is not there, or has no such text.
        ConflictError: the tenant has one of the indexes already, or the files were imported before.
        JobConflict: another job works on one of the tables, or the import is under way.
    """
    export = check_export(folder.absolute())
    if not export.files:
        raise InputError(f"The export in {folder} has no index.")
    for file in export.files:
        workspace.reader(tenant, file.index)
    job = jobs.take_job(workspace.ledger, _job_of(workspace, tenant, export), importing=True)
    state, error = JobState.FAILED, None
    try:
        with open_store() as store:
            state = _Import(workspace, store, tenant, job, export.files).run(on_progress)
    except RowbeamError as fault:
        error = str(fault)
    except (KeyboardInterrupt, SystemExit):
        state, error = JobState.CANCELLED, "Stopped by a signal."
        raise
    except BaseException as fault:
        error = f"{type(fault).__name__}: {fault}"
        raise
    finally:
        ride_out(
            lambda: jobs.finish_job(workspace.ledger, job, state, error),
            budget=workspace.settings.outage_budget,
            what="The ledger",
        )
    ended = job_progress(workspace.ledger, job.job_id)
    if on_progress is not None:
        on_progress(ended)
    return ended


def _job_of(workspace: Workspace, tenant: Tenant, export: CheckedExport) -> str:
    """The job that imports these files: a new one, or that of an import of them which did not end well."""
    indexes = [file.index for file in export.files]
    tables = tuple(dict.fromkeys(index.table for index in indexes))
    kinds = tuple(dict.fromkeys(str(index.vector_type) for index in indexes))
    asked = Asked.of(f"{IMPORT}-{export.identity}", IMPORT, tables, kinds, None)
    if (known := _begun(workspace, tenant, asked)) is not None:
        return known
    there = list_indexes(workspace.ledger, tenant.incarnation)
    taken = [index for index in indexes if (index.table, index.vector_type) in there]
    if taken:
        raise ConflictError(
            f"{tenant.name} has the {taken[0].vector_type} index of {taken[0].table} already.",
            hint="Import into a tenant without it: rowbeam tenant add makes one.",
        )
    work = [
        RangeSpec(IMPORT, file.index.table, file.index.vector_type, str(group), str(group + 1), records)
        for file in export.files
        for group, records in enumerate(file.groups)
    ]
    try:
        request = JobRequest(tables, kinds, None)
        return jobs.create_job(workspace.ledger, tenant.incarnation, IMPORT, request, work, indexes, asked)
    except IntegrityError as error:
        # The same import, begun at the same time, was first.
        if not is_repeat(error) or (known := _begun(workspace, tenant, asked)) is None:
            raise
        return known


def _begun(workspace: Workspace, tenant: Tenant, asked: Asked) -> str | None:
    job_id = find_job(workspace.ledger, tenant.incarnation, asked)
    if job_id is not None and job_progress(workspace.ledger, job_id).state is JobState.SUCCEEDED:
        raise ConflictError(f"These files were imported before, by job {job_id}.")
    return job_id


class _Import:
    """A taken job, and what it writes with."""

    def __init__(
        self,
        workspace: Workspace,
        store: VectorStore,
        tenant: Tenant,
        job: TakenJob,
        files: Sequence[IndexFile],
    ) -> None:
        self._workspace = workspace
        self._store = store
        self._tenant = tenant
        self._scope = workspace.registry.scope(tenant)
        self._job = job
        self._files = {(file.index.table, str(file.index.vector_type)): file for file in files}

    def run(self, on_progress: Callable[[JobProgress], None] | None) -> JobState:
        """Write the ranges that are left; SUCCEEDED, or CANCELLED when somebody asked for that.

        Raises:
            LostJob: another process has taken the job over.
            IndexMoved: an index was made in another space, or changed its model, since it began.
            StoreUnavailable, DatabaseUnavailable: down for longer than jobs wait.
        """
        ledger = self._workspace.ledger
        budget = self._workspace.settings.outage_budget
        ensure_indexes(
            self._workspace, self._store, self._tenant, [file.index for file in self._files.values()]
        )
        reported = 0.0
        for work in ranges.pending(ledger, self._job.job_id):
            ride_out(partial(self._write, work), budget=budget, what="The ledger or the vector store")
            beat = partial(jobs.heartbeat, ledger, self._job, {})
            if ride_out(beat, budget=budget, what="The ledger") is JobState.CANCEL_REQUESTED:
                return JobState.CANCELLED
            if on_progress is not None and time.monotonic() - reported > _REPORT:
                on_progress(job_progress(ledger, self._job.job_id))
                reported = time.monotonic()
        return JobState.SUCCEEDED

    def _write(self, work: RangeSpec) -> None:
        """One row group: points first, acknowledged; then ledger rows and the range in one transaction."""
        index = self._files[work.table, work.vector_type].index
        key = IndexKey(index.table, str(index.vector_type), index.space)
        place = (self._scope.incarnation, key.table, key.vector_type, key.space.space_id)
        generation = Generation(*place)
        points = self._read(work, key)
        records = list(dict.fromkeys(each.row.record_id for each in points))
        with self._workspace.ledger.begin() as connection:
            (beside,) = enter(connection, self._scope, key.table, [generation], records)
            # The index was empty: who has written a record of it since then knows better.
            newer = copies.known_records(connection, place, records)
            new = [each for each in points if each.row.record_id not in newer]
            self._store.write_copies(self._scope, key, [each.point for each in new])
            counts = Counts(
                read=len(records),
                embedded=len(records) - len(newer),
                unchanged=len(newer),
                chunks=len(new),
                reused=len(new),
            )
            where = PartKey(self._job.job_id, self._job.run, work.seq, work.lo, work.hi)
            part = Part(where, key.table, key.vector_type, key.space.space_id, 0, counts)
            if not ranges.settle_part(connection, part):
                return
            copies.add_rows(connection, place, [each.row for each in new])
            if beside.follows:
                note_changes(connection, generation, {each.row.record_id for each in new})

    def _read(self, work: RangeSpec, key: IndexKey) -> list[ExportedPoint]:
        """The points of a row group as they are to be written here."""
        path = self._files[work.table, work.vector_type].path
        with read_from(path), pq.ParquetFile(path) as file:
            found = from_table(file.read_row_group(int(work.lo or 0)))
        return [_localised(each, self._scope, key, self._latest) for each in found]

    @cached_property
    def _latest(self) -> int:
        """A version that is later than every one here, and before all that come."""
        with self._workspace.ledger.connect() as connection:
            return clock.next_version(connection)


def _localised(each: ExportedPoint, scope: TenantScope, key: IndexKey, latest: int) -> ExportedPoint:
    """The point under the id it has here.

    A version ahead of this deployment's would keep out what is written here until they get there.
    """
    version = min(each.row.version, latest)
    where = (scope.incarnation, key.table, key.vector_type, each.row.record_id, each.row.chunk)
    row = replace(each.row, point_id=point_id(scope.secret, *where), version=version, model=key.space.model)
    return ExportedPoint(replace(each.point, version=version), row)
