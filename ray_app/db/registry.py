"""The tenant registry: the only maker of scopes, and the keeper of API keys."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from ray_app.db.schema import api_keys, deployment, tenants
from ray_app.errors import (
    AuthError,
    ConflictError,
    InputError,
    TenantExists,
    UnknownTenant,
)
from ray_app.tenants import (
    ApiKey,
    Limits,
    Placement,
    Tenant,
    TenantScope,
    TenantState,
    api_key_id,
    api_key_matches,
    check_tenant_name,
    hash_api_key,
    is_tenant_name,
    mint_api_key,
)

#: Compared against when no key matches, so that a wrong id takes as long as a wrong secret.
_NO_KEY = hash_api_key("")
_MAX_CLIENT_ID = 2**63 - 1


class TenantRegistry:
    """Tenants and keys in the ledger."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._secret: bytes | None = None

    def create(self, name: str, client_id: int, placement: Placement) -> tuple[Tenant, ApiKey]:
        """Register a tenant under a new incarnation, with its first API key.

        Raises:
            InputError: the name or the client id cannot be used.
            TenantExists: an active tenant has the name or the client id.
        """
        check_tenant_name(name)
        if not 0 <= client_id <= _MAX_CLIENT_ID:
            raise InputError(
                f"Client id {client_id} is out of range.", hint="Use 0 or more, as in the tables."
            )
        incarnation = uuid4()
        try:
            with self._engine.begin() as connection:
                row = connection.execute(
                    insert(tenants)
                    .values(
                        incarnation=incarnation,
                        name=name,
                        client_id=client_id,
                        placement=placement,
                        state=TenantState.ACTIVE,
                    )
                    .returning(tenants)
                ).one()
                key = insert_key(connection, incarnation)
        except IntegrityError as error:
            taken = f"client id {client_id}" if "client" in str(error.orig) else f"name {name!r}"
            raise TenantExists(
                f"A tenant with the {taken} exists.", hint="rowbeam tenant list shows all."
            ) from error
        return _tenant(row), key

    def get(self, name: str) -> Tenant:
        """The active tenant of that name. Raises UnknownTenant."""
        if not is_tenant_name(name):  # Postgres refuses some texts, such as one with a NUL
            raise _unknown(name)
        with self._engine.connect() as connection:
            row = connection.execute(
                select(tenants).where(tenants.c.name == name, tenants.c.state == TenantState.ACTIVE)
            ).one_or_none()
        if row is None:
            raise _unknown(name)
        return _tenant(row)

    def find_client(self, client_id: int) -> Tenant | None:
        """The active tenant of a client of the platform."""
        with self._engine.connect() as connection:
            row = connection.execute(
                select(tenants).where(tenants.c.client_id == client_id, tenants.c.state == TenantState.ACTIVE)
            ).one_or_none()
        return _tenant(row) if row else None

    def find_unfinished_removal(self, name: str) -> Tenant | None:
        """A tenant of that name whose erasure began and did not end."""
        if not is_tenant_name(name):
            return None
        with self._engine.connect() as connection:
            row = connection.execute(
                select(tenants).where(tenants.c.name == name, tenants.c.state == TenantState.DELETING)
            ).one_or_none()
        return _tenant(row) if row else None

    def find_incarnation(self, incarnation: UUID) -> Tenant:
        """The tenant of an incarnation, whatever its state. Raises UnknownTenant."""
        with self._engine.connect() as connection:
            row = connection.execute(
                select(tenants).where(tenants.c.incarnation == incarnation)
            ).one_or_none()
        if row is None:
            raise UnknownTenant(f"No tenant has had incarnation {incarnation}.")
        return _tenant(row)

    def list(self) -> list[Tenant]:
        """Active tenants by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(tenants).where(tenants.c.state == TenantState.ACTIVE).order_by(tenants.c.name)
            ).all()
        return [_tenant(row) for row in rows]

    def set_limits(self, name: str, changes: Mapping[str, int | Decimal | None]) -> Tenant:
        """Change some of a tenant's limits, named as the fields of ``Limits``; None restores a default.

        Raises:
            UnknownTenant: there is none of that name.
            InputError: there is no such limit, or it is out of range.
        """
        if not is_tenant_name(name):
            raise _unknown(name)
        unknown = sorted(set(changes) - set(Limits.__dataclass_fields__))
        if unknown:
            raise InputError(f"There is no limit {unknown[0]!r}.", param=unknown[0])
        with self._engine.begin() as connection:
            row = connection.execute(
                select(tenants)
                .where(tenants.c.name == name, tenants.c.state == TenantState.ACTIVE)
                .with_for_update()
            ).one_or_none()
            if row is None:
                raise _unknown(name)
            kept = {key: value for key, value in row.limits.items() if key not in changes}
            given = {key: value for key, value in changes.items() if value is not None}
            limits = replace(Limits.from_json(kept), **given)  # type: ignore[arg-type]  # by field name
            defaults = Limits().to_json()
            differing = {key: value for key, value in limits.to_json().items() if value != defaults[key]}
            changed = connection.execute(
                update(tenants)
                .where(tenants.c.incarnation == row.incarnation)
                .values(limits=differing)
                .returning(tenants)
            ).one()
        return _tenant(changed)

    def greatest_client_id(self) -> int:
        """The greatest client id ever registered, 0 when there is none."""
        with self._engine.connect() as connection:
            return int(connection.scalar(select(func.max(tenants.c.client_id))) or 0)

    def key_ids(self, tenant: Tenant) -> Sequence[str]:
        """Of the keys that work now, oldest first."""
        with self._engine.connect() as connection:
            return connection.scalars(
                select(api_keys.c.key_id)
                .where(api_keys.c.incarnation == tenant.incarnation, usable_key())
                .order_by(api_keys.c.created_at)
            ).all()

    def scope(self, tenant: Tenant) -> TenantScope:
        """The scope of a tenant an operator or a job works on.

        Raises:
            UnknownTenant: it is no longer active.
        """
        current = self.get(tenant.name)
        if current.incarnation != tenant.incarnation:
            raise UnknownTenant(f"The tenant {tenant.name!r} was removed and created again.")
        return self._mint(current)

    def removal_scope(self, incarnation: UUID, placement: Placement) -> TenantScope:
        """The scope to erase a tenant with in one placement, when no other can be minted any more.

        Raises:
            ConflictError: the tenant is active.
        """
        with self._engine.connect() as connection:
            state = connection.scalar(select(tenants.c.state).where(tenants.c.incarnation == incarnation))
        if state not in (TenantState.DELETING, TenantState.DELETED):
            raise ConflictError("The tenant is not being removed.", hint="Begin with rowbeam tenant remove.")
        return TenantScope(incarnation, placement, self._store_secret())

    @staticmethod
    def scope_at(scope: TenantScope, placement: Placement) -> TenantScope:
        """The same tenant's scope at the place where its vectors are, or are being brought, or were."""
        return replace(scope, placement=placement)

    def authenticate(self, key_text: str) -> tuple[Tenant, TenantScope]:
        """The tenant an API key belongs to; its use is recorded.

        Raises:
            AuthError: the key is unknown, wrong or revoked, or its tenant is gone; which one is not said.
        """
        key_id = api_key_id(key_text)
        with self._engine.begin() as connection:
            row = connection.execute(
                select(api_keys.c.key_hash, tenants)
                .join_from(api_keys, tenants, api_keys.c.incarnation == tenants.c.incarnation)
                .where(
                    api_keys.c.key_id == key_id,
                    usable_key(),
                    tenants.c.state == TenantState.ACTIVE,
                )
            ).one_or_none()
            if not api_key_matches(key_text, row.key_hash if row else _NO_KEY) or row is None:
                raise AuthError("The API key is not valid.", hint="Ask your operator for a key.")
            connection.execute(
                update(api_keys).where(api_keys.c.key_id == key_id).values(last_used_at=func.now())
            )
        tenant = _tenant(row)
        return tenant, self._mint(tenant)

    def _mint(self, tenant: Tenant) -> TenantScope:
        return TenantScope(tenant.incarnation, tenant.placement, self._store_secret())

    def derived_secret(self, purpose: str) -> bytes:
        """32 bytes for one purpose, the same on every node of the deployment and unlike those for any other.

        HMAC-SHA256 of the purpose under the deployment's secret, which nobody learns from it.

        Raises:
            DatabaseUnavailable: the ledger cannot be asked; it is, once.
        """
        return hmac.digest(self._store_secret(), purpose.encode(), "sha256")

    def _store_secret(self) -> bytes:
        """The deployment's id secret; whoever needs it first makes it."""
        if self._secret is None:
            with self._engine.begin() as connection:
                connection.execute(
                    upsert(deployment)
                    .values(id=1, store_secret=secrets.token_bytes(32))
                    .on_conflict_do_nothing()
                )
                self._secret = bytes(connection.scalars(select(deployment.c.store_secret)).one())
        return self._secret


def usable_key() -> ColumnElement[bool]:
    """Whether a row of ``api_keys`` opens anything now."""
    keys = api_keys.c
    return and_(keys.revoked_at.is_(None), or_(keys.expires_at.is_(None), keys.expires_at > func.now()))


def insert_key(connection: Connection, incarnation: UUID) -> ApiKey:
    """A new key of a tenant, in the caller's transaction."""
    key = mint_api_key()
    connection.execute(
        insert(api_keys).values(key_id=key.key_id, incarnation=incarnation, key_hash=hash_api_key(key.text))
    )
    return key


def _unknown(name: str) -> UnknownTenant:
    return UnknownTenant(
        f"There is no tenant named {name!r}.",
        hint="rowbeam tenant list shows all; rowbeam tenant add makes one.",
    )


def _tenant(row: Row[tuple[object, ...]]) -> Tenant:
    return Tenant(
        incarnation=row.incarnation,
        name=row.name,
        client_id=row.client_id,
        placement=Placement(row.placement),
        state=TenantState(row.state),
        created_at=row.created_at,
        limits=Limits.from_json(row.limits),
    )
