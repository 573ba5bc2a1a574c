"""The operator's route to what removals of tenants erased; ``/v1/tenants`` makes them."""

from __future__ import annotations

from contextlib import nullcontext

from fastapi import APIRouter, Depends

from ray_app.api.principals import admin_of
from ray_app.api.services import FromServices
from ray_app.api.tenants_models import ErasureState, ErasureStates
from ray_app.offboarding.removing import Erasures

router = APIRouter(prefix="/v1/erasures", tags=["tenants"], dependencies=[Depends(admin_of)])


@router.get("", summary="Removals of tenants, the latest first, with their signed records")
async def list_erasures(services: FromServices) -> ErasureStates:
    def read() -> ErasureStates:
        erasures = Erasures(services.workspace, lambda: nullcontext(services.store))
        return ErasureStates(
            public_key=erasures.public_key(),
            erasures=[ErasureState.model_validate(erasure) for erasure in erasures.list()],
        )

    return await services.in_thread(read)
