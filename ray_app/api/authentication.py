"""Who calls: the API key of a tenant, or the operator's admin key."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from pydantic import SecretStr

from ray_app.db.registry import TenantRegistry
from ray_app.errors import AuthError
from ray_app.tenants import Tenant, TenantScope, api_key_id, hash_api_key

#: Seconds for which a key that was found valid is not looked up again, nor its last use recorded. A
#: revocation through this server counts at once, one made elsewhere after this long.
KEY_TTL: Final = 2.0
#: What a key can be made of; nothing else is worth a look at the ledger.
_KEY: Final = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True)
class Principal:
    """A tenant's caller. Every route that touches a tenant's data takes it from here and nowhere else."""

    tenant: Tenant
    scope: TenantScope
    key_id: str


@dataclass(frozen=True)
class Admin:
    """The operator, by the admin key."""


@dataclass(frozen=True)
class _Known:
    principal: Principal
    until: float


class Authenticator:
    """Finds out whose key it is. Safe to use from several threads.

    Valid tenant keys are remembered by their SHA-256, never by their text; refusals are not
    remembered. ``clock`` counts seconds and never goes back.
    """

    def __init__(
        self, registry: TenantRegistry, admin_key: SecretStr, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._admin = hash_api_key(admin_key.get_secret_value())
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._generation = 0
        self._lock = Lock()

    @property
    def admin_digest(self) -> bytes:
        """SHA-256 of the admin key, to bind to it what must end when it is changed."""
        return self._admin

    def recall(self, key: str) -> Principal | Admin | None:
        """Whose key it is when that can be told without the ledger. Never blocks."""
        digest = hash_api_key(key)
        if hmac.compare_digest(digest, self._admin):
            return Admin()
        known = self._known.get(digest)
        return known.principal if known is not None and self._clock() < known.until else None

    def authenticate(self, key: str) -> Principal | Admin:
        """Whose key it is; asks the ledger, so call it in a thread.

        Raises:
            AuthError: it is unknown, wrong or revoked.
            DatabaseUnavailable: the ledger cannot be asked.
        """
        caller = self.recall(key)
        if caller is not None:
            return caller
        key_id = api_key_id(key) if _KEY.fullmatch(key) else None
        if key_id is None:
            raise AuthError("The API key is not valid.", hint="Ask your operator for a key.")
        generation = self._generation
        tenant, scope = self._registry.authenticate(key)
        principal = Principal(tenant, scope, key_id)
        known = _Known(principal, self._clock() + KEY_TTL)
        with self._lock:
            if generation == self._generation:  # else the key may have been revoked since it was looked up
                self._known[hash_api_key(key)] = known
        return principal

    def forget(self) -> None:
        """Look every key up again; called after a key was revoked or a tenant changed or removed."""
        with self._lock:
            self._generation += 1
            self._known = {}
