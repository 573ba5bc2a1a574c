"""A tenant's jobs: backfills planned, started, watched, cancelled and resumed, and dead letters."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Query, Response

from ray_app.api import job_actions
from ray_app.api.backfills_models import (
    BackfillRequest,
    DeadLetterList,
    JobAnswer,
    JobBody,
    JobList,
    LimitsRequest,
    PlanBody,
    RedriveAnswer,
    StartRequest,
)
from ray_app.api.gates import admitted
from ray_app.api.principals import FromTenant
from ray_app.api.services import FromServices
from ray_app.db import dead_letters
from ray_app.db.idempotency import MAX_KEY
from ray_app.db.progress import job_progress, list_jobs
from ray_app.planning import make_plan
from ray_app.reports import JobState, Plan

_PATH: Final = "/v1/backfills"
router = APIRouter(tags=["backfills"], dependencies=[Depends(admitted)])

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY,
        pattern=r"^[ -~]+$",
        description="Names the request: repeated under it, it finds its job and makes no second one.",
    ),
]


@router.post(_PATH, status_code=202, summary="Embed what is new or changed in the tenant's tables, as a job")
async def start_backfill(
    services: FromServices,
    caller: FromTenant,
    response: Response,
    body: StartRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> JobAnswer:
    asked = body or StartRequest()

    job = await job_actions.backfill(
        services,
        caller.tenant,
        tables=asked.tables,
        vector_types=asked.vector_types,
        prefer=asked.prefer,
        idempotency_key=idempotency_key,
        limits=asked.limits,
    )
    response.headers["location"] = f"{_PATH}/{job.job_id}"
    return JobAnswer(job=JobBody.of(job))


@router.get(_PATH, summary="The tenant's newest jobs, newest first")
async def list_backfills(
    services: FromServices,
    caller: FromTenant,
    active: Annotated[bool, Query(description="Only those that have not ended.")] = False,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> JobList:
    found = await services.in_thread(
        list_jobs,
        services.workspace.ledger,
        include_ended=not active,
        incarnation=caller.tenant.incarnation,
        limit=limit,
    )
    return JobList(jobs=[JobBody.of(job) for job in found])


@router.post(f"{_PATH}/plan", summary="What a backfill would do and cost; changes nothing")
async def plan_backfill(
    services: FromServices, caller: FromTenant, body: BackfillRequest | None = None
) -> PlanBody:
    asked = body or BackfillRequest()

    def plan() -> Plan:
        return make_plan(
            services.workspace,
            caller.tenant,
            tables=asked.tables,
            vector_types=asked.vector_types,
            prefer=asked.prefer,
        )

    made = await services.surveys.run(caller.tenant, lambda: services.in_thread(plan))
    return PlanBody.of(made)


@router.get(f"{_PATH}/{{job_id}}", summary="One job: its state, progress, counts and cost")
async def get_backfill(job_id: str, services: FromServices, caller: FromTenant) -> JobAnswer:
    ledger, owner = services.workspace.ledger, caller.tenant.incarnation
    job = await services.in_thread(job_progress, ledger, job_id, owner)
    return JobAnswer(job=JobBody.of(job))


@router.delete(
    f"{_PATH}/{{job_id}}",
    summary="Cancel a job at the end of the batches in flight; again changes nothing",
    responses={202: {"model": JobAnswer, "description": "It is stopping."}},
)
async def cancel_backfill(
    job_id: str, services: FromServices, caller: FromTenant, response: Response
) -> JobAnswer:
    job = await job_actions.cancel(services, caller.tenant, job_id)
    if job.state is JobState.CANCEL_REQUESTED:
        response.status_code = 202
    return JobAnswer(job=JobBody.of(job))


@router.post(f"{_PATH}/{{job_id}}/resume", status_code=202, summary="Go on with a job that stopped")
async def resume_backfill(
    job_id: str, services: FromServices, caller: FromTenant, body: LimitsRequest | None = None
) -> JobAnswer:
    limits = (body or LimitsRequest()).limits
    return JobAnswer(job=JobBody.of(await job_actions.resume(services, caller.tenant, job_id, limits)))


@router.get("/v1/dead-letters", summary="Records that could not be embedded, oldest first")
async def list_dead_letters(
    services: FromServices,
    caller: FromTenant,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> DeadLetterList:
    ledger, incarnation = services.workspace.ledger, caller.tenant.incarnation
    return DeadLetterList.of(await services.in_thread(dead_letters.list_open, ledger, incarnation, limit))


@router.post(
    "/v1/dead-letters/redrive",
    status_code=202,
    summary="Try the dead letters again, as a job",
    responses={200: {"model": RedriveAnswer, "description": "There are none; the job is null."}},
)
async def redrive(services: FromServices, caller: FromTenant, response: Response) -> RedriveAnswer:
    job = await job_actions.redrive(services, caller.tenant)
    if job is None:
        response.status_code = 200
    return RedriveAnswer(job=JobBody.of(job) if job else None)
