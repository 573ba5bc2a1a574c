"""Backfilling several tenants at once, on a cluster whose jobs take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ray_app.backfilling import create_backfill
from ray_app.budgets import JobLimits
from ray_app.errors import InputError, RowbeamError
from ray_app.launching import JobRunner, run_job
from ray_app.reports import JobProgress
from ray_app.spaces import Preference
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

#: Makes what a tenant's job reports its progress to.
Watch = Callable[[], Callable[[JobProgress], None]]


@dataclass(frozen=True)
class TenantOutcome:
    """How one tenant's backfill ended: its job, or why there is none."""

    tenant: str
    job: JobProgress | None
    error: str | None = None
    hint: str | None = None


def backfill_tenants(
    workspace: Workspace,
    names: Sequence[str],
    *,
    tables: Iterable[str] | None = None,
    vector_types: Iterable[str] | None = None,
    prefer: Preference | None = None,
    limits: JobLimits | None = None,
    watch: Watch | None = None,
    runner: JobRunner = run_job,
) -> list[TenantOutcome]:
    """A job for each tenant, all at once; ``limits`` are each job's. What one meets is no other's.

    Raises:
        InputError: no cluster is running that they could share, or a tenant is named twice.
        UnknownTenant: there is no tenant of one of the names; nothing is started.
    """
    if len(set(names)) < len(names):
        raise InputError("A tenant is named twice.", hint="Name each once.")
    if workspace.settings.ray_address is None:
        raise InputError(
            "Several tenants need a Ray cluster to share.",
            hint="Start one with rowbeam up, or name one tenant at a time.",
        )
    tenants = [workspace.registry.get(name) for name in names]
    tables = None if tables is None else list(tables)
    vector_types = None if vector_types is None else list(vector_types)
    outcomes: dict[str, TenantOutcome] = {}
    queued: dict[str, str] = {}
    for tenant in tenants:
        try:
            queued[tenant.name] = create_backfill(
                workspace, tenant, tables=tables, vector_types=vector_types, prefer=prefer, limits=limits
            )
        except RowbeamError as error:
            outcomes[tenant.name] = TenantOutcome(tenant.name, None, error.message, error.hint)

    def follow(tenant: Tenant) -> TenantOutcome:
        try:
            progress = None if watch is None else watch()
            return TenantOutcome(
                tenant.name, runner(workspace, tenant, queued[tenant.name], progress, new=True)
            )
        except RowbeamError as error:
            return TenantOutcome(tenant.name, None, error.message, error.hint)

    with ThreadPoolExecutor(max(len(queued), 1)) as pool:
        for outcome in pool.map(follow, [tenant for tenant in tenants if tenant.name in queued]):
            outcomes[outcome.tenant] = outcome
    return [outcomes[name] for name in names]
