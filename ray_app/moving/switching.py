"""The moment at which a tenant's place changes, and the end of the other one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, delete, func, text, update

from ray_app.db import generations
from ray_app.db.fences import lock_active, lock_placed
from ray_app.db.generations import Generation
from ray_app.db.indexes import list_indexes
from ray_app.db.moves import find_move
from ray_app.db.schema import index_changes, tenant_moves, tenants
from ray_app.errors import StoreUnavailable
from ray_app.moving.copying import IndexCopier, Places, hold
from ray_app.moving.states import Stage, Step, follow
from ray_app.onboarding import ever_used_spaces
from ray_app.store.port import VectorStore
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

#: Records that may be left to follow while writes wait.
LAST_CHANGES: Final = 100
#: Seconds to wait for writes under way to end.
GATE_SECONDS: Final = 10


def close_all(connection: Connection, workspace: Workspace, tenant: Tenant) -> None:
    """Wait until nobody writes an index of the tenant, and let nobody until the transaction ends."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{GATE_SECONDS}s'"))
    pinned = list_indexes(workspace.ledger, tenant.incarnation).values()
    generations.close_gates(connection, [Generation.of(tenant.incarnation, index) for index in pinned])


def switch(
    workspace: Workspace,
    tenant: Tenant,
    places: Places,
    copiers: Sequence[IndexCopier],
    keep: timedelta,
    most: int = LAST_CHANGES,
) -> float | None:
    """Have the target be the tenant's place from now on, in one transaction.

    Writes of the tenant wait meanwhile; searches do not, and one that has looked the former place up finds it
    for as long as it is kept. Answers for how many seconds writes waited; None, and nothing changed, when
    more than ``most`` records had to be followed, or an index has come to be that ``copiers`` do not have.

    Raises:
        ConflictError, TenantMoved, UnknownTenant: as ``copying.step``.
        DatabaseUnavailable: writes under way did not end in ``GATE_SECONDS``, or Postgres is down.
        StoreUnavailable: the last changes could not be followed; nothing changed.
    """
    with workspace.ledger.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{GATE_SECONDS}s'"))
        generations.close_gates(connection, [copier.gate for copier in copiers])
        began = time.monotonic()
        hold(connection, places)
        # Whoever makes an index holds the tenant, too: from here on there is no other.
        lock_placed(connection, places.source, move=True)
        indexes = list_indexes(workspace.ledger, tenant.incarnation)
        if set(indexes.values()) != {copier.index for copier in copiers}:
            return None
        if sum(copier.behind() for copier in copiers) > most:
            return None
        for copier in copiers:
            while copier.follow_in(connection):
                pass
        _change_places(connection, places, keep)
    return time.monotonic() - began


def _change_places(connection: Connection, places: Places, keep: timedelta) -> None:
    incarnation = places.source.incarnation
    connection.execute(
        update(tenants).where(tenants.c.incarnation == incarnation).values(placement=places.target.placement)
    )
    connection.execute(
        update(tenant_moves)
        .where(tenant_moves.c.incarnation == incarnation)
        .values(
            placement=places.source.placement,
            stage=Stage.KEPT,
            switched_at=func.now(),
            keep_until=func.now() + keep,
        )
    )


def leave(workspace: Workspace, tenant: Tenant, step: Step) -> Stage | None:
    """Do ``step``, after which nobody fills the other place any more; the stage it has then.

    Raises:
        ConflictError: it cannot be done at the stage that the move is at.
    """
    moves = tenant_moves.c
    with workspace.ledger.begin() as connection:
        # Writes under way note what they write, later ones find the stage and do not.
        close_all(connection, workspace, tenant)
        row = find_move(connection, tenant.incarnation, lock=True)
        stage = follow(row.stage if row else None, step)
        connection.execute(
            update(tenant_moves).where(moves.incarnation == tenant.incarnation).values(stage=stage)
        )
        connection.execute(delete(index_changes).where(index_changes.c.incarnation == tenant.incarnation))
    return stage


def drop(workspace: Workspace, store: VectorStore, tenant: Tenant) -> None:
    """Erase the place that is being dropped, of this tenant alone. Done again, it goes on.

    Raises:
        UnknownTenant: the tenant is being removed, and this with it.
        StoreUnavailable, DatabaseUnavailable: some of it may be left.
    """
    scope = workspace.registry.scope(tenant)
    with workspace.ledger.begin() as connection:
        row = find_move(connection, tenant.incarnation, lock=True)
        if row is None or row.stage is not Stage.DROPPING:
            return  # somebody else has done it
        lock_active(connection, tenant.incarnation)
        other = workspace.registry.scope_at(scope, row.placement)
        left = store.erase(other, ever_used_spaces(workspace))
        if left:
            raise StoreUnavailable(
                f"{left} points are left in the place that is being dropped.", hint="Repeat with --finish."
            )
        connection.execute(delete(tenant_moves).where(tenant_moves.c.incarnation == tenant.incarnation))
