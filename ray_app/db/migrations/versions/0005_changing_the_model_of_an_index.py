"""What changing the model of an index needs: its other generation, what changed meanwhile, jobs on either."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "index_migrations",
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("vector_type", sa.Text(), nullable=False),
        sa.Column("space_id", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text()),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text())),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("switched_at", sa.DateTime(timezone=True)),
        sa.Column("keep_until", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["incarnation"], ["rowbeam.tenants.incarnation"], name="fk_index_migrations_incarnation"
        ),
        sa.ForeignKeyConstraint(
            ["space_id"], ["rowbeam.spaces.space_id"], name="fk_index_migrations_space_id"
        ),
        sa.PrimaryKeyConstraint("incarnation", "table_name", "vector_type", name="pk_index_migrations"),
        schema="rowbeam",
    )
    op.create_table(
        "index_changes",
        sa.Column("incarnation", sa.UUID(), nullable=False),
        *(sa.Column(name, sa.Text(collation="C"), nullable=False) for name in _TEXTS),
        sa.Column("stamp", sa.UUID(), nullable=False),
        sa.PrimaryKeyConstraint("incarnation", *_TEXTS, name="pk_index_changes"),
        schema="rowbeam",
    )
    op.add_column(
        "job_locks", sa.Column("generation", sa.Text(), server_default="", nullable=False), schema="rowbeam"
    )
    op.drop_constraint("pk_job_locks", "job_locks", schema="rowbeam")
    op.create_primary_key(
        "pk_job_locks", "job_locks", ["incarnation", "table_name", "generation"], schema="rowbeam"
    )


_TEXTS = ("table_name", "vector_type", "record_id")
