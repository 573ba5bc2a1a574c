"""The platform's 14 tables as Rowbeam expects to find them, in schema ``public``.

For trying only: on a real platform these tables are there already and belong to it. Ids count
per tenant, so the primary key is (client_id, id); its index is also the one that keyset paging
reads by. There are no foreign keys: files may be loaded in any order.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Double,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.types import TypeEngine

metadata = MetaData(schema="public")

#: Any constant will do, as long as nothing else in the database takes the same advisory lock.
_CREATE_LOCK: Final = 0x726F7762  # "rowb"
_TEXT_KEY: Final = Text(collation="C")  # sorts by bytes, whatever the database's locale


def _platform_table(name: str, key: TypeEngine[Any], *columns: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        Column("client_id", BigInteger, primary_key=True, autoincrement=False),
        Column("id", key, primary_key=True, autoincrement=False),
        *columns,
        Column("active", Boolean, nullable=False, server_default=true()),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


def _texts(*names: str) -> list[Column[Any]]:
    return [Column(name, Text) for name in names]


_platform_table(
    "issues",
    BigInteger(),
    *_texts("key", "project_id", "summary", "description", "status", "priority", "type"),
    Column("labels", ARRAY(Text)),
    *_texts("assignee", "reporter"),
    Column("story_points", Numeric(6, 1)),
    Column("resolved_at", DateTime(timezone=True)),
)
_platform_table(
    "pull_requests",
    BigInteger(),
    *_texts("repository", "sha", "author", "title", "description", "status"),
    Column("labels", ARRAY(Text)),
    Column("additions", Integer),
    Column("deletions", Integer),
    Column("merged_at", DateTime(timezone=True)),
)
_platform_table(
    "projects", _TEXT_KEY, *_texts("key", "name", "summary", "description", "status", "type", "lead")
)
_platform_table(
    "repositories",
    BigInteger(),
    *_texts("project_id", "name", "full_name", "summary", "description", "language", "status", "type"),
    *_texts("default_branch"),
)
_platform_table(
    "pull_request_comments",
    BigInteger(),
    Column("pull_request_id", BigInteger),
    *_texts("author", "content", "path"),
    Column("line", Integer),
)
_platform_table(
    "pull_request_reviews",
    UUID(as_uuid=True),
    Column("pull_request_id", BigInteger),
    *_texts("author", "state", "content"),
)
_platform_table("users", BigInteger(), *_texts("login", "name", "title", "description", "team", "status"))
_platform_table(
    "issue_changelogs",
    BigInteger(),
    Column("issue_id", BigInteger),
    *_texts("author", "field", "old_value", "new_value", "summary"),
)
_platform_table("statuses", BigInteger(), *_texts("name", "description", "category"))
_platform_table("issuetypes", BigInteger(), *_texts("name", "description"), Column("level", Integer))
_platform_table("workflows", BigInteger(), *_texts("name", "description"), Column("steps", JSONB))
_platform_table("system_settings", _TEXT_KEY, *_texts("name", "description", "value"))
_platform_table(
    "dora_market_benchmarks",
    BigInteger(),
    *_texts("name", "description", "metric", "tier", "unit"),
    Column("lower_bound", Double),
    Column("upper_bound", Double),
)
_platform_table(
    "dora_metric_insights",
    BigInteger(),
    *_texts("project_id", "metric", "title", "content"),
    Column("value", Double),
    Column("period_start", Date),
)


def create_tables(connection: Connection) -> None:
    """Create those of the tables that are missing; one that is there is never altered."""
    # Two sessions that start together would both find a table missing.
    connection.execute(select(func.pg_advisory_xact_lock(_CREATE_LOCK)))
    metadata.create_all(connection, checkfirst=True)
