"""Who calls: the API key of a tenant, or the operator's admin key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ray_app.tenants import Tenant, TenantScope

#: Seconds for which a key that was found valid is not looked up again. A revocation through this
#: server counts at once, one made elsewhere after this long.
KEY_TTL: Final = 2.0


@dataclass(frozen=True)
class Principal:
    """A tenant's caller. Every route that touches a tenant's data takes it from here and nowhere else."""

    tenant: Tenant
    scope: TenantScope
    key_id: str


class Authenticator:
    """Finds the principal of a bearer token. Written by the API helper; see the brief."""
