"""A tenant's reports: how far its indexes are in step with its tables, and what that cost."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from ray_app.api.gates import admitted
from ray_app.api.principals import FromTenant
from ray_app.api.reports_models import CoverageBody, CoverageList, UsageAnswer
from ray_app.api.services import FromServices
from ray_app.coverage import coverage
from ray_app.db.usage import MAX_DAYS, read_report
from ray_app.reports import CoverageRow, UsageReport

router = APIRouter(prefix="/v1", tags=["reports"], dependencies=[Depends(admitted)])


@router.get("/coverage", summary="How much of each index is in step with its table; reads whole tables")
async def get_coverage(services: FromServices, caller: FromTenant) -> CoverageList:
    def read() -> list[CoverageRow]:
        return coverage(services.workspace, caller.tenant)

    rows = await services.surveys.run(caller.tenant, lambda: services.in_thread(read))
    return CoverageList(coverage=[CoverageBody.model_validate(row) for row in rows])


@router.get("/usage", summary="Texts, tokens and cost by day (UTC), provider, model and table")
async def get_usage(
    services: FromServices,
    caller: FromTenant,
    first: Annotated[
        dt.date | None, Query(alias="from", description="Unless given, the first of the last day's month.")
    ] = None,
    last: Annotated[
        dt.date | None,
        Query(alias="to", description=f"Included; today unless given. At most {MAX_DAYS} days."),
    ] = None,
) -> UsageAnswer:
    def read() -> UsageReport:
        services.usage.flush()
        return read_report(services.workspace.ledger, caller.tenant, first, last)

    return UsageAnswer.model_validate(await services.in_thread(read))
