"""Rowbeam as a library: every operation as a plain typed call. The command line is a thin layer over it.

from ray_app import Rowbeam

with Rowbeam.open() as rowbeam:
    rowbeam.add_tenant("acme")
    rowbeam.backfill("acme")
    for hit in rowbeam.search("acme", "issues", "login fails after update"):
        print(hit.record_id, hit.snippet)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

from ray_app import backfilling, launching, onboarding
from ray_app.budgets import JobLimits
from ray_app.coverage import coverage
from ray_app.db import dead_letters, jobs, usage
from ray_app.db.api_keys import ROTATION_GRACE
from ray_app.db.migrate import ensure_migrated
from ray_app.db.progress import job_progress, list_jobs
from ray_app.loading import load_jsonl
from ray_app.migrating.operations import Migrations
from ray_app.moving.operations import Moves
from ray_app.offboarding.removing import Erasures, remove_tenant
from ray_app.offboarding.reports import ErasureReport
from ray_app.planning import make_plan
from ray_app.portability.library import PortabilityOperations
from ray_app.reconciling.operation import GRACE, Repair, reconcile
from ray_app.reconciling.reports import ReconcileReport
from ray_app.reports import (
    CoverageRow,
    DeadLetter,
    JobProgress,
    KeyInfo,
    LoadReport,
    NewTenant,
    Plan,
    Revocation,
    Rotation,
    SearchHit,
    TenantDetails,
    UsageReport,
)
from ray_app.sample.schema import create_tables
from ray_app.searching import search
from ray_app.settings import Settings
from ray_app.sharing import TenantOutcome, backfill_tenants
from ray_app.spaces import Preference
from ray_app.stack.embedded import Stack
from ray_app.store.port import Condition
from ray_app.store.routing import RoutedStore
from ray_app.syncing.library import SyncOperations
from ray_app.tenants import ApiKey, Placement, Tenant
from ray_app.workspace import Workspace


class Rowbeam(SyncOperations, PortabilityOperations):
    """One connection to the tables, the ledger and the vector store.

    Use as a context manager. With no database configured it starts the embedded Postgres when it
    is not running, and stops it again on the way out. All methods raise ``ray_app.errors``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exit = ExitStack()
        self._workspace: Workspace | None = None

    @classmethod
    def open(cls, settings: Settings | None = None) -> Rowbeam:
        """Settings default to the environment's."""
        return cls(settings if settings is not None else Settings.from_env())

    def __enter__(self) -> Rowbeam:
        with ExitStack() as opening:
            stack = Stack(self._settings)
            opening.enter_context(stack.needed())
            self._settings = stack.client_settings()
            workspace = Workspace(self._settings)
            opening.callback(workspace.close)
            ensure_migrated(workspace.ledger)
            if self._settings.embedded_database:
                # The embedded database is ours to try things in; a real one has the platform's tables.
                with workspace.ledger.begin() as connection:
                    create_tables(connection)
            self._workspace = workspace
            self._exit = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workspace = None
        self._exit.close()

    @property
    def workspace(self) -> Workspace:
        if self._workspace is None:
            raise RuntimeError("Rowbeam is not open: use it in a with statement.")
        return self._workspace

    def _store(self) -> AbstractContextManager[RoutedStore]:
        """The store, for one operation: the embedded one is left free for other processes."""
        return launching.open_store_for(self._settings)

    def add_tenant(
        self, name: str, *, client_id: int | None = None, placement: Placement | None = None
    ) -> NewTenant:
        """Register a tenant, set up its vectors' place and prove it with a probe vector."""
        with self._store() as store:
            return onboarding.add_tenant(self.workspace, store, name, client_id, placement)

    def list_tenants(self) -> list[Tenant]:
        return self.workspace.registry.list()

    def show_tenant(self, name: str) -> TenantDetails:
        tenant = self.workspace.registry.get(name)
        with self.workspace.ledger.connect() as connection:
            tokens, cost = usage.spent(connection, incarnation=tenant.incarnation)
        return TenantDetails(
            tenant=tenant,
            key_ids=tuple(self.workspace.registry.key_ids(tenant)),
            indexes=tuple(row for row in coverage(self.workspace, tenant) if row.space_id),
            tokens=tokens,
            cost=cost,
            open_dead_letters=len(dead_letters.list_open(self.workspace.ledger, tenant.incarnation)),
        )

    def remove_tenant(self, name: str) -> ErasureReport:
        """Erase its vectors and ledger rows, and prove it in a signed record. The platform's rows stay."""
        with self._store() as store:
            return remove_tenant(self.workspace, store, name)

    @property
    def erasures(self) -> Erasures:
        """Removals that began, their signed records, and the rounds that are due."""
        return Erasures(self.workspace, self._store)

    def add_key(self, tenant: str) -> ApiKey:
        """One more API key, shown this once; the others go on working."""
        return self.workspace.keys.add(self.workspace.registry.get(tenant))

    def list_keys(self, tenant: str) -> list[KeyInfo]:
        return self.workspace.keys.list(self.workspace.registry.get(tenant))

    def rotate_key(self, tenant: str, key_id: str, *, grace: timedelta = ROTATION_GRACE) -> Rotation:
        """A new API key in place of an old one, which is refused after ``grace``."""
        return self.workspace.keys.rotate(self.workspace.registry.get(tenant), key_id, grace=grace)

    def revoke_key(self, tenant: str, key_id: str) -> Revocation:
        """Refuse an API key from now on; it may be the last. A running server notices within seconds."""
        return self.workspace.keys.revoke(self.workspace.registry.get(tenant), key_id)

    def set_limits(self, tenant: str, changes: Mapping[str, int | Decimal | None]) -> Tenant:
        """Change limits, named as the fields of ``ray_app.tenants.Limits``; None restores a default."""
        return self.workspace.registry.set_limits(tenant, changes)

    def usage(self, tenant: str, *, first: date | None = None, last: date | None = None) -> UsageReport:
        """What embedding came to, by day (UTC), provider, model and table; this month's unless told."""
        owner = self.workspace.registry.get(tenant)
        return usage.read_report(self.workspace.ledger, owner, first, last)

    def load(self, path: Path, *, tenant: str, table: str) -> LoadReport:
        """Insert the rows of a JSON-lines file (``.gz`` allowed) into a platform table; all or nothing."""
        client_id = self.workspace.registry.get(tenant).client_id
        spec = self.workspace.tables.get(table)
        return load_jsonl(self.workspace.source, path, client_id=client_id, spec=spec)

    def plan(
        self,
        tenant: str,
        *,
        tables: Iterable[str] | None = None,
        vector_types: Iterable[str] | None = None,
        prefer: Preference | None = None,
    ) -> Plan:
        """What a backfill would do and cost. Changes nothing."""
        return make_plan(
            self.workspace,
            self.workspace.registry.get(tenant),
            tables=tables,
            vector_types=vector_types,
            prefer=prefer,
        )

    def backfill(
        self,
        tenant: str,
        *,
        tables: Iterable[str] | None = None,
        vector_types: Iterable[str] | None = None,
        prefer: Preference | None = None,
        resume: str | None = None,
        budget: Decimal | None = None,
        max_tokens: int | None = None,
        on_progress: Callable[[JobProgress], None] | None = None,
    ) -> JobProgress:
        """Run the job in a process of its own, calling ``on_progress`` about twice a second; return its end.

        A job that failed is returned with its ``state`` and ``error``, not raised; a job that
        could not start (bad input, conflict) raises. It stops before it exceeds ``budget`` (US dollars) or
        ``max_tokens``, runs before ``resume`` counted in; a model on this machine costs no dollars.
        """
        owner = self.workspace.registry.get(tenant)
        limits = JobLimits(budget, max_tokens)
        if resume is not None:
            jobs.check_resumable(self.workspace.ledger, resume, owner)
            backfilling.change_limits(self.workspace, owner, resume, limits)
        job_id = resume or backfilling.create_backfill(
            self.workspace, owner, tables=tables, vector_types=vector_types, prefer=prefer, limits=limits
        )
        return launching.run_job(self.workspace, owner, job_id, on_progress, new=resume is None)

    def backfill_tenants(
        self, tenants: Sequence[str], *, limits: JobLimits | None = None, **options: Any
    ) -> list[TenantOutcome]:
        """A job for each tenant, all at once; options and errors as ``sharing.backfill_tenants``."""
        return backfill_tenants(self.workspace, tenants, limits=limits, **options)

    @property
    def migrations(self) -> Migrations:
        """Changes of model, with no gap in what is found."""
        return Migrations(self.workspace, self._store, launching.run_job)

    @property
    def moves(self) -> Moves:
        """Moves of tenants to another place, with no gap in what is found."""
        return Moves(self.workspace, self._store)

    def jobs(self, *, include_ended: bool = False) -> list[JobProgress]:
        """Active jobs, or all, newest first."""
        return list_jobs(self.workspace.ledger, include_ended=include_ended)

    def job(self, job_id: str) -> JobProgress:
        return job_progress(self.workspace.ledger, job_id)

    def cancel(self, job_id: str) -> JobProgress:
        """Ask the job to stop at the end of the ranges in flight."""
        jobs.request_cancel(self.workspace.ledger, job_id)
        return self.job(job_id)

    def dead_letters(self, tenant: str) -> list[DeadLetter]:
        owner = self.workspace.registry.get(tenant)
        return dead_letters.list_open(self.workspace.ledger, owner.incarnation)

    def redrive(
        self, tenant: str, *, on_progress: Callable[[JobProgress], None] | None = None
    ) -> JobProgress | None:
        """Try the tenant's open dead letters again, as a job; None when there are none."""
        owner = self.workspace.registry.get(tenant)
        job_id = backfilling.create_redrive(self.workspace, owner)
        if job_id is None:
            return None
        return launching.run_job(self.workspace, owner, job_id, on_progress, new=True)

    def reconcile(
        self,
        tenant: str,
        *,
        tables: Sequence[str] | None = None,
        vector_types: Sequence[str] | None = None,
        repair: Repair | None = None,
        grace: float = GRACE,
        on_progress: Callable[[JobProgress], None] | None = None,
    ) -> ReconcileReport:
        """Compare the tenant's rows, ledger and points both ways, and mend what differs when asked to."""
        return reconcile(
            self.workspace,
            self._store,
            self.workspace.registry.get(tenant),
            tables=tables,
            vector_types=vector_types,
            repair=repair,
            grace=grace,
            on_progress=on_progress,
        )

    def search(
        self,
        tenant: str,
        table: str,
        text: str,
        *,
        limit: int = 10,
        conditions: Sequence[Condition] = (),
        vector_type: str = "content",
    ) -> list[SearchHit]:
        """The tenant's records nearest to ``text``, best first."""
        owner = self.workspace.registry.get(tenant)
        with self._store() as store:
            return search(
                self.workspace,
                store,
                owner,
                table,
                text,
                limit=limit,
                conditions=conditions,
                vector_type=vector_type,
            )

    def coverage(self, tenant: str) -> list[CoverageRow]:
        """How much of each of the tenant's indexes is in step with its table."""
        return coverage(self.workspace, self.workspace.registry.get(tenant))

    def count_points(self, tenant: str) -> tuple[int, int]:
        """Points in the store and rows in the ledger, over all indexes of the tenant; they agree."""
        owner = self.workspace.registry.get(tenant)
        with self._store() as store:
            return onboarding.count_points(self.workspace, store, owner)
