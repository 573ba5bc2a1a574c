"""The ledger as it begins."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deployment",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("store_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_deployment_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
        schema="rowbeam",
    )
    op.create_table(
        "spaces",
        sa.Column("space_id", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("space_id", name=op.f("pk_spaces")),
        schema="rowbeam",
    )
    op.create_table(
        "tenants",
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("placement", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("incarnation", name=op.f("pk_tenants")),
        schema="rowbeam",
    )
    op.create_index(
        "uq_tenants_live_client",
        "tenants",
        ["client_id"],
        unique=True,
        schema="rowbeam",
        postgresql_where=sa.text("state <> 'deleted'"),
    )
    op.create_index(
        "uq_tenants_live_name",
        "tenants",
        ["name"],
        unique=True,
        schema="rowbeam",
        postgresql_where=sa.text("state <> 'deleted'"),
    )
    op.create_table(
        "usage",
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("texts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cost", sa.Numeric(precision=18, scale=9), server_default="0", nullable=False),
        sa.Column("seconds", sa.Float(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint(
            "incarnation", "day", "provider", "model", "table_name", "job_id", name=op.f("pk_usage")
        ),
        schema="rowbeam",
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["incarnation"], ["rowbeam.tenants.incarnation"], name=op.f("fk_api_keys_incarnation")
        ),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
        schema="rowbeam",
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("vector_type", sa.Text(), nullable=False),
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("error_class", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="1", nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["incarnation"], ["rowbeam.tenants.incarnation"], name=op.f("fk_dead_letters_incarnation")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint(
            "incarnation",
            "table_name",
            "vector_type",
            "record_id",
            name=op.f("uq_dead_letters_incarnation_table_name_vector_type_record_id"),
        ),
        schema="rowbeam",
    )
    op.create_table(
        "indexes",
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("vector_type", sa.Text(), nullable=False),
        sa.Column("space_id", sa.Text(), nullable=False),
        sa.Column("preference", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["incarnation"], ["rowbeam.tenants.incarnation"], name=op.f("fk_indexes_incarnation")
        ),
        sa.ForeignKeyConstraint(["space_id"], ["rowbeam.spaces.space_id"], name=op.f("fk_indexes_space_id")),
        sa.PrimaryKeyConstraint("incarnation", "table_name", "vector_type", name=op.f("pk_indexes")),
        schema="rowbeam",
    )
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("run", sa.Integer(), server_default="0", nullable=False),
        sa.Column("owner_host", sa.Text(), nullable=True),
        sa.Column("owner_pid", sa.Integer(), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["incarnation"], ["rowbeam.tenants.incarnation"], name=op.f("fk_jobs_incarnation")
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_jobs")),
        schema="rowbeam",
    )
    op.create_index(
        "ix_jobs_incarnation_created_at",
        "jobs",
        ["incarnation", "created_at"],
        unique=False,
        schema="rowbeam",
    )
    op.create_table(
        "qdrant_vectors",
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("table_name", sa.Text(collation="C"), nullable=False),
        sa.Column("vector_type", sa.Text(collation="C"), nullable=False),
        sa.Column("record_id", sa.Text(collation="C"), nullable=False),
        sa.Column("chunk", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("point_id", sa.UUID(), nullable=False),
        sa.Column("space_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("data_hash", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("snippet", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("embedded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["space_id"], ["rowbeam.spaces.space_id"], name=op.f("fk_qdrant_vectors_space_id")
        ),
        sa.PrimaryKeyConstraint(
            "incarnation", "table_name", "vector_type", "record_id", "chunk", name=op.f("pk_qdrant_vectors")
        ),
        sa.UniqueConstraint("point_id", name=op.f("uq_qdrant_vectors_point_id")),
        schema="rowbeam",
    )
    op.create_table(
        "job_locks",
        sa.Column("incarnation", sa.UUID(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["rowbeam.jobs.job_id"], name=op.f("fk_job_locks_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("incarnation", "table_name", name=op.f("pk_job_locks")),
        schema="rowbeam",
    )
    op.create_table(
        "ranges",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("vector_type", sa.Text(), nullable=False),
        sa.Column("lo", sa.Text(), nullable=True),
        sa.Column("hi", sa.Text(), nullable=True),
        sa.Column("keys", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("expected", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("parts", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("read", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("embedded", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unchanged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("no_text", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("dead", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("deleted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("chunks", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["rowbeam.jobs.job_id"], name=op.f("fk_ranges_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_ranges")),
        schema="rowbeam",
    )
    op.create_index("ix_ranges_job_id_state", "ranges", ["job_id", "state"], unique=False, schema="rowbeam")


def downgrade() -> None:
    op.drop_index("ix_ranges_job_id_state", table_name="ranges", schema="rowbeam")
    op.drop_table("ranges", schema="rowbeam")
    op.drop_table("job_locks", schema="rowbeam")
    op.drop_table("qdrant_vectors", schema="rowbeam")
    op.drop_index("ix_jobs_incarnation_created_at", table_name="jobs", schema="rowbeam")
    op.drop_table("jobs", schema="rowbeam")
    op.drop_table("indexes", schema="rowbeam")
    op.drop_table("dead_letters", schema="rowbeam")
    op.drop_table("api_keys", schema="rowbeam")
    op.drop_table("usage", schema="rowbeam")
    op.drop_index(
        "uq_tenants_live_name",
        table_name="tenants",
        schema="rowbeam",
        postgresql_where=sa.text("state <> 'deleted'"),
    )
    op.drop_index(
        "uq_tenants_live_client",
        table_name="tenants",
        schema="rowbeam",
        postgresql_where=sa.text("state <> 'deleted'"),
    )
    op.drop_table("tenants", schema="rowbeam")
    op.drop_table("spaces", schema="rowbeam")
    op.drop_table("deployment", schema="rowbeam")
