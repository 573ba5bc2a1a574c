"""Bodies of the routes that manage tenants, their keys and limits."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ray_app.api.amounts import Dollars
from ray_app.db.api_keys import MAX_ROTATION_GRACE, ROTATION_GRACE
from ray_app.offboarding.reports import Stage
from ray_app.reports import KeyInfo, NewTenant
from ray_app.tenants import MAX_LIMIT, ApiKey, Placement, Tenant, TenantState


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class TenantRequest(_Request):
    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$",
            description="1 to 63 of a-z, 0-9, '.', '_' and '-'; a letter or digit at both ends.",
        ),
    ]
    client_id: Annotated[
        int | None,
        Field(ge=0, le=2**63 - 1, description="Its number in the platform's tables; else a free one."),
    ] = None
    # Lax: an enumeration is a string in JSON.
    placement: Annotated[
        Placement | None,
        Field(strict=False, description="Where its vectors live; else as the server is set up."),
    ] = None


_Count = Annotated[int | None, Field(ge=1, le=MAX_LIMIT)]


class LimitChanges(_Request):
    """A merge patch: what is absent stays, null restores the default."""

    requests_per_minute: _Count = None
    tokens_per_minute: _Count = None
    concurrent_requests: _Count = None
    monthly_cost: Annotated[
        Decimal | None,
        Field(
            strict=False,
            ge=0,
            le=MAX_LIMIT,
            decimal_places=9,
            description="US dollars of gateway calls in a calendar month (UTC); null sets no limit.",
        ),
    ] = None

    def given(self) -> dict[str, int | Decimal | None]:
        return {name: getattr(self, name) for name in self.model_fields_set}


class LimitsBody(_Answer):
    requests_per_minute: int
    tokens_per_minute: int
    concurrent_requests: int
    monthly_cost: Dollars | None


class TenantBody(_Answer):
    name: str
    client_id: int
    placement: Placement
    state: TenantState
    created_at: datetime
    #: Another one each time a tenant of the name is made.
    incarnation: UUID
    limits: LimitsBody


class TenantList(BaseModel):
    tenants: list[TenantBody]


class NewKeyBody(BaseModel):
    """A key, shown this once."""

    key_id: str
    api_key: str

    @classmethod
    def of(cls, key: ApiKey) -> NewKeyBody:
        return cls(key_id=key.key_id, api_key=key.text)


class ProbeBody(_Answer):
    """A vector that was written, found and deleted to prove the tenant's place, in milliseconds."""

    space_id: str
    write_ms: float
    search_ms: float
    delete_ms: float


class NewTenantBody(BaseModel):
    tenant: TenantBody
    key: NewKeyBody
    probe: ProbeBody

    @classmethod
    def of(cls, new: NewTenant) -> NewTenantBody:
        return cls(
            tenant=TenantBody.model_validate(new.tenant),
            key=NewKeyBody.of(new.api_key),
            probe=ProbeBody.model_validate(new.probe),
        )


class KeyBody(_Answer):
    """A key without what proves it."""

    key_id: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyList(BaseModel):
    keys: list[KeyBody]


class TenantDetailsBody(BaseModel):
    tenant: TenantBody
    keys: list[KeyBody]
    #: Spent since the tenant was made.
    tokens: int
    cost: Dollars

    @classmethod
    def of(cls, tenant: Tenant, keys: list[KeyInfo], tokens: int, cost: Decimal) -> TenantDetailsBody:
        return cls(
            tenant=TenantBody.model_validate(tenant),
            keys=[KeyBody.model_validate(key) for key in keys],
            tokens=tokens,
            cost=cost,
        )


class RotationRequest(_Request):
    grace_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=int(MAX_ROTATION_GRACE.total_seconds()),
            description="How long the old key goes on working; 0 refuses it at once.",
        ),
    ] = int(ROTATION_GRACE.total_seconds())


class RotationBody(BaseModel):
    key: NewKeyBody
    replaced: KeyBody


class RevocationBody(_Answer):
    key: KeyBody
    #: Keys of the tenant that still work; with 0 nobody can call for it until one is added.
    usable_left: int


class ErasureBody(_Answer):
    """What was erased, and what the last round found; ``proven`` when that is nothing."""

    name: str
    incarnation: UUID
    points_erased: int
    ledger_rows_erased: int
    points_left: int
    ledger_rows_left: int
    proven: bool
    #: When a second round is due, after which the record is final.
    second_round_at: datetime | None
    #: ``record`` and ``signature``, Ed25519 over the record with keys sorted and no blanks.
    record: dict[str, Any] | None


class RoundBody(_Answer):
    """One look for anything of a tenant, after which what was found was erased."""

    at: datetime
    #: By placement and space.
    points: dict[str, dict[str, int]]
    #: Points that carried no tenant's name.
    nameless: int
    #: Ledger rows by table.
    rows: dict[str, int]
    #: Whether nothing was left of it; false too where the round was cut off.
    erased: bool


class ErasureState(_Answer):
    """A removal as it stands; it names neither the tenant nor its client."""

    incarnation: UUID
    stage: Stage
    placements: list[Placement]
    requested_at: datetime
    clean_at: datetime | None
    due_at: datetime
    final_at: datetime | None
    rounds: list[RoundBody]
    record: dict[str, Any] | None


class ErasureStates(BaseModel):
    #: Checks the records, in PEM.
    public_key: str
    erasures: list[ErasureState]
