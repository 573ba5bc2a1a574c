"""Spaces and the pinned binding of an index to one."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert

from ray_app.db.schema import indexes, spaces
from ray_app.spaces import EmbeddingSpace, Preference, VectorType


@dataclass(frozen=True)
class PinnedIndex:
    """An index as it was made: its space holds until a migration changes it."""

    table: str
    vector_type: VectorType
    space: EmbeddingSpace
    preference: Preference


def list_indexes(engine: Engine, incarnation: UUID) -> dict[tuple[str, VectorType], PinnedIndex]:
    """The tenant's indexes by (table, vector type)."""
    query = (
        select(indexes, spaces.c.spec)
        .join_from(indexes, spaces)
        .where(indexes.c.incarnation == incarnation)
        .order_by(indexes.c.table_name, indexes.c.vector_type)
    )
    with engine.connect() as connection:
        found = [
            PinnedIndex(
                row.table_name,
                VectorType(row.vector_type),
                EmbeddingSpace.from_json(row.spec),
                Preference(row.preference),
            )
            for row in connection.execute(query)
        ]
    return {(index.table, index.vector_type): index for index in found}


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
