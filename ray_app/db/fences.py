"""What holds a tenant as and where it is: the fences between its writers, its moves and its removal.

All of them are the caller's transaction's, and hold until it ends.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, func, select, update

from ray_app.db.schema import api_keys, tenant_moves, tenants
from ray_app.errors import TenantMoved, UnknownTenant
from ray_app.tenants import Placement, TenantScope, TenantState


def retire(connection: Connection, incarnation: UUID) -> bool:
    """Begin a removal, or go on with one; False where it is over.

    In the caller's transaction, which waits for writes under way (``lock_active``).
    """
    retired = connection.execute(
        update(tenants)
        .where(tenants.c.incarnation == incarnation, tenants.c.state != TenantState.DELETED)
        .values(state=TenantState.DELETING)
    )
    connection.execute(
        update(api_keys).where(api_keys.c.incarnation == incarnation).values(revoked_at=func.now())
    )
    return bool(retired.rowcount)


def places(connection: Connection, incarnation: UUID) -> tuple[Placement, ...]:
    """Where vectors of a tenant may be: its own place, and the one that a move fills or has kept."""
    found = [
        connection.scalar(select(table.c.placement).where(table.c.incarnation == incarnation))
        for table in (tenants, tenant_moves)
    ]
    return tuple(Placement(place) for place in found if place is not None)


def forget(connection: Connection, incarnation: UUID) -> None:
    """Free a retired tenant's name and client id; its bare row stays, so that nobody gets its incarnation."""
    connection.execute(
        update(tenants)
        .where(tenants.c.incarnation == incarnation, tenants.c.state == TenantState.DELETING)
        .values(state=TenantState.DELETED, removed_at=func.now())
    )


def lock_active(connection: Connection, incarnation: UUID) -> None:
    """Hold the tenant active until the transaction ends: the fence between writers and its removal.

    Raises:
        UnknownTenant: it is being removed or is gone.
    """
    _lock(connection, incarnation, read=True)


def lock_placed(connection: Connection, scope: TenantScope, *, move: bool = False) -> None:
    """As ``lock_active``, and hold the tenant's vectors where ``scope`` has them: the fence between writers
    and a move. With ``move`` nobody else can hold either, for whoever is about to move them.

    Raises:
        UnknownTenant: it is being removed or is gone.
        TenantMoved: its vectors are in another place by now.
    """
    if _lock(connection, scope.incarnation, read=not move) is not scope.placement:
        raise TenantMoved(
            "The tenant's vectors are in another place by now.",
            hint="Try again: what is written next goes to the place they are in.",
        )


def _lock(connection: Connection, incarnation: UUID, *, read: bool) -> Placement:
    """The placement of a tenant that is held active."""
    row = connection.execute(
        select(tenants.c.state, tenants.c.placement)
        .where(tenants.c.incarnation == incarnation)
        .with_for_update(read=read)
    ).one_or_none()
    if row is None or row.state != TenantState.ACTIVE:
        raise UnknownTenant("The tenant was removed meanwhile.")
    return Placement(row.placement)
