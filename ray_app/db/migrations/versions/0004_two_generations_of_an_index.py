"""What two generations of an index need to stand side by side: their space in the keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEY = ["incarnation", "table_name", "vector_type", "space_id", "record_id"]


def upgrade() -> None:
    op.drop_constraint("pk_qdrant_vectors", "qdrant_vectors", schema="rowbeam")
    op.create_primary_key("pk_qdrant_vectors", "qdrant_vectors", [*_KEY, "chunk"], schema="rowbeam")
    op.drop_constraint("uq_qdrant_vectors_point_id", "qdrant_vectors", schema="rowbeam")
    op.create_unique_constraint(
        "uq_qdrant_vectors_point_id_space_id", "qdrant_vectors", ["point_id", "space_id"], schema="rowbeam"
    )
    op.add_column("dead_letters", sa.Column("space_id", sa.Text()), schema="rowbeam")
    op.execute(
        "UPDATE rowbeam.dead_letters AS d SET space_id = i.space_id FROM rowbeam.indexes AS i"
        " WHERE (i.incarnation, i.table_name, i.vector_type) = (d.incarnation, d.table_name, d.vector_type)"
    )
    # What has no index cannot be tried again.
    op.execute("DELETE FROM rowbeam.dead_letters WHERE space_id IS NULL")
    op.alter_column("dead_letters", "space_id", nullable=False, schema="rowbeam")
    op.drop_constraint(
        "uq_dead_letters_incarnation_table_name_vector_type_record_id", "dead_letters", schema="rowbeam"
    )
    op.create_unique_constraint("uq_dead_letters_record_in_space", "dead_letters", _KEY, schema="rowbeam")
