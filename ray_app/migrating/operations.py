"""Changes of model as the library offers them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TypeAlias

from ray_app.db import clock, generations, jobs
from ray_app.db.generations import MigrationRow
from ray_app.db.indexes import PinnedIndex, list_indexes
from ray_app.db.locks import alone
from ray_app.db.progress import job_progress
from ray_app.errors import ConflictError
from ray_app.launching import JobRunner
from ray_app.migrating import building, switching
from ray_app.migrating.building import Change, begin, chosen_indexes, mark, plan_change, run_pass
from ray_app.migrating.following import Follower
from ray_app.migrating.reports import Migrated, MigrationStatus, Verification
from ray_app.migrating.states import Stage, Step
from ray_app.migrating.verifying import verify
from ray_app.planning import plan_target
from ray_app.reports import JobProgress, JobState, Plan
from ray_app.store.port import OpenStore, VectorStore
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

OnProgress: TypeAlias = Callable[[JobProgress], None]
#: Seconds after a switch in which the former generation is not dropped: searches that had looked it up end.
SEARCH_GRACE: Final = 30.0
#: Times that the switch waits for a moment with nothing left to follow, so that no write waits for a model;
#: and times that it is tried in all before writes are found to come faster than they can be followed.
PATIENT_TRIES: Final = 10
TRIES: Final = 20


class Migrations:
    """Changes of model of one workspace's indexes. All methods raise ``ray_app.errors``."""

    def __init__(
        self, workspace: Workspace, open_store: OpenStore, run_job: JobRunner, *, grace: float = SEARCH_GRACE
    ) -> None:
        self._workspace = workspace
        self._open_store = open_store
        self._run_job = run_job
        self._grace = grace

    def plan(self, tenant: str, table: str, *, to: str, vector_types: Iterable[str] | None = None) -> Plan:
        """What building the new generations would take and cost. Changes nothing; loads no model."""
        change = self._change(tenant, table, to, vector_types)
        tables = tuple(plan_target(self._workspace, target) for target in change.targets)
        return Plan(change.tenant.name, tables, self._workspace.providers.notes())

    def run(
        self,
        tenant: str,
        table: str,
        *,
        to: str,
        vector_types: Iterable[str] | None = None,
        allow_dead: int = 0,
        on_progress: OnProgress | None = None,
    ) -> Migrated:
        """Bring the table's indexes to the space named ``to``; called again, it goes on where it was.

        The former generations are kept for ``migration_keep_days`` of the settings.

        Raises:
            ConflictError: another change is not over, or the new generation was found unfit.
        """
        change = self._change(tenant, table, to, vector_types)
        return self._carry_out(change, allow_dead, on_progress)

    def rollback(
        self,
        tenant: str,
        table: str,
        *,
        vector_types: Iterable[str] | None = None,
        allow_dead: int = 0,
        on_progress: OnProgress | None = None,
    ) -> Migrated:
        """Go back to the generations that were kept, once they are up to date.

        Raises:
            ConflictError: none is kept.
            ConfigError: their model is not served any more.
        """
        owner = self._workspace.registry.get(tenant)
        pinned = self._standing(owner, table, vector_types)
        spaces = {row.space.space_id: row.space for _, row in pinned}
        if any(not row.stage.returns for _, row in pinned) or len(spaces) != 1:
            raise ConflictError(
                "These indexes have no former generation to go back to together.", hint="See --status."
            )
        (space,) = spaces.values()
        change = plan_change(self._workspace, owner, [index for index, _ in pinned], space)
        return self._carry_out(change, allow_dead, on_progress)

    def abort(
        self, tenant: str, table: str, *, vector_types: Iterable[str] | None = None
    ) -> list[MigrationStatus]:
        """Give the change up: a new generation is dropped, one that was to return is kept as it is."""
        return self._end(tenant, table, vector_types, Step.ABORT)

    def finish(
        self, tenant: str, table: str, *, vector_types: Iterable[str] | None = None
    ) -> list[MigrationStatus]:
        """Let go of the generations that were kept for a way back, before their time is over."""
        return self._end(tenant, table, vector_types, Step.FINISH)

    def sweep(self) -> int:
        """Drop what was kept for long enough, and what was being dropped; how many generations."""
        dropped = 0
        with self._workspace.ledger.connect() as connection:
            now = clock.now(connection)
        for owner in self._workspace.registry.list():
            with self._workspace.ledger.connect() as connection:
                rows = generations.list_migrations(connection, owner.incarnation).values()
            for row in rows:
                over = row.stage is Stage.KEPT and row.keep_until is not None and row.keep_until < now
                if over or row.stage is Stage.DROPPING:
                    self._drop(owner, row, Step.FINISH)
                    dropped += 1
        return dropped

    def status(self, tenant: str) -> list[MigrationStatus]:
        """The tenant's indexes that have a second generation."""
        owner = self._workspace.registry.get(tenant)
        pinned = list_indexes(self._workspace.ledger, owner.incarnation)
        with self._workspace.ledger.connect() as connection:
            rows = generations.list_migrations(connection, owner.incarnation)
            behind = {
                where: generations.count_changes(connection, owner.incarnation, *map(str, where))
                for where in rows
            }
        return [
            MigrationStatus(
                table=row.table,
                vector_type=str(row.vector_type),
                stage=row.stage,
                model=pinned[where].space.model,
                space_id=pinned[where].space.space_id,
                other_model=row.space.model,
                other_space_id=row.space.space_id,
                job=job_progress(self._workspace.ledger, row.job_id) if row.job_id else None,
                behind=behind[where],
                verification=Verification.from_json(row.report),
                switched_at=row.switched_at,
                keep_until=row.keep_until,
            )
            for where, row in rows.items()
        ]

    def _change(self, tenant: str, table: str, to: str, vector_types: Iterable[str] | None) -> Change:
        owner = self._workspace.registry.get(tenant)
        pinned = chosen_indexes(self._workspace, owner, table, vector_types)
        return plan_change(self._workspace, owner, pinned, self._workspace.providers.named(to))

    def _carry_out(self, change: Change, allow_dead: int, on_progress: OnProgress | None) -> Migrated:
        with self._alone(change):
            begin(self._workspace, change)
            job = run_pass(self._workspace, change, self._run_job, on_progress)
            waited = None
            if job.state is JobState.SUCCEEDED:
                with self._open_store() as store:
                    waited = self._take_over(store, change, job.job_id, allow_dead)
        kinds = {str(index.vector_type) for index in change.pinned}
        found = [item for item in self.status(change.tenant.name) if item.table == change.table]
        indexes = tuple(item for item in found if item.vector_type in kinds)
        return Migrated(change.table, waited is not None, job, indexes, waited)

    def _take_over(self, store: VectorStore, change: Change, job_id: str, allow_dead: int) -> float:
        workspace, settings = self._workspace, self._workspace.settings
        followers = [Follower(workspace, store, target, job_id) for target in change.targets]
        for follower, index in zip(followers, change.pinned, strict=True):
            _catch_up([follower])
            found = verify(workspace, store, follower, index, settings.migration_sample)
            one = Change(change.tenant, change.table, change.space, (index,), (follower.target,))
            mark(workspace, one, Step.FILL, report=found.to_json())
            problems = found.problems(allow_dead)
            if problems:
                raise ConflictError(
                    f"The new {index.vector_type} index of table {index.table} was not put in place:"
                    f" {'; '.join(problems)}.",
                    hint="The former one goes on. Run it again to try once more, with --allow-dead N to"
                    " accept dead letters, or give it up with --abort.",
                )
        mark(workspace, change, Step.VERIFY)
        keep = timedelta(days=settings.migration_keep_days)
        for attempt in range(TRIES):
            most = 0 if attempt < PATIENT_TRIES else switching.LAST_CHANGES
            _catch_up(followers)
            waited = switching.switch(workspace, change.tenant, followers, change.pinned, keep, most)
            if waited is not None:
                return waited
        raise ConflictError(
            "Records change faster than the new index can follow them.", hint="Try again when it is calmer."
        )

    def _standing(
        self, tenant: Tenant, table: str, vector_types: Iterable[str] | None
    ) -> list[tuple[PinnedIndex, MigrationRow]]:
        """The table's indexes that have a second generation, and it."""
        pinned = chosen_indexes(self._workspace, tenant, table, vector_types)
        with self._workspace.ledger.connect() as connection:
            rows = generations.list_migrations(connection, tenant.incarnation)
        found = [
            (index, rows[index.table, index.vector_type])
            for index in pinned
            if (index.table, index.vector_type) in rows
        ]
        if not found or (vector_types is not None and len(found) < len(pinned)):
            raise ConflictError(
                "No change of model is under way.", hint="Begin one: rowbeam migrate … --to SPACE."
            )
        return found

    def _end(
        self, tenant: str, table: str, vector_types: Iterable[str] | None, step: Step
    ) -> list[MigrationStatus]:
        owner = self._workspace.registry.get(tenant)
        for _, row in self._standing(owner, table, vector_types):
            self._drop(owner, row, step)
        return self.status(tenant)

    def _drop(self, tenant: Tenant, row: MigrationRow, step: Step) -> None:
        """Do ``step``, and what follows of it where it begins the end of the generation."""
        workspace = self._workspace
        if row.stage is not Stage.DROPPING:
            stage = building.leave(workspace, tenant, row, step)
            if row.job_id is not None and job_progress(workspace.ledger, row.job_id).state.active:
                jobs.request_cancel(workspace.ledger, row.job_id)
            if stage is not Stage.DROPPING:
                return
        if row.switched_at is not None:
            # Searches that had looked up the former binding end first.
            time.sleep(clock.left_of(workspace.ledger, row.switched_at, self._grace))
        with self._open_store() as store:
            switching.drop(workspace, store, tenant, row)

    @contextmanager
    def _alone(self, change: Change) -> Iterator[None]:
        """Hold the change against other processes that would carry it out too, as long as this one lives.

        Raises:
            ConflictError: another process does.
        """
        name = f"rowbeam:migrate:{change.tenant.incarnation}:{change.table}"
        with alone(self._workspace.ledger, name) as taken:
            if not taken:
                raise ConflictError(
                    f"Another process changes the model of table {change.table} of this tenant.",
                    hint="rowbeam migrate --status shows how far it is.",
                )
            yield


def _catch_up(followers: Sequence[Follower]) -> None:
    """Follow what was noted until little comes at a time."""
    for follower in followers:
        while follower.follow() > switching.LAST_CHANGES // (2 * len(followers)):
            pass
