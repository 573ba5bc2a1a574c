"""Removals of tenants, which outlive them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("placements", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("rounds", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("record", postgresql.JSONB()),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("clean_at", sa.DateTime(timezone=True)),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("final_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["incarnation"], ["rowbeam.tenants.incarnation"], name="fk_erasures_incarnation"
        ),
        sa.PrimaryKeyConstraint("incarnation", name="pk_erasures"),
        schema="rowbeam",
    )
