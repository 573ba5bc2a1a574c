"""Tenants, their API keys, and the scope without which no vector can be touched."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from ray_app.errors import InputError

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_KEY_PREFIX: Final = "rb"
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}")
#: Above any use, and below what floating point counts exactly.
MAX_LIMIT: Final = 1_000_000_000


class Placement(StrEnum):
    """Where a tenant's vectors live."""

    #: Its own Qdrant Edge directory on this machine.
    EMBEDDED = "embedded"
    #: A payload partition of a collection shared by tenants of one space, on a Qdrant server.
    POOLED = "pooled"
    #: Its own collection on a Qdrant server.
    DEDICATED = "dedicated"


class TenantState(StrEnum):
    ACTIVE = "active"
    #: No scope can be minted any more; its vectors are being erased.
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(frozen=True)
class Limits:
    """What a tenant may use of a shared server."""

    requests_per_minute: int = 6_000
    #: Tokens of text, stored or searched for, as the model counts them.
    tokens_per_minute: int = 2_000_000
    #: Requests under way at once.
    concurrent_requests: int = 64
    #: US dollars of gateway calls in a calendar month (UTC), jobs included; None sets no limit.
    monthly_cost: Decimal | None = None

    def __post_init__(self) -> None:
        counts = (self.requests_per_minute, self.tokens_per_minute, self.concurrent_requests)
        cost = Decimal(0) if self.monthly_cost is None else self.monthly_cost
        if min(counts) < 1 or max(counts) > MAX_LIMIT or not (cost.is_finite() and 0 <= cost <= MAX_LIMIT):
            raise InputError(
                "A limit is out of range.",
                hint=f"Counts are 1 to {MAX_LIMIT:,}, costs 0 to {MAX_LIMIT:,} US dollars.",
            )

    def to_json(self) -> dict[str, Any]:
        """As the ledger keeps them; the cost as text, for it is exact."""
        cost = None if self.monthly_cost is None else str(self.monthly_cost)
        return {**asdict(self), "monthly_cost": cost}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Limits:
        """The inverse of ``to_json``; what is missing has its default."""
        cost = value.get("monthly_cost")
        return cls(**{**value, "monthly_cost": None if cost is None else Decimal(cost)})


@dataclass(frozen=True)
class Tenant:
    """One client of the platform, as the registry knows it."""

    #: Random, minted at creation: a tenant deleted and created again never sees its predecessor's rows.
    incarnation: UUID
    name: str
    client_id: int
    placement: Placement
    state: TenantState
    created_at: datetime
    limits: Limits = Limits()


@dataclass(frozen=True)
class TenantScope:
    """The right to touch one tenant's vectors; every store call needs one.

    Made only by ``ray_app.db.registry.TenantRegistry`` from an authenticated key or, for an
    operator's command or a job, from the tenant's name. ``secret`` keys the point ids.
    """

    incarnation: UUID
    placement: Placement
    secret: bytes

    def __repr__(self) -> str:
        return f"TenantScope(incarnation={str(self.incarnation)[:8]}…, placement={self.placement})"


def is_tenant_name(name: str) -> bool:
    """Whether a tenant can have this name: 1 to 63 of a-z, 0-9, '.', '_' and '-', ends alphanumeric."""
    return _NAME.fullmatch(name) is not None


def check_tenant_name(name: str) -> str:
    """Return ``name`` when it can name a tenant.

    Raises:
        InputError: it is not 1 to 63 lower-case letters, digits, dots, dashes or underscores.
    """
    if not is_tenant_name(name):
        raise InputError(
            f"{name!r} cannot name a tenant.",
            hint="Use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting and ending with a letter or digit.",
        )
    return name


@dataclass(frozen=True)
class ApiKey:
    """A key as it is shown once. ``text`` is ``rb_<key_id>_<secret>``; only its hash is stored."""

    key_id: str
    text: str

    def __repr__(self) -> str:
        return f"ApiKey(key_id={self.key_id!r}, text='********')"


def mint_api_key() -> ApiKey:
    """A new key: 8 hex digits to find it by and 256 random bits to prove it."""
    key_id = secrets.token_hex(4)
    return ApiKey(key_id, f"{_KEY_PREFIX}_{key_id}_{secrets.token_urlsafe(32)}")


def api_key_id(text: str) -> str | None:
    """The id inside a key's text, or None when it does not look like a key."""
    parts = text.split("_", 2)
    looks_like_one = len(parts) == 3 and parts[0] == _KEY_PREFIX and is_key_id(parts[1]) and parts[2]
    return parts[1] if looks_like_one else None


def is_key_id(text: str) -> bool:
    """Whether it can be the id of a key, and so be looked for."""
    return _KEY_ID.fullmatch(text) is not None


def hash_api_key(text: str) -> bytes:
    """SHA-256 of the key. A slow hash would add nothing: the key is 256 random bits, not a password."""
    return hashlib.sha256(text.encode()).digest()


def api_key_matches(text: str, stored: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(hash_api_key(text), stored)
