"""Reconcile a tenant: look, and where it was asked for, mend and look again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

from ray_app import launching
from ray_app.backfilling import create_repair
from ray_app.db import audits
from ray_app.db.fences import lock_active, lock_placed
from ray_app.db.generations import Generation, note_changes
from ray_app.db.jobs import fail_pending
from ray_app.errors import ConflictError
from ray_app.launching import JobRunner
from ray_app.parts import Part, PartKey
from ray_app.reconciling.drift import Kind
from ray_app.reconciling.index_survey import JUDGED, IndexSurvey, pieces
from ray_app.reconciling.reports import DriftCount, Finding, ReconcileReport
from ray_app.reconciling.survey import IndexState, Survey, survey_tenant
from ray_app.reports import Counts, JobProgress
from ray_app.store.port import OpenStore, VectorStore
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace
from ray_app.writing import enter, follow_part

#: Share of the rows or points that a repair may change unless it is forced; of few rows, so many records.
SHARE: Final = 0.1
FEW: Final = 10
#: Seconds until a point without a row counts as an orphan: its row may be about to be committed.
GRACE: Final = 600.0
#: Looks after which a repair is given up: each mends all that was found, and a second what the first left.
ROUNDS: Final = 4
_EXAMPLES: Final = 20


@dataclass(frozen=True)
class Repair:
    """How to mend: the share of the rows or points that may be changed (None: all of them)."""

    share: float | None = SHARE


def reconcile(
    workspace: Workspace,
    open_store: OpenStore,
    tenant: Tenant,
    *,
    tables: Sequence[str] | None = None,
    vector_types: Sequence[str] | None = None,
    repair: Repair | None = None,
    grace: float = GRACE,
    on_progress: Callable[[JobProgress], None] | None = None,
    run_job: JobRunner = launching.run_job,
) -> ReconcileReport:
    """Compare a tenant's rows, ledger and points, and mend what differs when there is a ``repair``.

    Rows that a running job has not come to count as missing.

    Raises:
        ConflictError: more would change than the repair's share; nothing was changed.
        JobConflict: a job works on a table that needs mending; nothing was changed.
        IndexMoved: an index changed its model, or the tenant was moved, while it was mended.
        UnknownTable, StoreUnavailable, DatabaseUnavailable.
    """
    began = time.monotonic()
    look = partial(_look, workspace, open_store, tenant, tables, vector_types, grace)
    survey = first = look()
    jobs: list[str] = []
    if repair is not None and survey.drift:
        _check_share(survey, repair)
        for _ in range(ROUNDS):
            jobs += _mend(workspace, open_store, tenant, survey, partial(run_job, on_progress=on_progress))
            survey = look()
            if not survey.drift:
                break
    return _report(tenant, first, survey.drift, tuple(jobs), time.monotonic() - began)


def _look(
    workspace: Workspace,
    open_store: OpenStore,
    tenant: Tenant,
    tables: Sequence[str] | None,
    vector_types: Sequence[str] | None,
    grace: float,
) -> Survey:
    with open_store() as store:
        while True:
            survey = survey_tenant(workspace, store, tenant, tables, vector_types, grace)
            # One that was moved meanwhile was compared with a place that is written no more.
            if workspace.registry.scope(tenant) == survey.scope:
                return survey


def _check_share(survey: Survey, repair: Repair) -> None:
    if repair.share is None:
        return
    allowed = max(FEW, int(repair.share * survey.size))
    if survey.drift > allowed:
        raise ConflictError(
            f"A repair would change {survey.drift:,} of {survey.size:,}, more than {repair.share:.0%}.",
            hint="Look at what was found without --repair. If it is right, repeat with --force.",
        )


def _mend(
    workspace: Workspace,
    open_store: OpenStore,
    tenant: Tenant,
    survey: Survey,
    run_job: Callable[..., JobProgress],
) -> list[str]:
    """The jobs that were run."""
    lacking = {
        (state.survey.key.table, state.survey.key.vector_type): [
            record for record, verdict in state.verdicts.items() if verdict.kind in (Kind.MISSING, Kind.STALE)
        ]
        for state in survey.indexes
    }
    lacking = {where: records for where, records in lacking.items() if records}
    # First, because it fails where another job is at work, and then nothing must have changed.
    job_id = create_repair(workspace, tenant, lacking) if lacking else None
    try:
        _mend_in_place(workspace, open_store, tenant, survey)
    except BaseException:
        if job_id is not None:
            fail_pending(workspace.ledger, job_id, "Its repair ended before it began.")
        raise
    if job_id is None:
        return []
    run_job(workspace, tenant, job_id, new=True)
    return [job_id]


def _mend_in_place(workspace: Workspace, open_store: OpenStore, tenant: Tenant, survey: Survey) -> None:
    """All that needs no embedding; and let a job find what does."""
    with open_store() as store:
        for state in survey.indexes:
            _mend_index(workspace, store, state)
        with workspace.ledger.begin() as connection:
            lock_placed(connection, survey.scope)
            for found in survey.misplaced:
                store.remove_strays(survey.scope, found.space, [stray.point_id for stray, _ in found.strays])
    with workspace.ledger.begin() as connection:
        lock_active(connection, tenant.incarnation)
        for place, _ in survey.elsewhere:
            audits.forget_all(connection, place)


def _mend_index(workspace: Workspace, store: VectorStore, state: IndexState) -> None:
    survey = state.survey.over(store)
    scope = survey.scope
    if state.misplaced:
        with workspace.ledger.begin() as connection:
            lock_placed(connection, scope)
            store.remove_strays(scope, survey.key.space, state.misplaced)
    for records in pieces(list(state.verdicts), JUDGED):
        seen = [(record, chunk) for record in records for chunk in state.verdicts[record].chunks]
        with workspace.ledger.begin() as connection:
            generation = Generation(*survey.place)
            (beside,) = enter(connection, scope, survey.key.table, [generation], records)
            # Judged again: what was written since is not to be undone.
            now = survey.judge_locked(connection, records, seen)
            spoiled = [r for r, verdict in now.items() if verdict.kind in (Kind.MISSING, Kind.STALE)]
            gone = [r for r, verdict in now.items() if verdict.kind is Kind.ORPHAN]
            doomed = [key for key in seen if (verdict := now.get(key[0])) and verdict.kind is Kind.DUPLICATE]
            doomed += [key for key in seen if key[0] in gone]
            doomed += [
                (point.record_id, point.chunk) for point in audits.points_of(connection, survey.place, gone)
            ]
            if doomed:
                store.delete(scope, survey.key, sorted(set(doomed)))
            audits.forget(connection, survey.place, gone)
            follow_part(connection, store, scope, beside, _taken_out(survey, gone))
            if beside.follows:
                note_changes(connection, generation, {record for record, _ in doomed})
            audits.spoil(connection, survey.place, spoiled)


def _taken_out(survey: IndexSurvey, records: Sequence[str]) -> Part:
    """What a sweep would have written of records that are gone."""
    key = survey.key
    drops = [(record, 0) for record in records]
    nowhere = PartKey("", 0, 0, None, None)
    return Part(nowhere, key.table, key.vector_type, key.space.space_id, 0, Counts(), drops=drops)


def _report(
    tenant: Tenant, first: Survey, left: int, jobs: tuple[str, ...], seconds: float
) -> ReconcileReport:
    counts = [
        DriftCount(state.survey.key.table, state.survey.key.vector_type, kind, count)
        for state in first.indexes
        for kind, count in sorted(state.counts.items())
    ]
    for found in first.misplaced:
        for kind in Kind:
            number = sum(stray_kind is kind for _, stray_kind in found.strays)
            if number:
                counts.append(DriftCount("", found.space.model, kind, number))
    counts += [DriftCount(place[1], place[2], Kind.WRONG_SPACE, number) for place, number in first.elsewhere]
    return ReconcileReport(
        tenant=tenant.name,
        rows=sum(state.rows for state in first.indexes),
        ledger_points=sum(state.survey.ledger_points for state in first.indexes),
        stored_points=sum(state.stored for state in first.indexes),
        found=tuple(counts),
        examples=tuple(islice(_examples(first), _EXAMPLES)),
        recent=sum(state.recent for state in first.indexes),
        repaired=max(first.drift - left, 0),
        remaining=left,
        jobs=jobs,
        seconds=round(seconds, 2),
    )


def _examples(survey: Survey) -> Iterator[Finding]:
    for state in survey.indexes:
        yield from _examples_of(state.survey, state)
    for found in survey.misplaced:
        for stray, kind in found.strays:
            yield Finding("", found.space.model, kind, str(stray.point_id))


def _examples_of(survey: IndexSurvey, state: IndexState) -> Iterator[Finding]:
    table, vector_type = survey.key.table, survey.key.vector_type
    for record, verdict in state.verdicts.items():
        yield Finding(table, vector_type, verdict.kind, record)
    for point in state.misplaced:
        yield Finding(table, vector_type, Kind.DUPLICATE, str(point))
