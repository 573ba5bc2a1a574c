"""What recognises a text that has a vector, and a row that is as it was: hashes in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Connection,
    LargeBinary,
    Text,
    func,
    literal,
    select,
    true,
    update,
)

from ray_app.db.ledger import of_index
from ray_app.db.schema import qdrant_vectors
from ray_app.diff import Sighting
from ray_app.spaces import EmbeddingSpace


def row_hashes(
    connection: Connection,
    incarnation: UUID,
    table: str,
    vector_type: str,
    space_id: str,
    record_ids: Sequence[str],
) -> dict[str, str | None]:
    """The row hash of each of these records that has vectors; None where it is unknown or chunks disagree."""
    vectors = qdrant_vectors.c
    query = select(vectors.record_id, func.encode(vectors.row_hash, "hex")).where(
        of_index(incarnation, table, vector_type, space_id),
        vectors.record_id == func.any(list(record_ids)),
    )
    found: dict[str, str | None] = {}
    for record, digest in connection.execute(query).all():
        if found.setdefault(record, digest) != digest:
            found[record] = None
    return found


def note_rows(
    connection: Connection,
    incarnation: UUID,
    table: str,
    vector_type: str,
    space_id: str,
    sightings: Sequence[Sighting],
) -> None:
    """Note the hashes of rows that were seen, for records that still are what they were compared with."""
    columns = ("record_id", "content_hash", "data_hash", "row_hash")
    values = (literal([getattr(item, name) for item in sightings], ARRAY(Text)) for name in columns)
    seen = func.unnest(*values).table_valued(*columns).render_derived()
    vectors = qdrant_vectors.c
    connection.execute(
        update(qdrant_vectors)
        .where(
            of_index(incarnation, table, vector_type, space_id),
            *(vectors[name] == seen.c[name] for name in columns[:3]),
        )
        .values(row_hash=func.decode(seen.c.row_hash, "hex"))
    )


@dataclass(frozen=True)
class TextPlace:
    """A point that was made of a text."""

    table: str
    vector_type: str
    record_id: str
    chunk: int
    content_hash: str

    @property
    def key(self) -> tuple[str, int]:
        return self.record_id, self.chunk


def places_of_texts(
    connection: Connection, incarnation: UUID, space: EmbeddingSpace, hashes: Sequence[bytes]
) -> dict[bytes, TextPlace]:
    """For each of ``hashes`` (``text.text_hash``) a point of the tenant in ``space``, where there is one."""
    vectors = qdrant_vectors.c
    wanted = (
        func.unnest(literal(list(hashes), ARRAY(LargeBinary))).table_valued("hash").render_derived("wanted")
    )
    # One point each: a text that thousands of rows have must not bring all of them.
    place = (
        select(
            vectors.table_name, vectors.vector_type, vectors.record_id, vectors.chunk, vectors.content_hash
        )
        .where(
            vectors.incarnation == incarnation,
            vectors.text_hash == wanted.c.hash,
            vectors.space_id == space.space_id,
        )
        .limit(1)
        .lateral("place")
    )
    rows = connection.execute(select(wanted.c.hash, place).select_from(wanted).join(place, true()))
    return {bytes(digest): TextPlace(*found) for digest, *found in rows}
