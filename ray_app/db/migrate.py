"""Bring the ledger's schema up to date. The platform's tables are never touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, text

from ray_app.errors import ConfigError

#: The newest revision under ``migrations/versions``.
HEAD: Final = "0010"
_LOCK_KEY: Final = 0x726F776265616D  # "rowbeam" in ASCII: an advisory lock of our own


def current_revision(connection: Connection) -> str | None:
    """The ledger's revision, or None when it has never been set up."""
    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": "rowbeam.alembic_version"}) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM rowbeam.alembic_version"))
    return revision


def ensure_migrated(engine: Engine) -> None:
    """Upgrade the ledger to ``HEAD``; processes that arrive together wait for the first.

    Raises:
        ConfigError: the ledger was written by a newer Rowbeam.
    """
    with engine.connect() as connection:
        if current_revision(connection) == HEAD:
            return
    with _locked(engine) as connection, connection.begin():
        revision = current_revision(connection)
        if revision == HEAD:
            return
        if revision is not None and revision > HEAD:
            raise ConfigError(
                f"The ledger is at revision {revision}; this Rowbeam knows {HEAD}.", hint="Upgrade Rowbeam."
            )
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS rowbeam"))
        _upgrade(connection)


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """A connection that holds the migration lock.

    The lock is taken in a transaction of its own: within the transaction that waited, Postgres would
    still answer from its catalogue cache that the schema does not exist.
    """
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
        connection.commit()
        try:
            yield connection
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK_KEY})
            connection.commit()


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
