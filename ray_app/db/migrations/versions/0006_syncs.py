"""How far syncs have come, and which tenants are synced by themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sync_marks",
        sa.Column("incarnation", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("vector_type", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("watermark", sa.DateTime(timezone=True)),
        sa.Column("read_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("unseen", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("full_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["incarnation"], ["rowbeam.tenants.incarnation"], name="fk_sync_marks_incarnation"
        ),
        sa.PrimaryKeyConstraint("incarnation", "table_name", "vector_type", name="pk_sync_marks"),
        schema="rowbeam",
    )
    op.create_table(
        "sync_schedules",
        sa.Column("incarnation", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("every_seconds", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("every_seconds > 0", name="ck_sync_schedules_every_seconds"),
        sa.ForeignKeyConstraint(
            ["incarnation"], ["rowbeam.tenants.incarnation"], name="fk_sync_schedules_incarnation"
        ),
        sa.PrimaryKeyConstraint("incarnation", name="pk_sync_schedules"),
        schema="rowbeam",
    )
