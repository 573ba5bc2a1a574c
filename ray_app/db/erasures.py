"""The ledger's record of removals, which outlives the tenants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert

from ray_app.db.schema import erasures, qdrant_vectors
from ray_app.errors import UnknownErasure
from ray_app.offboarding.reports import Erasure, Round
from ray_app.tenants import Placement

#: After so long without a sign, a removal that was cut off is taken up by whoever looks for what is due.
PATIENCE: Final = timedelta(minutes=15)


def begin(connection: Connection, incarnation: UUID, placements: Sequence[Placement]) -> None:
    """Note a removal in the caller's transaction, which retires the tenant; one that is known stays."""
    connection.execute(
        insert(erasures)
        .values(incarnation=incarnation, placements=list(placements), due_at=func.now() + PATIENCE)
        .on_conflict_do_nothing()
    )


def get(ledger: Engine, incarnation: UUID) -> Erasure:
    """Raises UnknownErasure."""
    with ledger.connect() as connection:
        return _get(connection, incarnation)


def list_all(ledger: Engine) -> list[Erasure]:
    """Every removal, the latest first."""
    with ledger.connect() as connection:
        rows = connection.execute(select(erasures).order_by(erasures.c.requested_at.desc())).all()
    return [_erasure(row) for row in rows]


def due(ledger: Engine) -> list[UUID]:
    """Incarnations whose next round is due, the longest first."""
    query = (
        select(erasures.c.incarnation)
        .where(erasures.c.final_at.is_(None), erasures.c.due_at <= func.now())
        .order_by(erasures.c.due_at)
    )
    with ledger.connect() as connection:
        return list(connection.scalars(query))


def overdue(connection: Connection) -> float:
    """Seconds that the round has been due which has been due for longest; 0 when none is."""
    waited = func.extract("epoch", func.now() - func.min(erasures.c.due_at))
    found = connection.scalar(select(waited).where(erasures.c.final_at.is_(None)))
    return max(0.0, float(found or 0.0))


def add_round(ledger: Engine, incarnation: UUID, found: Round) -> None:
    """Keep what was found before any of it is erased, so that a crash does not lose it.

    Where it was anything, the removal is clean no more.
    """
    changes: dict[str, Any] = {"rounds": erasures.c.rounds + [found.to_json()]}  # noqa: RUF005 - a column
    if not found.clean:
        changes |= {"clean_at": None, "due_at": func.now() + PATIENCE}
    with ledger.begin() as connection:
        connection.execute(update(erasures).where(erasures.c.incarnation == incarnation).values(changes))


def end_round(ledger: Engine, incarnation: UUID) -> None:
    """Of the last round's finds nothing is left."""
    with ledger.begin() as connection:
        known = _get(connection, incarnation)
        rounds = [*known.rounds[:-1], replace(known.rounds[-1], erased=True)]
        connection.execute(
            update(erasures)
            .where(erasures.c.incarnation == incarnation)
            .values(rounds=[item.to_json() for item in rounds])
        )


def advance(connection: Connection, incarnation: UUID, retention: timedelta) -> Erasure:
    """A round found nothing: the first one, from which the retention counts, or the final one after it."""
    this = update(erasures).where(erasures.c.incarnation == incarnation, erasures.c.final_at.is_(None))
    if _get(connection, incarnation).clean_at is None:
        change = this.values(clean_at=func.now(), due_at=func.now() + retention)
    else:
        change = this.where(erasures.c.due_at <= func.now()).values(final_at=func.now())
    connection.execute(change)
    return _get(connection, incarnation)


def keep_record(connection: Connection, incarnation: UUID, record: dict[str, Any]) -> None:
    connection.execute(update(erasures).where(erasures.c.incarnation == incarnation).values(record=record))


def others_points(ledger: Engine, incarnation: UUID, space_id: str, point_ids: Sequence[UUID]) -> set[UUID]:
    """Those of ``point_ids`` that are points of another tenant in the space."""
    vectors = qdrant_vectors.c
    query = select(vectors.point_id).where(
        and_(
            vectors.point_id == func.any(list(point_ids)),
            vectors.space_id == space_id,
            vectors.incarnation != incarnation,
        )
    )
    with ledger.connect() as connection:
        return set(connection.scalars(query))


def _get(connection: Connection, incarnation: UUID) -> Erasure:
    row = connection.execute(select(erasures).where(erasures.c.incarnation == incarnation)).one_or_none()
    if row is None:
        raise UnknownErasure(
            f"No tenant of incarnation {incarnation} was removed.", hint="rowbeam tenant erasures shows all."
        )
    return _erasure(row)


def _erasure(row: Row[Any]) -> Erasure:
    return Erasure(
        incarnation=row.incarnation,
        placements=tuple(map(Placement, row.placements)),
        rounds=tuple(map(Round.from_json, row.rounds)),
        requested_at=row.requested_at.astimezone(UTC),
        clean_at=_utc(row.clean_at),
        due_at=row.due_at.astimezone(UTC),
        final_at=_utc(row.final_at),
        record=row.record,
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
