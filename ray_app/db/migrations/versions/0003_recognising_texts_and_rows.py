"""What recognises a text that has a vector, and a row that is as it was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("qdrant_vectors", sa.Column("text_hash", sa.LargeBinary()), schema="rowbeam")
    op.add_column("qdrant_vectors", sa.Column("row_hash", sa.LargeBinary()), schema="rowbeam")
    op.create_index(
        "ix_qdrant_vectors_incarnation_text_hash",
        "qdrant_vectors",
        ["incarnation", "text_hash"],
        schema="rowbeam",
    )
    op.add_column(
        "ranges", sa.Column("reused", sa.BigInteger(), server_default="0", nullable=False), schema="rowbeam"
    )
