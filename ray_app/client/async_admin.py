"""The operator's asynchronous client; its methods do what those of ``AdminClient`` do."""

from __future__ import annotations

from decimal import Decimal

from ray_app.client import tenants
from ray_app.client.drivers import AsyncConnection
from ray_app.client.tenants import TenantAccount
from ray_app.offboarding.reports import Erasure, ErasureReport
from ray_app.reports import KeyInfo, NewTenant, Revocation, Rotation
from ray_app.tenants import ApiKey, Limits, Placement, Tenant


class AsyncAdminClient(AsyncConnection):
    """``AdminClient`` for asyncio."""

    async def add_tenant(
        self, name: str, *, client_id: int | None = None, placement: Placement | None = None
    ) -> NewTenant:
        return await self._run(lambda patience: tenants.add(patience, name, client_id, placement))

    async def tenants(self) -> list[Tenant]:
        return await self._run(tenants.all_tenants)

    async def tenant(self, name: str) -> TenantAccount:
        return await self._run(lambda patience: tenants.get(patience, name))

    async def remove_tenant(self, name: str) -> ErasureReport:
        return await self._run(lambda patience: tenants.remove(patience, name))

    async def erasures(self) -> list[Erasure]:
        return await self._run(tenants.erasures)

    async def set_limits(self, name: str, **changes: int | Decimal | None) -> Limits:
        return await self._run(lambda patience: tenants.set_limits(patience, name, changes))

    async def keys(self, name: str) -> list[KeyInfo]:
        return await self._run(lambda patience: tenants.keys(patience, name))

    async def add_key(self, name: str) -> ApiKey:
        return await self._run(lambda patience: tenants.add_key(patience, name))

    async def rotate_key(self, name: str, key_id: str, *, grace: float | None = None) -> Rotation:
        return await self._run(lambda patience: tenants.rotate_key(patience, name, key_id, grace))

    async def revoke_key(self, name: str, key_id: str) -> Revocation:
        return await self._run(lambda patience: tenants.revoke_key(patience, name, key_id))
