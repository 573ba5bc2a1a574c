from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from ray_app.db import migrate
from ray_app.db.schema import SCHEMA, metadata
from ray_app.errors import ConfigError


def test_migrations_make_the_schema_that_the_code_uses(database: Engine) -> None:
    with database.connect() as connection:
        options = {
            "include_schemas": True,
            "version_table_schema": SCHEMA,
            "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_head_names_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "ray_app:db/migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.HEAD


def test_processes_that_migrate_together_do_not_clash(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("DROP SCHEMA rowbeam CASCADE"))
    faults: list[BaseException] = []

    def run() -> None:
        try:
            migrate.ensure_migrated(database)
        except BaseException as error:  # noqa: BLE001 - a thread must not hide what it met
            faults.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with database.connect() as connection:
        assert migrate.current_revision(connection) == migrate.HEAD


def test_a_ledger_of_a_newer_version_is_refused(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE rowbeam.alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="Upgrade Rowbeam"):
        migrate.ensure_migrated(database)
