"""The operator's routes: tenants, their keys and their limits.

A key that was revoked, and a tenant that was changed or removed, count from the answer on in this
server, and within ``KEY_TTL`` seconds in others.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, ParamSpec, TypeVar

from fastapi import APIRouter, Depends, Response

from ray_app import onboarding
from ray_app.api.principals import admin_of
from ray_app.api.services import FromServices, Services
from ray_app.api.tenants_models import (
    ErasureBody,
    KeyBody,
    KeyList,
    LimitChanges,
    LimitsBody,
    NewKeyBody,
    NewTenantBody,
    RevocationBody,
    RotationBody,
    RotationRequest,
    TenantBody,
    TenantDetailsBody,
    TenantList,
    TenantRequest,
)
from ray_app.db import usage
from ray_app.errors import InputError
from ray_app.offboarding import removing
from ray_app.reports import Revocation, Rotation
from ray_app.tenants import ApiKey, Placement

P = ParamSpec("P")
T = TypeVar("T")

_PATH: Final = "/v1/tenants"
router = APIRouter(prefix=_PATH, tags=["tenants"], dependencies=[Depends(admin_of)])


async def _change(services: Services, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it in a thread; what is known of keys is forgotten when it has ended, whoever still waits."""

    def changed() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            services.authenticator.forget()

    return await services.in_thread(changed)


@router.post("", status_code=201, summary="Register a tenant; its first key is shown this once")
async def add_tenant(body: TenantRequest, services: FromServices, response: Response) -> NewTenantBody:
    settings = services.workspace.settings
    if body.placement not in (None, Placement.EMBEDDED) and settings.embedded_store:
        raise InputError("This server keeps vectors embedded; it has no Qdrant server.", param="placement")
    new = await _change(
        services,
        onboarding.add_tenant,
        services.workspace,
        services.store,
        body.name,
        body.client_id,
        body.placement,
    )
    response.headers["location"] = f"{_PATH}/{new.tenant.name}"
    return NewTenantBody.of(new)


@router.get("", summary="All tenants, by name")
async def list_tenants(services: FromServices) -> TenantList:
    found = await services.in_thread(services.workspace.registry.list)
    return TenantList(tenants=[TenantBody.model_validate(tenant) for tenant in found])


@router.get("/{name}", summary="One tenant, with its keys and what it has spent")
async def get_tenant(name: str, services: FromServices) -> TenantDetailsBody:
    def read() -> TenantDetailsBody:
        workspace = services.workspace
        tenant = workspace.registry.get(name)
        with workspace.ledger.connect() as connection:
            tokens, cost = usage.spent(connection, incarnation=tenant.incarnation)
        return TenantDetailsBody.of(tenant, workspace.keys.list(tenant), tokens, cost)

    return await services.in_thread(read)


@router.delete(
    "/{name}",
    summary="Erase a tenant's vectors and ledger rows, and prove it; the platform's rows stay",
    responses={202: {"model": ErasureBody, "description": "Something is left; send the request again."}},
)
async def remove_tenant(name: str, services: FromServices, response: Response) -> ErasureBody:
    report = await _change(services, removing.remove_tenant, services.workspace, services.store, name)
    if not report.proven:
        response.status_code = 202
    return ErasureBody.model_validate(report)


@router.patch("/{name}/limits", summary="Change some of a tenant's limits")
async def change_limits(name: str, body: LimitChanges, services: FromServices) -> LimitsBody:
    tenant = await _change(services, services.workspace.registry.set_limits, name, body.given())
    return LimitsBody.model_validate(tenant.limits)


@router.post("/{name}/keys", status_code=201, summary="Add a key, which is shown this once")
async def add_key(name: str, services: FromServices) -> NewKeyBody:
    def add() -> ApiKey:
        return services.workspace.keys.add(services.workspace.registry.get(name))

    return NewKeyBody.of(await services.in_thread(add))


@router.get("/{name}/keys", summary="All keys there ever were, without what proves them")
async def list_keys(name: str, services: FromServices) -> KeyList:
    def read() -> KeyList:
        found = services.workspace.keys.list(services.workspace.registry.get(name))
        return KeyList(keys=[KeyBody.model_validate(key) for key in found])

    return await services.in_thread(read)


@router.post(
    "/{name}/keys/{key_id}/rotate", status_code=201, summary="Replace a key; the old one works for a while"
)
async def rotate_key(
    name: str, key_id: str, services: FromServices, body: RotationRequest | None = None
) -> RotationBody:
    grace = timedelta(seconds=(body or RotationRequest()).grace_seconds)

    def rotate() -> Rotation:
        tenant = services.workspace.registry.get(name)
        return services.workspace.keys.rotate(tenant, key_id, grace=grace)

    done = await _change(services, rotate)
    return RotationBody(key=NewKeyBody.of(done.api_key), replaced=KeyBody.model_validate(done.replaced))


@router.delete("/{name}/keys/{key_id}", summary="Revoke a key at once; it may be the last")
async def revoke_key(name: str, key_id: str, services: FromServices) -> RevocationBody:
    def revoke() -> Revocation:
        return services.workspace.keys.revoke(services.workspace.registry.get(name), key_id)

    return RevocationBody.model_validate(await _change(services, revoke))
