"""What serving needs: limits, keys that expire, the rows' own times, idempotent job requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "tenants",
        sa.Column("limits", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        schema="rowbeam",
    )
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True)), schema="rowbeam")
    op.add_column("qdrant_vectors", sa.Column("updated_at", sa.BigInteger()), schema="rowbeam")
    op.add_column("jobs", sa.Column("idempotency_key", sa.Text()), schema="rowbeam")
    op.create_index(
        "uq_jobs_idempotency_key",
        "jobs",
        ["incarnation", "idempotency_key"],
        unique=True,
        schema="rowbeam",
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
