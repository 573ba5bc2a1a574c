"""The pages that show something and change nothing."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from ray_app.api.console.access import PATH, ConsoleRoute, error_page, operator_of, page
from ray_app.api.console.reads import check_setup, now, observe, read_letters, read_providers
from ray_app.api.console.state import FromConsole
from ray_app.console.alerts import evaluate
from ray_app.console.views.jobs import job_view, jobs_view
from ray_app.console.views.overview import overview_view
from ray_app.console.views.tenants import matching, page_of, tenant_list, tenant_view
from ray_app.db import operators
from ray_app.db.progress import job_progress, list_jobs
from ray_app.reports import JobProgress

router = APIRouter(
    prefix=PATH, route_class=ConsoleRoute, include_in_schema=False, dependencies=[Depends(operator_of)]
)
#: Seconds between two looks of a page for newer figures.
_OFTEN: Final = 2
_SELDOM: Final = 10
#: Seconds that a page waits for a count that is under way.
_PATIENCE: Final = 1.5
#: Ended jobs in a list, and in a tenant's.
_ENDED: Final = 25
_LATEST: Final = 5
#: What a page says after a form of it, by the word in its address.
_DONE: Final = {
    "cancelled": "The job stops at the end of the batches in flight. What it wrote stays.",
    "resumed": "The job goes on.",
    "started": "The job is started.",
    "redriven": "The dead letters are tried again, as this job.",
    "nothing": "There were no open dead letters.",
}

Done = Annotated[str, Query()]


@router.get("")
async def show_overview(request: Request, console: FromConsole) -> Response:
    services = console.services
    ledger = services.workspace.ledger
    seen = await observe(console)
    jobs = await services.in_thread(list_jobs, ledger, include_ended=False, limit=_ENDED)
    spent = await services.in_thread(operators.spent_since, ledger, operators.this_month())
    tenants = await services.in_thread(services.workspace.registry.list)
    view = overview_view(
        tenants=len(tenants),
        jobs=[job_view(job, now()) for job in jobs],
        letters=seen.dead_letters,
        spent=list(spent.values()),
        alerts=evaluate(seen),
        checks=await check_setup(console),
    )
    return await page(request, "overview.html", here="", live=_OFTEN, view=view)


@router.get("/tenants")
async def show_tenants(
    request: Request,
    console: FromConsole,
    name: str = "",
    number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
) -> Response:
    services = console.services
    found = matching(await services.in_thread(services.workspace.registry.list), name)
    known = await console.coverage.later(page_of(found, number), _PATIENCE)
    ledger = services.workspace.ledger
    spent = await services.in_thread(operators.spent_since, ledger, operators.this_month())
    view = tenant_list(found, known, spent, wanted=name, page=number, now=now())
    live = _OFTEN if view.incomplete else _SELDOM
    return await page(request, "tenants.html", here="tenants", live=live, view=view)


@router.get("/tenants/{name}")
async def show_tenant(request: Request, console: FromConsole, name: str) -> Response:
    services = console.services
    ledger = services.workspace.ledger
    tenant = await services.in_thread(services.workspace.registry.get, name)
    counted = await console.coverage.soon(tenant, _PATIENCE)
    spent = await services.in_thread(operators.spent_since, ledger, operators.this_month())
    own = spent.get(tenant.incarnation, operators.Spent())
    jobs = await services.in_thread(
        list_jobs, ledger, include_ended=True, incarnation=tenant.incarnation, limit=_LATEST
    )
    return await page(
        request,
        "tenant.html",
        here="tenants",
        live=_OFTEN,
        view=tenant_view(tenant, counted, own, now()),
        jobs=jobs_view(jobs, now()),
    )


@router.get("/jobs")
async def show_jobs(request: Request, console: FromConsole) -> Response:
    ledger = console.services.workspace.ledger

    def read() -> list[JobProgress]:
        active = list_jobs(ledger, include_ended=False)
        known = {job.job_id for job in active}
        latest = list_jobs(ledger, include_ended=True, limit=_ENDED)
        return [*active, *(job for job in latest if job.job_id not in known)]

    view = jobs_view(await console.services.in_thread(read), now())
    return await page(request, "jobs.html", here="jobs", live=_OFTEN, view=view)


@router.get("/jobs/{job_id}")
async def show_job(request: Request, console: FromConsole, job_id: str, done: Done = "") -> Response:
    services = console.services
    job = await services.in_thread(job_progress, services.workspace.ledger, job_id)
    view = job_view(job, now())
    return await page(request, "job.html", here="jobs", live=_OFTEN, job=view, done=_DONE.get(done))


@router.get("/dead-letters")
async def show_dead_letters(
    request: Request, console: FromConsole, tenant: str = "", done: Done = ""
) -> Response:
    services = console.services
    view = await services.in_thread(read_letters, services, tenant)
    return await page(
        request, "dead-letters.html", here="dead-letters", live=_SELDOM, view=view, done=_DONE.get(done)
    )


@router.get("/providers")
async def show_providers(request: Request, console: FromConsole) -> Response:
    view = await console.services.in_thread(read_providers, console.services)
    return await page(request, "providers.html", here="providers", live=_SELDOM, view=view)


@router.get("/alerts")
async def show_alerts(request: Request, console: FromConsole) -> Response:
    alerts = evaluate(await observe(console))
    return await page(request, "alerts.html", here="alerts", live=_SELDOM, alerts=alerts)


@router.get("/setup")
async def show_setup(request: Request, console: FromConsole) -> Response:
    checks = await check_setup(console)
    return await page(request, "setup.html", here="setup", live=_SELDOM, checks=checks)


@router.get("/{rest:path}")
async def show_nothing(request: Request, rest: str) -> Response:  # noqa: ARG001 - for FastAPI
    return await error_page(request, 404, "The console has no such page.")
