"""Creating jobs: choose the indexes, pin their spaces, cut the work, lock the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError

from ray_app.budgets import JobLimits
from ray_app.db import dead_letters, job_budgets, jobs
from ray_app.db.fences import lock_placed
from ray_app.db.generations import indexes_of_job
from ray_app.db.idempotency import Asked, find_job, is_repeat
from ray_app.db.indexes import PinnedIndex
from ray_app.db.jobs import JobRequest
from ray_app.db.ranges import RangeSpec
from ray_app.errors import InputError
from ray_app.planning import Target, choose_targets, cut_work
from ray_app.reports import DeadLetter
from ray_app.spaces import Preference
from ray_app.store.port import IndexKey, VectorStore
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

#: Records of one range that names them.
IDS_RECORDS = 100


@dataclass(frozen=True)
class QueuedJob:
    """A job that is in the ledger."""

    job_id: str
    #: Whether a driver has to be started for it: it is new, or no earlier try to start one worked.
    to_start: bool


def create_backfill(
    workspace: Workspace,
    tenant: Tenant,
    *,
    tables: Iterable[str] | None = None,
    vector_types: Iterable[str] | None = None,
    prefer: Preference | None = None,
    idempotency_key: str | None = None,
    limits: JobLimits | None = None,
) -> str:
    """A pending backfill job; its id. From here on its indexes' spaces are pinned.

    Repeated under the same ``idempotency_key`` it answers the first call's job, also after that ended.

    Raises:
        UnknownTable, UnknownVectorType, InvalidTableSpec, ConfigError: as ``choose_targets``.
        InputError: the idempotency key cannot be used, or ``limits`` has a cost and a model no known price.
        JobConflict: another job works on one of the tables.
        ConflictError: the idempotency key was used for another request.
    """
    return queue_backfill(
        workspace,
        tenant,
        tables=tables,
        vector_types=vector_types,
        prefer=prefer,
        idempotency_key=idempotency_key,
        limits=limits,
    ).job_id


def queue_backfill(
    workspace: Workspace,
    tenant: Tenant,
    *,
    tables: Iterable[str] | None = None,
    vector_types: Iterable[str] | None = None,
    prefer: Preference | None = None,
    idempotency_key: str | None = None,
    limits: JobLimits | None = None,
) -> QueuedJob:
    """As ``create_backfill``, for a caller that hands the job to somebody else to run.

    When that failed, the repeat under the same key makes the job pending again.
    """
    tables = None if tables is None else list(tables)
    vector_types = None if vector_types is None else list(vector_types)
    asked = None
    if idempotency_key is not None:
        asked = Asked.of(idempotency_key, "backfill", tables, vector_types, prefer, limits)
        if repeated := _repeated(workspace, tenant, asked):
            return repeated
    targets, _ = choose_targets(workspace, tenant, tables, vector_types, prefer)
    if limits is not None and limits.cost is not None:
        check_priced(workspace, [target.reader.index for target in targets])
    work = [item for target in targets for item in cut_work(workspace, target)]
    try:
        return QueuedJob(_create(workspace, tenant, "backfill", targets, work, prefer, asked, limits), True)
    except IntegrityError as error:
        # The same request, made at the same time, was first.
        if asked is None or not is_repeat(error) or not (repeated := _repeated(workspace, tenant, asked)):
            raise
        return repeated


def _repeated(workspace: Workspace, tenant: Tenant, asked: Asked) -> QueuedJob | None:
    """The job of the request's first call, if there was one."""
    job_id = find_job(workspace.ledger, tenant.incarnation, asked)
    if job_id is None:
        return None
    return QueuedJob(job_id, jobs.requeue(workspace.ledger, job_id, unstarted=True))


def check_priced(workspace: Workspace, indexes: Iterable[PinnedIndex]) -> bool:
    """Whether any of the indexes' models costs anything.

    Raises:
        InputError: the price of one is not known, so no cost budget could hold.
    """
    prices = {index.space.model: workspace.providers.price_per_million(index.space) for index in indexes}
    unknown = [model for model, price in prices.items() if price is None]
    if unknown:
        raise InputError(
            f"A cost budget cannot hold: the price of {unknown[0]} is unknown.",
            hint="Set ROWBEAM_GATEWAY_PRICE_PER_MILLION, or give --max-tokens instead.",
        )
    return any(prices.values())


