"""All of a tenant's indexes looked at, several tasks at once, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from sqlalchemy import select

from ray_app.db import audits, clock
from ray_app.db.generations import list_migrations
from ray_app.db.indexes import PinnedIndex, list_indexes
from ray_app.db.schema import spaces
from ray_app.identity import partition_id
from ray_app.reconciling.drift import Kind, Verdict
from ray_app.reconciling.index_survey import Findings, IndexSurvey
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import Stray, VectorStore
from ray_app.tenants import Tenant, TenantScope
from ray_app.workspace import Workspace

#: Tasks run at once; each takes at most two of the ledger's pooled connections.
WORKERS: Final = 4
#: Findings that are held, to be mended together; what is more is counted, and mended in a further round.
HELD: Final = 50_000
#: Points out of place that are looked up at once.
STRAYS: Final = 1_000


@dataclass
class IndexState:
    """What was found of one index."""

    survey: IndexSurvey
    rows: int = 0
    stored: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    misplaced: list[UUID] = field(default_factory=list)
    #: Orphans that are too young to judge.
    recent: int = 0


@dataclass(frozen=True)
class Misplaced:
    """What lies in a space outside of the indexes that are in it."""

    space: EmbeddingSpace
    strays: tuple[tuple[Stray, Kind], ...]


@dataclass
class Survey:
    """What one look at a tenant found, at the place that ``scope`` names."""

    scope: TenantScope
    indexes: list[IndexState] = field(default_factory=list)
    misplaced: list[Misplaced] = field(default_factory=list)
    #: Ledger rows of indexes in spaces that they are not in: their places, and how many.
    elsewhere: list[tuple[audits.IndexPlace, int]] = field(default_factory=list)

    @property
    def drift(self) -> int:
        return (
            sum(sum(state.counts.values()) for state in self.indexes)
            + sum(len(found.strays) for found in self.misplaced)
            + sum(count for _, count in self.elsewhere)
        )

    @property
    def size(self) -> int:
        """Rows or points, whichever are more."""
        rows = sum(state.rows for state in self.indexes)
        points = sum(max(state.survey.ledger_points, state.stored) for state in self.indexes)
        return max(rows, points)


def generations(workspace: Workspace, tenant: Tenant) -> list[PinnedIndex]:
    """The tenant's indexes as they are pinned, then the generations that stand beside some of them: built, or
    kept, in a change of model. Those may have points, and are not compared: they are brought up to
    date when they are switched to."""
    pinned = list_indexes(workspace.ledger, tenant.incarnation)
    with workspace.ledger.connect() as connection:
        beside = list_migrations(connection, tenant.incarnation)
    return [
        *pinned.values(),
        *(replace(pinned[where], space=row.space) for where, row in beside.items() if where in pinned),
    ]


def survey_tenant(
    workspace: Workspace,
    store: VectorStore,
    tenant: Tenant,
    tables: Sequence[str] | None,
    vector_types: Sequence[str] | None,
    grace: float,
) -> Survey:
    """Look at the indexes of ``tables`` and ``vector_types``, and at all that lies outside of any index.

    ``grace`` is the age in seconds from which on an orphan counts as one.

    Raises:
        UnknownTable, InvalidTableSpec: the table of an index is not there.
        StoreUnavailable, DatabaseUnavailable: one of the three sides cannot be read.
    """
    scope = workspace.registry.scope(tenant)
    pinned = list_indexes(workspace.ledger, tenant.incarnation)
    indexes = generations(workspace, tenant)
    survey = Survey(scope)
    for index in pinned.values():
        if (tables is None or index.table in tables) and (
            vector_types is None or index.vector_type in vector_types
        ):
            state = IndexState(IndexSurvey(workspace, store, scope, workspace.reader(tenant, index)))
            _survey_index(workspace, state, grace)
            survey.indexes.append(state)
    if tables is None and vector_types is None:
        survey.misplaced = list(_strays(workspace, store, scope, indexes))
        survey.elsewhere = _elsewhere(workspace, tenant, indexes)
    return survey


def _survey_index(workspace: Workspace, state: IndexState, grace: float) -> None:
    with workspace.ledger.connect() as connection:
        youngest = clock.next_version(connection) - int(grace * 1_000_000)
    for findings in _run(state.survey):
        state.rows += findings.rows
        state.stored += findings.stored
        state.misplaced += findings.misplaced
        state.counts[Kind.DUPLICATE] += len(findings.misplaced)
        for record, verdict in findings.verdicts.items():
            if verdict.kind is Kind.ORPHAN and verdict.version > youngest:
                state.recent += 1
                continue
            state.counts[verdict.kind] += 1
            if len(state.verdicts) < HELD:
                state.verdicts[record] = verdict
    state.counts = +state.counts


def _run(survey: IndexSurvey) -> Iterator[Findings]:
    """The results of all tasks, of which only a few are begun ahead of what is taken."""
    with ThreadPoolExecutor(WORKERS, "reconcile") as pool:
        waiting: list[Future[Findings]] = []
        for task in survey.tasks():
            waiting.append(pool.submit(task))
            if len(waiting) > 2 * WORKERS:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _strays(
    workspace: Workspace, store: VectorStore, scope: TenantScope, indexes: Sequence[PinnedIndex]
) -> Iterator[Misplaced]:
    """Of each space ever used."""

    def partition(index: PinnedIndex) -> UUID:
        return partition_id(scope.secret, scope.incarnation, index.table, str(index.vector_type))

    known = {partition(index) for index in indexes}
    with workspace.ledger.connect() as connection:
        ever = [EmbeddingSpace.from_json(spec) for spec in connection.scalars(select(spaces.c.spec))]
    for space in ever:
        here = sorted(partition(index) for index in indexes if index.space == space)
        found = store.strays(scope, space, here, STRAYS)
        if found:
            yield Misplaced(space, tuple((stray, _kind_of(stray, known)) for stray in found))


def _kind_of(stray: Stray, known: set[UUID]) -> Kind:
    if stray.foreign:
        return Kind.WRONG_TENANT
    return Kind.WRONG_SPACE if stray.partition in known else Kind.ORPHAN


def _elsewhere(
    workspace: Workspace, tenant: Tenant, indexes: Sequence[PinnedIndex]
) -> list[tuple[audits.IndexPlace, int]]:
    allowed = {(index.table, str(index.vector_type), index.space.space_id) for index in indexes}
    with workspace.ledger.connect() as connection:
        found = audits.spaces_of(connection, tenant.incarnation)
    return [
        ((tenant.incarnation, table, kind, space), count)
        for table, kind, space, count in found
        if (table, kind, space) not in allowed
    ]
