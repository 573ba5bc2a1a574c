"""Spaces and the pinned binding of an index to one."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert

from ray_app.db.schema import indexes, spaces, tenants
from ray_app.spaces import EmbeddingSpace, Preference, VectorType
from ray_app.tenants import Placement


@dataclass(frozen=True)
class PinnedIndex:
    """An index as it was made: its space holds until a migration changes it."""

    table: str
    vector_type: VectorType
    space: EmbeddingSpace
    preference: Preference


@dataclass(frozen=True)
class Bindings:
    """A tenant's indexes by (table, vector type), and where their vectors are: one statement's answer."""

    indexes: dict[tuple[str, VectorType], PinnedIndex]
    #: None where there is no index.
    placement: Placement | None


def list_indexes(engine: Engine, incarnation: UUID) -> dict[tuple[str, VectorType], PinnedIndex]:
    """The tenant's indexes by (table, vector type)."""
    return read_bindings(engine, incarnation).indexes


def read_bindings(engine: Engine, incarnation: UUID) -> Bindings:
    """The tenant's indexes, and where they are."""
    query = (
        select(indexes, spaces.c.spec, tenants.c.placement)
        .join_from(indexes, spaces)
        .join(tenants, tenants.c.incarnation == indexes.c.incarnation)
        .where(indexes.c.incarnation == incarnation)
        .order_by(indexes.c.table_name, indexes.c.vector_type)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    found = [
        PinnedIndex(
            row.table_name,
            VectorType(row.vector_type),
            EmbeddingSpace.from_json(row.spec),
            Preference(row.preference),
        )
        for row in rows
    ]
    placement = Placement(rows[0].placement) if rows else None
    return Bindings({(index.table, index.vector_type): index for index in found}, placement)


def list_spaces(engine: Engine) -> list[EmbeddingSpace]:
    """Every space that an index of any tenant was ever in."""
    with engine.connect() as connection:
        found = connection.scalars(select(spaces.c.spec).order_by(spaces.c.space_id))
        return [EmbeddingSpace.from_json(spec) for spec in found]


def pin(connection: Connection, incarnation: UUID, index: PinnedIndex) -> None:
    """Bind the index to its space, unless it is bound already."""
    space = index.space
    connection.execute(
        insert(spaces).values(space_id=space.space_id, spec=space.to_json()).on_conflict_do_nothing()
    )
    connection.execute(
        insert(indexes)
        .values(
            incarnation=incarnation,
            table_name=index.table,
            vector_type=index.vector_type,
            space_id=space.space_id,
            preference=index.preference,
        )
        .on_conflict_do_nothing()
    )
