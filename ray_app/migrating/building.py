"""Filling a second generation: where it begins or goes on, the job that fills it, and the last changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert

from ray_app.db import dead_letters, generations, jobs
from ray_app.db.fences import lock_active
from ray_app.db.generations import Generation, MigrationRow
from ray_app.db.indexes import PinnedIndex, list_indexes
from ray_app.db.jobs import JobRequest
from ray_app.db.moves import refuse_beside_move
from ray_app.db.progress import job_progress
from ray_app.db.schema import index_migrations, spaces
from ray_app.errors import ConflictError, UnknownTable
from ray_app.launching import JobRunner
from ray_app.migrating.states import Stage, Step, follow
from ray_app.planning import Target, cut_work
from ray_app.reports import JobProgress
from ray_app.spaces import EmbeddingSpace
from ray_app.tables import parse_vector_types
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

#: Seconds between looks at a job that another process drives.
_POLL: Final = 0.5


@dataclass(frozen=True)
class Change:
    """Indexes of one table on their way to another space."""

    tenant: Tenant
    table: str
    space: EmbeddingSpace
    #: As they are bound now.
    pinned: tuple[PinnedIndex, ...]
    #: What writes the generations that are to replace them, in the same order.
    targets: tuple[Target, ...]

    @property
    def keys(self) -> list[tuple[UUID, str, str]]:
        """Incarnation, table and vector type of each index."""
        return [(self.tenant.incarnation, self.table, str(index.vector_type)) for index in self.pinned]


def chosen_indexes(
    workspace: Workspace, tenant: Tenant, table: str, vector_types: Iterable[str] | None
) -> list[PinnedIndex]:
    """The table's indexes of these vector types, all it has for None.

    Raises:
        UnknownTable, UnknownVectorType: there is no such table spec, vector type or index.
    """
    name = workspace.tables.get(table).name
    pinned = list_indexes(workspace.ledger, tenant.incarnation)
    own = [kind for of, kind in pinned if of == name]
    kinds = own if vector_types is None else list(parse_vector_types(vector_types))
    missing = [kind for kind in kinds if kind not in own]
    if missing or not kinds:
        which = f"no {missing[0]} index" if missing else "no index"
        raise UnknownTable(
            f"Tenant {tenant.name} has {which} of table {name}.",
            hint="A first backfill makes it, in any space: rowbeam backfill.",
            param="table",
        )
    return [pinned[name, kind] for kind in kinds]


def plan_change(
    workspace: Workspace, tenant: Tenant, pinned: Sequence[PinnedIndex], space: EmbeddingSpace
) -> Change:
    """What brings ``pinned``, all of one table, to ``space``.

    Raises:
        ConfigError: nothing configured serves the space.
        UnknownTable, InvalidTableSpec, UnknownVectorType: the table cannot be read any more.
    """
    table = pinned[0].table
    source = workspace.source_table(table)
    with workspace.source.connect() as connection:
        rows = source.count(connection, tenant.client_id)
    targets = [
        Target(workspace.reader(tenant, replace(index, space=space), source), rows, True, index.preference)
        for index in pinned
    ]
    return Change(tenant, table, space, tuple(pinned), tuple(targets))


def begin(workspace: Workspace, change: Change) -> None:
    """Put the second generations on record, or take them up where they are; from now on they follow.

    Raises:
        ConflictError: an index is in that space already, another change of it is not over, or the tenant is
            being moved to another place or its former one is kept.
        UnknownTenant: the tenant is being removed.
    """
    tenant, space = change.tenant, change.space
    with workspace.ledger.begin() as connection:
        # Whoever writes after this notes what it writes.
        generations.close_gates(
            connection, [Generation.of(tenant.incarnation, index) for index in change.pinned]
        )
        lock_active(connection, tenant.incarnation)
        refuse_beside_move(connection, tenant.incarnation)
        rows = generations.list_migrations(connection, tenant.incarnation, lock=True)
        connection.execute(
            insert(spaces).values(space_id=space.space_id, spec=space.to_json()).on_conflict_do_nothing()
        )
        for index, key in zip(change.pinned, change.keys, strict=True):
            row = rows.get((index.table, index.vector_type))
            stage = _entered(index, row, space)
            values = {"space_id": space.space_id, "stage": stage}
            connection.execute(
                insert(index_migrations)
                .values(incarnation=key[0], table_name=key[1], vector_type=key[2], **values)
                .on_conflict_do_update(index_elements=list(index_migrations.primary_key), set_=values)
            )
            # What was refused before is tried again.
            dead_letters.forget_all(connection, *key, space.space_id)


def _entered(index: PinnedIndex, row: MigrationRow | None, space: EmbeddingSpace) -> Stage | None:
    if index.space.space_id == space.space_id:
        raise ConflictError(
            f"The {index.vector_type} index of table {index.table} is in the space of {space.model} already.",
            hint="rowbeam migrate --status shows what stands beside it.",
        )
    if row is None or row.space.space_id != space.space_id:
        return follow(row.stage if row else None, Step.START)
    return follow(row.stage, Step.RETURN if row.stage is Stage.KEPT else Step.FILL)


def mark(workspace: Workspace, change: Change, step: Step, **values: object) -> None:
    """Do ``step`` to each of the change's generations. Raises ConflictError where it cannot be done."""
    with workspace.ledger.begin() as connection:
        rows = generations.list_migrations(connection, change.tenant.incarnation, lock=True)
        for index, key in zip(change.pinned, change.keys, strict=True):
            row = rows.get((index.table, index.vector_type))
            if row is not None and row.space.space_id != change.space.space_id:
                row = None
            stage = follow(row.stage if row else None, step)
            connection.execute(
                update(index_migrations)
                .where(generations.of_index(index_migrations, *key))
                .values(stage=stage, **values)
            )


