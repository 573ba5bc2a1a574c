"""API keys of tenants: added, shown without their secrets, rotated, revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, func, select, update

from ray_app.db.fences import lock_active
from ray_app.db.registry import insert_key, usable_key
from ray_app.db.schema import api_keys
from ray_app.errors import ConflictError, InputError, UnknownKey
from ray_app.reports import KeyInfo, Revocation, Rotation
from ray_app.tenants import ApiKey, Tenant, is_key_id

#: How long a rotated key goes on working unless told, so that every caller can change to the new one.
ROTATION_GRACE: Final = timedelta(hours=24)
MAX_ROTATION_GRACE: Final = timedelta(days=90)


class ApiKeys:
    """The keys in the ledger. A key's text is answered once, by the call that makes it.

    Raises:
        UnknownTenant: from every change, when the tenant was removed meanwhile.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, tenant: Tenant) -> ApiKey:
        """One more key; the others go on working."""
        with self._engine.begin() as connection:
            lock_active(connection, tenant.incarnation)
            return insert_key(connection, tenant.incarnation)

    def list(self, tenant: Tenant) -> list[KeyInfo]:
        """All keys there ever were, revoked ones included, oldest first."""
        query = (
            select(api_keys)
            .where(api_keys.c.incarnation == tenant.incarnation)
            .order_by(api_keys.c.created_at, api_keys.c.key_id)
        )
        with self._engine.connect() as connection:
            return [_info(row) for row in connection.execute(query)]

    def rotate(self, tenant: Tenant, key_id: str, *, grace: timedelta = ROTATION_GRACE) -> Rotation:
        """A new key in place of an old one, which is refused after ``grace``; 0 refuses it at once.

        An old key that already has an end keeps it when that comes sooner.

        Raises:
            InputError: ``grace`` is negative or longer than ``MAX_ROTATION_GRACE``.
            UnknownKey: the tenant has no such key.
            ConflictError: the old key does not work any more.
        """
        if not timedelta(0) <= grace <= MAX_ROTATION_GRACE:
            raise InputError(
                "The grace period is out of range.",
                hint=f"Use 0 to {MAX_ROTATION_GRACE // timedelta(hours=1)} hours.",
            )
        with self._engine.begin() as connection:
            lock_active(connection, tenant.incarnation)
            _find(connection, tenant, key_id)
            replaced = connection.execute(
                update(api_keys)
                .where(api_keys.c.key_id == key_id, usable_key())
                # LEAST passes over null, the end of a key that has none.
                .values(expires_at=func.least(api_keys.c.expires_at, func.now() + grace))
                .returning(api_keys)
            ).one_or_none()
            if replaced is None:
                raise ConflictError(
                    f"The API key {key_id} does not work any more.", hint="Add a new key instead."
                )
            return Rotation(insert_key(connection, tenant.incarnation), _info(replaced))

    def revoke(self, tenant: Tenant, key_id: str) -> Revocation:
        """Refuse a key from now on. The last one may be revoked too; again changes nothing.

        Raises:
            UnknownKey: the tenant has no such key.
        """
        with self._engine.begin() as connection:
            lock_active(connection, tenant.incarnation)
            _find(connection, tenant, key_id)
            connection.execute(
                update(api_keys)
                .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=func.now())
            )
            info = _info(_find(connection, tenant, key_id))
            left = connection.scalar(
                select(func.count()).where(api_keys.c.incarnation == tenant.incarnation, usable_key())
            )
        return Revocation(info, int(left or 0))


def _find(connection: Connection, tenant: Tenant, key_id: str) -> Row[Any]:
    query = select(api_keys).where(api_keys.c.incarnation == tenant.incarnation, api_keys.c.key_id == key_id)
    row = connection.execute(query).one_or_none() if is_key_id(key_id) else None
    if row is None:
        raise UnknownKey(
            f"Tenant {tenant.name} has no API key {key_id!r}.",
            hint=f"rowbeam tenant key list {tenant.name} shows them.",
        )
    return row


def _info(row: Row[Any]) -> KeyInfo:
    return KeyInfo(row.key_id, row.created_at, row.last_used_at, row.expires_at, row.revoked_at)
