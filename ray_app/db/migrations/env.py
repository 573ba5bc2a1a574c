"""Alembic's entry point; ``ray_app.db.migrate`` hands it an open connection."""

from __future__ import annotations

from alembic import context

from ray_app.db.schema import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    # The caller's transaction holds the advisory lock: it commits all or nothing.
    transactional_ddl=False,
)
context.run_migrations()
