"""Moves of tenants in the ledger: the place beside a tenant's own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, func, or_, select

from ray_app.db.schema import tenant_moves, tenants
from ray_app.moving.states import Stage, refusal
from ray_app.tenants import Placement, TenantState


@dataclass(frozen=True)
class MoveRow:
    """The place that is not the tenant's own."""

    placement: Placement
    stage: Stage
    #: Points of its indexes when copying began, and those that were looked at since.
    total: int
    done: int
    report: dict[str, Any] | None
    switched_at: datetime | None
    keep_until: datetime | None


def find_move(connection: Connection, incarnation: UUID, *, lock: bool = False) -> MoveRow | None:
    """The tenant's move, if there is one; its row locked with ``lock``, before the tenant's own row is."""
    query = select(tenant_moves).where(tenant_moves.c.incarnation == incarnation)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        return None
    return MoveRow(
        *(Placement(row.placement), Stage(row.stage), row.total, row.done, row.report),
        *(row.switched_at, row.keep_until),
    )


def refuse_beside_move(connection: Connection, incarnation: UUID) -> None:
    """Raises ConflictError: the tenant is being moved, or the place where it was is kept."""
    move = find_move(connection, incarnation)
    if move is not None:
        raise refusal(move.stage)


def due_names(connection: Connection) -> list[str]:
    """Names of tenants whose other place was kept for long enough, or is being dropped."""
    moves = tenant_moves.c
    over = (moves.stage == Stage.KEPT) & (moves.keep_until < func.now())
    query = (
        select(tenants.c.name)
        .join_from(tenant_moves, tenants, moves.incarnation == tenants.c.incarnation)
        .where(tenants.c.state == TenantState.ACTIVE, or_(over, moves.stage == Stage.DROPPING))
        .order_by(tenants.c.name)
    )
    return list(connection.scalars(query))
