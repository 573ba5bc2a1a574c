"""Whether the server lives, and whether it can serve."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse

from ray_app.api.services import FromServices, Services
from ray_app.db.migrate import HEAD, current_revision
from ray_app.errors import RowbeamError

log = logging.getLogger(__name__)
router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str = "ok"


class Readiness(BaseModel):
    """``not_ready`` names what cannot serve now."""

    status: str
    not_ready: list[str]


@router.get("/healthz", summary="Is the server alive?")
async def healthz() -> Health:
    return Health()


@router.get("/readyz", summary="Can the server serve?", responses={503: {"model": Readiness}})
async def readyz(services: FromServices) -> JSONResponse:
    missing = [
        *await _failing(services, "database", lambda: _check_ledger(services)),
        *await _failing(services, "vector store", services.store.check),
        *_names(await services.backend.not_ready()),
    ]
    body = Readiness(status="not ready" if missing else "ready", not_ready=missing)
    return JSONResponse(body.model_dump(), 503 if missing else 200)


def _check_ledger(services: Services) -> str:
    with services.workspace.ledger.connect() as connection:
        return current_revision(connection) or ""


async def _failing(services: Services, name: str, check: Callable[[], str]) -> list[str]:
    try:
        found = await services.in_thread(check)
    except RowbeamError as error:
        log.warning("Not ready: %s", error)
        return [name]
    return ["database migrations"] if name == "database" and found != HEAD else []


def _names(reasons: Sequence[str]) -> list[str]:
    """The providers that are not ready; what they say of it names hosts, and goes to the log."""
    for reason in reasons:
        log.warning("Not ready: %s", reason)
    return [reason.partition(":")[0] for reason in reasons]