def change_limits(workspace: Workspace, tenant: Tenant, job_id: str, limits: JobLimits) -> None:
    """Set what a job that is to be resumed may spend in all; a limit that is not given stays.

    Raises:
        InputError: as ``check_priced``, or the job has spent that much already.
    """
    if limits.cost is not None:
        check_priced(workspace, indexes_of_job(workspace.ledger, job_id, tenant.incarnation).values())
    job_budgets.change(workspace.ledger, job_id, limits)


def create_redrive(workspace: Workspace, tenant: Tenant) -> str | None:
    """A pending job that tries the tenant's open dead letters again; None when there are none.

    Raises:
        JobConflict: another job works on one of their tables.
    """
    letters = dead_letters.list_open(workspace.ledger, tenant.incarnation)
    if not letters:
        return None
    tables = list(dict.fromkeys(letter.table for letter in letters))
    kinds = list(dict.fromkeys(letter.vector_type for letter in letters))
    targets, _ = choose_targets(workspace, tenant, tables, kinds, None)
    work = _redrive_work(letters)
    wanted = {(item.table, item.vector_type) for item in work}
    targets = [target for target in targets if _name(target) in wanted]
    return _create(workspace, tenant, "redrive", targets, work, None)


def create_repair(
    workspace: Workspace, tenant: Tenant, records: Mapping[tuple[str, str], Sequence[str]]
) -> str:
    """A pending job that brings the vectors of ``records``, by (table, vector type), in step with their rows.

    Raises:
        JobConflict: another job works on one of their tables.
    """
    tables = list(dict.fromkeys(table for table, _ in records))
    kinds = list(dict.fromkeys(kind for _, kind in records))
    targets, _ = choose_targets(workspace, tenant, tables, kinds, None)
    targets = [target for target in targets if _name(target) in records]
    return _create(workspace, tenant, "repair", targets, _work_of(records), None)


def create_sync(workspace: Workspace, tenant: Tenant, indexes: Iterable[PinnedIndex]) -> str:
    """A pending job that compares the whole tables of these existing indexes; its id.

    Raises:
        UnknownTable, UnknownVectorType, InvalidTableSpec, ConfigError: as ``choose_targets``.
        JobConflict: another job works on one of the tables.
    """
    targets = [
        target
        for index in indexes
        for target in choose_targets(workspace, tenant, [index.table], [index.vector_type], None)[0]
    ]
    work = [item for target in targets for item in cut_work(workspace, target)]
    return _create(workspace, tenant, "sync", targets, work, None)


def ensure_indexes(
    workspace: Workspace, store: VectorStore, tenant: Tenant, indexes: Iterable[PinnedIndex]
) -> None:
    """Make what the tenant's indexes need in the store, payload indexes included. Idempotent.

    Raises:
        UnknownTenant, TenantMoved: it was removed, or moved to another place, in this moment.
    """
    scope = workspace.registry.scope(tenant)
    wanted = [(index, workspace.source_table(index.table).payload_fields()) for index in indexes]
    with workspace.ledger.begin() as connection:
        # Held while the store makes its place, so that none is made anew that was just erased.
        lock_placed(connection, scope)
        for index, fields in wanted:
            store.ensure_index(scope, IndexKey(index.table, index.vector_type, index.space), fields)


def _redrive_work(letters: list[DeadLetter]) -> list[RangeSpec]:
    by_index: dict[tuple[str, str], list[str]] = {}
    for letter in letters:
        by_index.setdefault((letter.table, letter.vector_type), []).append(letter.record_id)
    return _work_of(by_index)


def _work_of(records: Mapping[tuple[str, str], Sequence[str]]) -> list[RangeSpec]:
    return [
        RangeSpec("ids", table, kind, None, None, len(piece), tuple(piece))
        for (table, kind), ids in records.items()
        for start in range(0, len(ids), IDS_RECORDS)
        if (piece := ids[start : start + IDS_RECORDS])
    ]


def _name(target: Target) -> tuple[str, str]:
    return target.reader.index.table, str(target.reader.index.vector_type)


def _create(
    workspace: Workspace,
    tenant: Tenant,
    kind: str,
    targets: list[Target],
    work: list[RangeSpec],
    prefer: Preference | None,
    asked: Asked | None = None,
    limits: JobLimits | None = None,
) -> str:
    request = JobRequest(
        tables=tuple(dict.fromkeys(target.reader.index.table for target in targets)),
        vector_types=tuple(dict.fromkeys(str(target.reader.index.vector_type) for target in targets)),
        prefer=prefer,
    )
    indexes = [target.reader.index for target in targets]
    return jobs.create_job(workspace.ledger, tenant.incarnation, kind, request, work, indexes, asked, limits)