def run_pass(
    workspace: Workspace,
    change: Change,
    run_job: JobRunner,
    on_progress: Callable[[JobProgress], None] | None,
) -> JobProgress:
    """Fill the generations with a job, the one that was interrupted if there is one; how it ended."""
    job_id = _last_job(workspace, change)
    if job_id is not None:
        job = job_progress(workspace.ledger, job_id)
        while job.state.active:
            # Its driver outlived the process that began the change, or somebody has resumed it.
            if on_progress is not None:
                on_progress(job)
            time.sleep(_POLL)
            job = job_progress(workspace.ledger, job_id)
        if job.state.resumable:
            return run_job(workspace, change.tenant, job_id, on_progress, new=False)
    job_id = _create_job(workspace, change)
    return run_job(workspace, change.tenant, job_id, on_progress, new=True)


def _last_job(workspace: Workspace, change: Change) -> str | None:
    """The job that wrote to these generations last, if it was of all of them and did not succeed."""
    with workspace.ledger.connect() as connection:
        rows = generations.list_migrations(connection, change.tenant.incarnation)
    ids = {rows[index.table, index.vector_type].job_id for index in change.pinned}
    return ids.pop() if len(ids) == 1 else None


def _create_job(workspace: Workspace, change: Change) -> str:
    """Raises JobConflict: another job fills one of them."""
    kinds = tuple(str(index.vector_type) for index in change.pinned)
    request = JobRequest((change.table,), kinds, None, change.space.space_id)
    work = [item for target in change.targets for item in cut_work(workspace, target)]
    job_id = jobs.create_job(workspace.ledger, change.tenant.incarnation, "migrate", request, work)
    mark(workspace, change, Step.FILL, job_id=job_id)
    return job_id


def leave(workspace: Workspace, tenant: Tenant, row: MigrationRow, step: Step) -> Stage | None:
    """Do ``step``, after which nobody writes the generation any more; the stage it has then.

    Raises:
        ConflictError: it cannot be done at the stage that the generation is at by now.
    """
    key = (tenant.incarnation, row.table, str(row.vector_type))
    with workspace.ledger.begin() as connection:
        # Parts under way are let in, later ones find the stage and are refused.
        generations.close_gates(connection, [Generation(*key, row.space.space_id)])
        rows = generations.list_migrations(connection, tenant.incarnation, lock=True)
        now = rows.get((row.table, row.vector_type))
        if now is not None and now.space.space_id != row.space.space_id:
            now = None
        stage = follow(now.stage if now else None, step)
        connection.execute(
            update(index_migrations).where(generations.of_index(index_migrations, *key)).values(stage=stage)
        )
        generations.forget_changes(connection, *key)
    return stage
