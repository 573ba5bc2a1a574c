"""The operator's client: tenants, their keys and their limits."""

from __future__ import annotations

from decimal import Decimal

from ray_app.client import tenants
from ray_app.client.drivers import Connection
from ray_app.client.tenants import TenantAccount
from ray_app.offboarding.reports import Erasure, ErasureReport
from ray_app.reports import KeyInfo, NewTenant, Revocation, Rotation
from ray_app.tenants import ApiKey, Limits, Placement, Tenant


class AdminClient(Connection):
    """Speaks to a server with the admin key, which reads and writes no tenant's data.

    A call that makes a key is not repeated once it may have been done, for the key would be lost.
    """

    def add_tenant(
        self, name: str, *, client_id: int | None = None, placement: Placement | None = None
    ) -> NewTenant:
        """Register a tenant; ``api_key.text`` of what this returns is shown this once."""
        return self._run(lambda patience: tenants.add(patience, name, client_id, placement))

    def tenants(self) -> list[Tenant]:
        """All tenants, by name."""
        return self._run(tenants.all_tenants)

    def tenant(self, name: str) -> TenantAccount:
        """One tenant, with its keys and what it has spent."""
        return self._run(lambda patience: tenants.get(patience, name))

    def remove_tenant(self, name: str) -> ErasureReport:
        """Erase a tenant's vectors and ledger rows. Call it again until the report is ``proven``."""
        return self._run(lambda patience: tenants.remove(patience, name))

    def erasures(self) -> list[Erasure]:
        """Removals of tenants, the latest first, with their signed records."""
        return self._run(tenants.erasures)

    def set_limits(self, name: str, **changes: int | Decimal | None) -> Limits:
        """Change the limits that are named, as in ``ray_app.tenants.Limits``; None restores a default."""
        return self._run(lambda patience: tenants.set_limits(patience, name, changes))

    def keys(self, name: str) -> list[KeyInfo]:
        """All keys there ever were, without what proves them."""
        return self._run(lambda patience: tenants.keys(patience, name))

    def add_key(self, name: str) -> ApiKey:
        """One more key; its text is shown this once."""
        return self._run(lambda patience: tenants.add_key(patience, name))

    def rotate_key(self, name: str, key_id: str, *, grace: float | None = None) -> Rotation:
        """A key in place of an old one, which works for ``grace`` seconds more; else as the server says."""
        return self._run(lambda patience: tenants.rotate_key(patience, name, key_id, grace))

    def revoke_key(self, name: str, key_id: str) -> Revocation:
        """Refuse a key at once; it may be the last."""
        return self._run(lambda patience: tenants.revoke_key(patience, name, key_id))
