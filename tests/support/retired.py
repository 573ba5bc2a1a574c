"""A tenant whose removal has begun, and goes no further."""

from __future__ import annotations

from sqlalchemy import Engine

from ray_app.db import fences
from ray_app.tenants import Tenant


def retire(ledger: Engine, tenant: Tenant) -> None:
    """No scope of it can be minted from now on; its writers find out at their next batch."""
    with ledger.begin() as connection:
        fences.retire(connection, tenant.incarnation)
