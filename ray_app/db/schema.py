"""The ledger's tables, in the Postgres schema ``rowbeam``.

Alembic's migrations create them; ``tests/jobs/test_migrations.py`` proves that the two agree.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from ray_app.db.columns import SCHEMA as SCHEMA
from ray_app.db.columns import count as _count
from ray_app.db.columns import metadata as metadata
from ray_app.db.columns import moment as _now
from ray_app.db.columns import tenant as _tenant
from ray_app.db.schema_changes import index_changes as index_changes
from ray_app.db.schema_changes import index_migrations as index_migrations
from ray_app.db.schema_changes import tenant_moves as tenant_moves

#: One row: the secret that keys point ids. Every node reads it here, so all agree.
deployment = Table(
    "deployment",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("store_secret", LargeBinary, nullable=False),
    _now("created_at"),
    CheckConstraint("id = 1", name="single"),
)

tenants = Table(
    "tenants",
    metadata,
    Column("incarnation", UUID(as_uuid=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("client_id", BigInteger, nullable=False),
    Column("placement", Text, nullable=False),
    Column("state", Text, nullable=False),
    #: The limits that differ from the defaults, as ``Limits.to_json`` spells them.
    Column("limits", JSONB, nullable=False, server_default="{}"),
    _now("created_at"),
    _now("removed_at", null=True),
    Index("uq_tenants_live_name", "name", unique=True, postgresql_where=text("state <> 'deleted'")),
    Index("uq_tenants_live_client", "client_id", unique=True, postgresql_where=text("state <> 'deleted'")),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    _tenant(),
    Column("key_hash", LargeBinary, nullable=False),
    _now("created_at"),
    _now("last_used_at", null=True),
    #: A rotated key still works until then.
    _now("expires_at", null=True),
    _now("revoked_at", null=True),
)

spaces = Table(
    "spaces",
    metadata,
    Column("space_id", Text, primary_key=True),
    Column("spec", JSONB, nullable=False),
    _now("created_at"),
)

#: The pinned binding of (tenant, table, vector type) to a space.
indexes = Table(
    "indexes",
    metadata,
    Column("incarnation", UUID(as_uuid=True), ForeignKey("tenants.incarnation"), primary_key=True),
    Column("table_name", Text, primary_key=True),
    Column("vector_type", Text, primary_key=True),
    Column("space_id", Text, ForeignKey("spaces.space_id"), nullable=False),
    Column("preference", Text, nullable=False),
    _now("created_at"),
)

#: The last version handed out: see ``clock.next_version``.
versions = Sequence("versions", metadata=metadata)

#: One row per point. The key's text columns sort by bytes, so that paging does not depend on locale. The
#: space is in the key: while an index changes its model, a second generation of its points stands beside
#: the first, under the same point ids.
qdrant_vectors = Table(
    "qdrant_vectors",
    metadata,
    Column("incarnation", UUID(as_uuid=True), primary_key=True),
    Column("table_name", Text(collation="C"), primary_key=True),
    Column("vector_type", Text(collation="C"), primary_key=True),
    Column("space_id", Text, ForeignKey("spaces.space_id"), primary_key=True),
    Column("record_id", Text(collation="C"), primary_key=True),
    Column("chunk", Integer, primary_key=True, autoincrement=False),
    Column("point_id", UUID(as_uuid=True), nullable=False),
    Column("content_hash", Text, nullable=False),
    #: ``text.text_hash`` of the chunk, by which another row of the same text finds its vector.
    Column("text_hash", LargeBinary),
    #: Of the row as its table's server hashed it; null when the point was not made of that row.
    Column("row_hash", LargeBinary),
    #: Of the payload columns the point was last given.
    Column("data_hash", Text, nullable=False),
    #: As ``clock.next_version`` gave it before the row was read, about microseconds since 1970.
    Column("version", BigInteger, nullable=False),
    #: The row's own ``updated_at`` in microseconds since 1970, when it has one: an older row never wins.
    Column("updated_at", BigInteger),
    Column("snippet", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("embedded_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("point_id", "space_id"),
    Index("ix_qdrant_vectors_incarnation_text_hash", "incarnation", "text_hash"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Text, primary_key=True),
    _tenant(),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    #: What was asked for: tables, vector types, preference.
    Column("request", JSONB, nullable=False),
    #: Raised by one each time a driver takes the job; writes of an earlier run are refused.
    Column("run", Integer, nullable=False, server_default="0"),
    Column("owner_host", Text),
    Column("owner_pid", Integer),
    _now("heartbeat_at", null=True),
    #: Rate, estimated completion, provider and latest errors, as the progress actor last saw them.
    Column("progress", JSONB, nullable=False, server_default="{}"),
    Column("error", Text),
    _now("created_at"),
    _now("started_at", null=True),
    _now("finished_at", null=True),
    #: What a caller names a request by, so that repeating it makes no second job.
    Column("idempotency_key", Text),
    Index("ix_jobs_incarnation_created_at", "incarnation", "created_at"),
    Index(
        "uq_jobs_idempotency_key",
        "incarnation",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
)

#: Which job works on a generation of a tenant's table; the primary key is what refuses a second one.
job_locks = Table(
    "job_locks",
    metadata,
    Column("incarnation", UUID(as_uuid=True), primary_key=True),
    Column("table_name", Text, primary_key=True),
    #: The generation it works on: the space that a migration builds, "" for the pinned one.
    Column("generation", Text, primary_key=True, server_default=""),
    Column("job_id", Text, ForeignKey("jobs.job_id", ondelete="CASCADE"), nullable=False),
)

#: A job's work, cut into key ranges (lo, hi]; a null bound is open.
ranges = Table(
    "ranges",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    #: ``rows`` reads the table, ``sweep`` looks for ledger rows whose record is gone, ``ids`` reads ``keys``.
    Column("kind", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("vector_type", Text, nullable=False),
    Column("lo", Text),
    Column("hi", Text),
    Column("keys", ARRAY(Text)),
    #: Rows expected, counted when the range was cut.
    Column("expected", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default="pending"),
    _now("lease_until", null=True),
    #: Parts written so far, [[lo, hi], …]; the range is done when they chain from lo to hi.
    Column("parts", JSONB, nullable=False, server_default="[]"),
    _count("read"),
    _count("embedded"),
    _count("unchanged"),
    _count("no_text"),
    _count("dead"),
    _count("deleted"),
    _count("chunks"),
    _count("reused"),
    _now("finished_at", null=True),
    Index("ix_ranges_job_id_state", "job_id", "state"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _tenant(),
    Column("table_name", Text, nullable=False),
    Column("vector_type", Text, nullable=False),
    Column("space_id", Text, nullable=False),
    Column("record_id", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("job_id", Text),
    Column("stage", Text, nullable=False),
    Column("error_class", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="1"),
    #: ``open`` until the record is embedded or gone.
    Column("state", Text, nullable=False, server_default="open"),
    _now("first_at"),
    _now("last_at"),
    UniqueConstraint(
        *("incarnation", "table_name", "vector_type", "space_id", "record_id"),
        name="uq_dead_letters_record_in_space",
    ),
)

#: What embedding cost, added up by day. Spent is spent: a resumed range does not reset it.
usage = Table(
    "usage",
    metadata,
    Column("incarnation", UUID(as_uuid=True), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("table_name", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    _count("texts"),
    _count("tokens"),
    Column("cost", Numeric(18, 9), nullable=False, server_default="0"),
    #: Time the provider was busy; tokens over it is the speed that plans estimate with.
    Column("seconds", Float, nullable=False, server_default="0"),
)

#: What a job may spend, and has; jobs without a limit have no row. ``spent`` counts calls that have ended,
#: ``held`` is what those under way may come to. US dollars, unrounded.
job_budgets = Table(
    "job_budgets",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("cost_limit", Numeric),
    Column("token_limit", BigInteger),
    Column("cost_spent", Numeric, nullable=False, server_default="0"),
    _count("tokens_spent"),
    Column("cost_held", Numeric, nullable=False, server_default="0"),
    _count("tokens_held"),
    #: Whether a call did not fit: the job goes no further until its limits are raised.
    Column("reached", Boolean, nullable=False, server_default="false"),
)

#: How far the rows of an index have been compared with it by syncs, and what the next one has to know.
sync_marks = Table(
    "sync_marks",
    metadata,
    Column("incarnation", UUID(as_uuid=True), ForeignKey("tenants.incarnation"), primary_key=True),
    Column("table_name", Text, primary_key=True),
    Column("vector_type", Text, primary_key=True),
    #: What was made of rows: the space, the chunker, the columns. The mark means nothing for another.
    Column("recipe", Text, nullable=False),
    #: What was committed with an earlier ``updated_at`` has been seen; null where that cannot be told.
    _now("watermark", null=True),
    #: The source's clock when the last sync began to read.
    _now("read_at"),
    #: Transactions that were open then and whose beginning its role may not see, by their virtual ids.
    Column("unseen", ARRAY(Text), nullable=False, server_default="{}"),
    #: When the last comparison of the whole table began.
    _now("full_at"),
)

#: Tenants that the server syncs by itself.
sync_schedules = Table(
    "sync_schedules",
    metadata,
    Column("incarnation", UUID(as_uuid=True), ForeignKey("tenants.incarnation"), primary_key=True),
    Column("every_seconds", Integer, nullable=False),
    _now("last_at", null=True),
    CheckConstraint("every_seconds > 0", name="every_seconds"),
)

#: Removals, and what each found and erased. They outlive their tenants, and hold no name or client id.
erasures = Table(
    "erasures",
    metadata,
    Column("incarnation", UUID(as_uuid=True), ForeignKey("tenants.incarnation"), primary_key=True),
    #: Where points of the tenant may be.
    Column("placements", ARRAY(Text), nullable=False),
    #: Looks for anything of the tenant, as ``offboarding.reports.Round`` spells them.
    Column("rounds", JSONB, nullable=False, server_default="[]"),
    #: The signed record as last made.
    Column("record", JSONB),
    _now("requested_at"),
    #: When a round last found nothing; null until one has, and again when a later one found something.
    _now("clean_at", null=True),
    #: When the next round is due.
    _now("due_at"),
    _now("final_at", null=True),
)
