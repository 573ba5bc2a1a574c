"""Several tenants' backfills as one operation: what one meets is no other's."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from ray_app.backfilling import create_backfill
from ray_app.budgets import JobLimits
from ray_app.db.progress import job_progress
from ray_app.errors import InputError, StoreUnavailable, UnknownTenant
from ray_app.reports import JobProgress, JobState
from ray_app.sharing import backfill_tenants
from ray_app.spaces import Preference
from ray_app.tenants import Placement, Tenant
from ray_app.workspace import Workspace
from tests.support.migration_jobs import InlineJobs
from tests.support.parts_site import Site

TABLE = "pull_requests"


def workspace_on_cluster(site: Site) -> Workspace:
    settings = site.workspace.settings.model_copy(update={"ray_address": "127.0.0.1:1"})
    return Workspace(settings)


def test_each_tenant_has_its_own_end(site: Site) -> None:
    for client, name in enumerate(["busy", "down", "other"], 2):
        site.workspace.registry.create(name, client, Placement.EMBEDDED)
    inline = InlineJobs(site.store)

    def run(
        workspace: Workspace,
        tenant: Tenant,
        job_id: str,
        on_progress: Callable[[JobProgress], None] | None,
        *,
        new: bool,
    ) -> JobProgress:
        if tenant.name == "down":
            raise StoreUnavailable("It is down.")
        return inline(workspace, tenant, job_id, on_progress, new=new)

    workspace = workspace_on_cluster(site)
    held = create_backfill(workspace, workspace.registry.get("busy"), tables=[TABLE])
    ends = backfill_tenants(
        workspace,
        ["busy", "down", "acme", "other"],
        tables=[TABLE],
        limits=JobLimits(tokens=1000),
        runner=run,
    )
    workspace.close()
    assert [end.tenant for end in ends] == ["busy", "down", "acme", "other"]
    busy, down, acme, other = ends
    assert held in (busy.error or "")
    assert down.error == "It is down."
    for end in (acme, other):
        assert end.job is not None
        assert end.job.state is JobState.SUCCEEDED
        assert end.job.budget is not None
        assert end.job.budget.token_limit == 1000
    assert job_progress(site.workspace.ledger, held).state is JobState.PENDING


def test_what_cannot_be_shared_is_refused_before_anything_starts(site: Site) -> None:
    with pytest.raises(InputError, match="cluster"):
        backfill_tenants(site.workspace, ["acme"])
    workspace = workspace_on_cluster(site)
    with pytest.raises(InputError, match="twice"):
        backfill_tenants(workspace, ["acme", "acme"])
    with pytest.raises(UnknownTenant):
        backfill_tenants(workspace, ["acme", "nobody"])
    workspace.close()


def test_a_cost_budget_of_a_model_without_a_price_is_refused(site: Site) -> None:
    gateway = {"url": "http://127.0.0.1:9/v1", "api_key": "k", "model": "a-model-of-our-own", "dimensions": 8}
    settings = type(site.workspace.settings).model_validate(
        {**site.workspace.settings.model_dump(), "gateway": gateway}
    )
    workspace = Workspace(settings)
    tenant = workspace.registry.get("acme")
    with pytest.raises(InputError, match="price"):
        create_backfill(
            workspace, tenant, tables=[TABLE], prefer=Preference.QUALITY, limits=JobLimits(Decimal(1))
        )
    workspace.close()
