"""What a job may spend."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_budgets",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("cost_limit", sa.Numeric()),
        sa.Column("token_limit", sa.BigInteger()),
        sa.Column("cost_spent", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("tokens_spent", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cost_held", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("tokens_held", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reached", sa.Boolean(), server_default="false", nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["rowbeam.jobs.job_id"], name="fk_job_budgets_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_budgets"),
        schema="rowbeam",
    )
