"""The ledger's tables of what is being changed: the model of an index, the place of a tenant."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from ray_app.db.columns import count, metadata, moment

#: The generation of an index that is not the pinned one: being built, kept for a way back, or being dropped.
index_migrations = Table(
    "index_migrations",
    metadata,
    Column("incarnation", UUID(as_uuid=True), ForeignKey("tenants.incarnation"), primary_key=True),
    Column("table_name", Text, primary_key=True),
    Column("vector_type", Text, primary_key=True),
    Column("space_id", Text, ForeignKey("spaces.space_id"), nullable=False),
    #: As ``migrating.states.Stage`` spells it.
    Column("stage", Text, nullable=False),
    #: The job that last wrote to it.
    Column("job_id", Text),
    #: What the last verification found.
    Column("report", JSONB),
    moment("created_at"),
    moment("switched_at", null=True),
    #: The generation is kept at least until then.
    moment("keep_until", null=True),
)

#: A tenant on its way to another place, or lately moved: the place that is not its own, of which there is one
#: at the most.
tenant_moves = Table(
    "tenant_moves",
    metadata,
    Column("incarnation", UUID(as_uuid=True), ForeignKey("tenants.incarnation"), primary_key=True),
    Column("placement", Text, nullable=False),
    #: As ``moving.states.Stage`` spells it.
    Column("stage", Text, nullable=False),
    #: Points of its indexes when copying began, and those that were looked at since.
    count("total"),
    count("done"),
    #: What the last verification found.
    Column("report", JSONB),
    moment("created_at"),
    moment("switched_at", null=True),
    #: The place is kept at least until then.
    moment("keep_until", null=True),
)

#: Records of an index that were written while another generation of it, or another place, is being brought
#: up to date.
index_changes = Table(
    "index_changes",
    metadata,
    Column("incarnation", UUID(as_uuid=True), primary_key=True),
    Column("table_name", Text(collation="C"), primary_key=True),
    Column("vector_type", Text(collation="C"), primary_key=True),
    Column("record_id", Text(collation="C"), primary_key=True),
    #: Another one with each change, so that one made meanwhile is not taken for done.
    Column("stamp", UUID(as_uuid=True), nullable=False),
)
