"""What moving a tenant needs: the place beside its own, and how far it has come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenant_moves",
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("placement", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in ("total", "done")),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text())),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("switched_at", sa.DateTime(timezone=True)),
        sa.Column("keep_until", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["incarnation"], ["rowbeam.tenants.incarnation"], name="fk_tenant_moves_incarnation"
        ),
        sa.PrimaryKeyConstraint("incarnation", name="pk_tenant_moves"),
        schema="rowbeam",
    )
