"""Checks of where rows and vectors live."""

from __future__ import annotations

from importlib.metadata import version

from sqlalchemy import Connection, Engine, text

from ray_app.db.engine import engine_for, ledger_engine
from ray_app.db.migrate import HEAD, current_revision
from ray_app.errors import ConfigError, StoreUnavailable
from ray_app.settings import Settings
from ray_app.stack.checks_host import can_write, nearest_existing
from ray_app.stack.embedded import Stack
from ray_app.stack.postgres_tools import PostgresTools

#: ``server_version_num`` of the oldest supported server, PostgreSQL 14.
_OLDEST_POSTGRES = 140_000
#: Seconds a server may fail before it counts as unreachable; a person is waiting.
_SERVER_BUDGET = 2.0


def check_database(settings: Settings) -> str:
    """The ledger's server, reached; an embedded one that stands still is started for the moment.

    Raises:
        DatabaseUnavailable: it cannot be reached or started.
        ConfigError: it is too old, newer than this Rowbeam, or does not let us make the ledger.
    """
    if settings.embedded_database and not (settings.postgres_dir / "PG_VERSION").exists():
        tools = PostgresTools.locate(settings.postgres_dir)
        return f"{tools.version()} from the wheel, embedded; set up at first use"
    with Stack(settings).needed():
        engine = ledger_engine(settings)
        try:
            return describe_database(engine, settings)
        finally:
            engine.dispose()


def describe_database(engine: Engine, settings: Settings) -> str:
    """The ledger's server, which runs. Raises as ``check_database``."""
    with engine.connect() as connection:
        server, ledger = _server_version(connection), _ledger(connection)
    where = "embedded" if settings.embedded_database else "at ROWBEAM_DATABASE_URL"
    return f"PostgreSQL {server}, {where}; {ledger}"


def check_source(settings: Settings) -> str:
    """Raises DatabaseUnavailable, ConfigError."""
    if settings.source_url is None:
        return "The platform's tables are read from the ledger's database (ROWBEAM_SOURCE_URL is not set)"
    engine: Engine = engine_for(settings.source_url)
    try:
        with engine.connect() as connection:
            return f"PostgreSQL {_server_version(connection)}, at ROWBEAM_SOURCE_URL"
    finally:
        engine.dispose()


def check_vectors(settings: Settings) -> str:
    """The embedded engine, and the server when one is configured. Raises StoreUnavailable."""
    lines = [_check_edge(settings)]
    if settings.qdrant_url is not None:
        from ray_app.store.server import ServerStore

        key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
        store = ServerStore.connect(settings.qdrant_url, key, retry_budget=_SERVER_BUDGET)
        try:
            lines.append(store.check())
        finally:
            store.close()
    return "; ".join(lines)


def _check_edge(settings: Settings) -> str:
    try:
        from ray_app.store.edge import EdgeStore  # loads the engine
    except ImportError as error:
        raise StoreUnavailable(
            "The embedded vector engine cannot be loaded.",
            hint="Run pip install --force-reinstall qdrant-edge-py.",
        ) from error
    if settings.edge_dir.is_dir():
        store = EdgeStore(settings.edge_dir)
        try:
            return store.check()
        finally:
            store.close()
    place = nearest_existing(settings.edge_dir.absolute())
    if not place.is_dir() or not can_write(place):
        raise StoreUnavailable(
            f"{settings.edge_dir} cannot be made.",
            hint="Allow this user to write there, or set ROWBEAM_HOME to another folder.",
        )
    return f"Qdrant Edge {version('qdrant-edge-py')}, embedded; set up at first use"


def _server_version(connection: Connection) -> str:
    number = int(connection.scalar(text("SHOW server_version_num")) or 0)
    name = str(connection.scalar(text("SHOW server_version")))
    if number < _OLDEST_POSTGRES:
        raise ConfigError(f"The server is PostgreSQL {name}.", hint="Use PostgreSQL 14 or later.")
    return name


def _ledger(connection: Connection) -> str:
    revision = current_revision(connection)
    if revision is None:
        allowed = "SELECT has_database_privilege(current_database(), 'CREATE')"
        if not connection.scalar(text(allowed)):
            raise ConfigError(
                "There is no ledger yet and this user may not make one.",
                hint="Grant it CREATE on the database, or let an administrator run Rowbeam once.",
            )
        return "the ledger is made at first use"
    if revision > HEAD:
        raise ConfigError(
            f"The ledger is at revision {revision}; this Rowbeam knows {HEAD}.", hint="Upgrade Rowbeam."
        )
    return f"ledger at revision {revision}" + (
        "" if revision == HEAD else f", upgraded to {HEAD} at next use"
    )
