"""What an operator can do in the console. All of it is done by the functions that the API's routes use."""

from __future__ import annotations

import logging
import time
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError
from starlette.responses import Response

from ray_app.api import job_actions
from ray_app.api.authentication import Principal
from ray_app.api.console.access import (
    PATH,
    ConsoleRoute,
    FromForm,
    first,
    operator_of,
    page,
    see_other,
)
from ray_app.api.console.state import Console, FromConsole
from ray_app.api.errors import say
from ray_app.api.search import run_search
from ray_app.api.search_models import SearchRequest
from ray_app.api.services import Services
from ray_app.api.validation import describe
from ray_app.console.views.search import Asked, SearchView, found
from ray_app.db.operators import indexed_tables
from ray_app.db.progress import job_progress
from ray_app.errors import InputError, RowbeamError
from ray_app.tenants import Tenant

log = logging.getLogger(__name__)
router = APIRouter(
    prefix=PATH, route_class=ConsoleRoute, include_in_schema=False, dependencies=[Depends(operator_of)]
)
#: Records that a search shows.
_HITS: Final = 20
#: What stands for a key of the tenant's in the logs of a search.
_KEY_ID: Final = "console"


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(request: Request, console: FromConsole, job_id: str) -> Response:
    services = console.services
    tenant = await services.in_thread(_tenant_of, services, job_id)
    job = await job_actions.cancel(services, tenant, job_id)
    log.info("Cancelled in the console: job %s of %s", job.job_id, tenant.name)
    return see_other(request, f"/jobs/{quote(job.job_id)}?done=cancelled")


@router.post("/jobs/{job_id}/resume")
async def resume_job(request: Request, console: FromConsole, job_id: str) -> Response:
    services = console.services
    tenant = await services.in_thread(_tenant_of, services, job_id)
    job = await job_actions.resume(services, tenant, job_id)
    log.info("Resumed in the console: job %s of %s", job.job_id, tenant.name)
    return see_other(request, f"/jobs/{quote(job.job_id)}?done=resumed")


@router.post("/tenants/{name}/backfill")
async def start_backfill(request: Request, console: FromConsole, name: str) -> Response:
    services = console.services
    tenant = await services.in_thread(services.workspace.registry.get, name)
    job = await job_actions.backfill(services, tenant)
    log.info("Started in the console: job %s of %s", job.job_id, tenant.name)
    return see_other(request, f"/jobs/{quote(job.job_id)}?done=started")


@router.post("/dead-letters/redrive")
async def redrive(request: Request, console: FromConsole, form: FromForm) -> Response:
    services = console.services
    tenant = await services.in_thread(services.workspace.registry.get, first(form, "tenant"))
    job = await job_actions.redrive(services, tenant)
    if job is None:
        return see_other(request, "/dead-letters?done=nothing")
    log.info("Redriven in the console: the dead letters of %s, as job %s", tenant.name, job.job_id)
    return see_other(request, f"/jobs/{quote(job.job_id)}?done=redriven")


@router.get("/search")
async def show_search(request: Request, console: FromConsole, tenant: str = "") -> Response:
    view = await console.services.in_thread(_search_view, console.services, Asked(tenant=tenant))
    return await page(request, "search.html", here="search", view=view)


@router.post("/search")
async def search(request: Request, console: FromConsole, form: FromForm) -> Response:
    """Sent as a form, so that what is looked for is in no address and no log."""
    asked = Asked(
        tenant=first(form, "tenant"),
        text=first(form, "text"),
        tables=tuple(form.get("tables", ())),
        vector_type=first(form, "vector_type"),
        hybrid=bool(first(form, "hybrid")),
    )
    status = 200
    view = await console.services.in_thread(_search_view, console.services, asked)
    try:
        view = await _search(console, asked, view)
    except RowbeamError as error:
        status, problem = say(error)
        view = SearchView(asked, view.tenants, view.tables, problem=problem)
    return await page(request, "search.html", status=status, here="search", view=view)


async def _search(console: Console, asked: Asked, view: SearchView) -> SearchView:
    services = console.services
    caller = await services.in_thread(_caller, services, asked.tenant)
    began = time.perf_counter()
    done = await run_search(services, caller, _request(asked))
    milliseconds = (time.perf_counter() - began) * 1000
    return SearchView(asked, view.tenants, view.tables, found(done.answer, done.providers, milliseconds))


def _request(asked: Asked) -> SearchRequest:
    """What a tenant would send. Raises InputError."""
    if not asked.text.strip():
        raise InputError("The search text is empty.", hint="Say what to look for.")
    try:
        return SearchRequest.model_validate(
            {
                "text": asked.text,
                "tables": list(asked.tables) or None,
                "vector_type": asked.vector_type,
                "hybrid": asked.hybrid,
                "limit": _HITS,
            }
        )
    except ValidationError as error:
        # pydantic's own text repeats the input.
        located = [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_input=False)]
        raise InputError(describe(located).message) from None


def _search_view(services: Services, asked: Asked) -> SearchView:
    names = tuple(tenant.name for tenant in services.workspace.registry.list())
    return SearchView(asked, names, tuple(indexed_tables(services.workspace.ledger)))


def _caller(services: Services, name: str) -> Principal:
    registry = services.workspace.registry
    tenant = registry.get(name)
    return Principal(tenant, registry.scope(tenant), _KEY_ID)


def _tenant_of(services: Services, job_id: str) -> Tenant:
    """Raises UnknownJob, UnknownTenant."""
    return services.workspace.registry.get(job_progress(services.workspace.ledger, job_id).tenant)
