"""How far syncs have come with each index, and which tenants are synced by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from ray_app.db.fences import lock_active
from ray_app.db.schema import sync_marks, sync_schedules, tenants
from ray_app.syncing.watermark import Mark
from ray_app.tenants import TenantState

#: A scheduled sync that has not ended well is due again after this long, or sooner if its schedule says so.
RETRY: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class SavedMark:
    """The mark of an index."""

    mark: Mark
    recipe: str
    full_at: datetime


def load_mark(connection: Connection, incarnation: UUID, table: str, vector_type: str) -> SavedMark | None:
    """The mark of an index; None before its first sync."""
    row = connection.execute(
        select(sync_marks).where(
            sync_marks.c.incarnation == incarnation,
            sync_marks.c.table_name == table,
            sync_marks.c.vector_type == vector_type,
        )
    ).one_or_none()
    if row is None:
        return None
    return SavedMark(Mark(row.watermark, row.read_at, frozenset(row.unseen)), row.recipe, row.full_at)


def save_mark(
    connection: Connection, incarnation: UUID, table: str, vector_type: str, saved: SavedMark
) -> None:
    """Raises UnknownTenant when the tenant is being removed."""
    lock_active(connection, incarnation)
    values = {
        "recipe": saved.recipe,
        "watermark": saved.mark.watermark,
        "read_at": saved.mark.read_at,
        "unseen": sorted(saved.mark.unseen),
        "full_at": saved.full_at,
    }
    connection.execute(
        insert(sync_marks)
        .values(incarnation=incarnation, table_name=table, vector_type=vector_type, **values)
        .on_conflict_do_update(index_elements=list(sync_marks.primary_key), set_=values)
    )


def set_schedule(engine: Engine, incarnation: UUID, every: timedelta | None) -> None:
    """Have the server sync the tenant every so often; None stops that.

    Raises:
        UnknownTenant: it is being removed.
    """
    with engine.begin() as connection:
        lock_active(connection, incarnation)
        if every is None:
            connection.execute(delete(sync_schedules).where(sync_schedules.c.incarnation == incarnation))
            return
        seconds = {"every_seconds": int(every.total_seconds())}
        connection.execute(
            insert(sync_schedules)
            .values(incarnation=incarnation, **seconds)
            .on_conflict_do_update(index_elements=["incarnation"], set_=seconds)
        )


def schedules(engine: Engine) -> dict[str, timedelta]:
    """How often each tenant is synced by itself, by name; those that are not are left out."""
    query = (
        select(tenants.c.name, sync_schedules.c.every_seconds)
        .join_from(sync_schedules, tenants)
        .order_by(tenants.c.name)
    )
    with engine.connect() as connection:
        return {name: timedelta(seconds=every) for name, every in connection.execute(query).all()}


@dataclass(frozen=True)
class DueSync:
    """A scheduled sync whose time has come: of which tenant, and when it was taken."""

    tenant: str
    incarnation: UUID
    taken_at: datetime


def take_due(engine: Engine) -> list[DueSync]:
    """The syncs of active tenants that are due. Each is due again after ``RETRY`` unless ``note_synced`` is
    told of its end: whoever took it may fail, or die."""
    schedule = sync_schedules.c
    elapsed = func.extract("epoch", func.now() - schedule.last_at)
    seconds_early = func.greatest(schedule.every_seconds - RETRY.total_seconds(), 0)
    due = (
        update(sync_schedules)
        .where(
            tenants.c.incarnation == schedule.incarnation,
            tenants.c.state == TenantState.ACTIVE,
            # A last one that lies in the future was timed before the clock was set back.
            or_(schedule.last_at.is_(None), func.abs(elapsed) >= schedule.every_seconds),
        )
        .values(last_at=func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds_early))
        .returning(tenants.c.name, schedule.incarnation, func.now())
    )
    with engine.begin() as connection:
        return [DueSync(*row) for row in connection.execute(due)]


def note_synced(engine: Engine, done: DueSync) -> None:
    """The tenant is in step as of when the sync was taken; the next one is due by its schedule."""
    with engine.begin() as connection:
        connection.execute(
            update(sync_schedules)
            .where(sync_schedules.c.incarnation == done.incarnation)
            .values(last_at=done.taken_at)
        )
