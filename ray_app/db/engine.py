"""Connections to Postgres: one place where URLs become engines and driver errors become ours."""

from __future__ import annotations

from typing import Final

import psycopg
from pydantic import SecretStr
from sqlalchemy import Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from ray_app.errors import ConfigError, DatabaseUnavailable, RowbeamError
from ray_app.settings import Settings
from ray_app.tracing.database import trace_statements

#: Seconds to wait for a server to accept a connection.
CONNECT_TIMEOUT: Final = 10


def engine_for(url: str | SecretStr, *, pool_size: int = 4) -> Engine:
    """An engine for any ``postgresql://`` URL.

    Its calls raise ``DatabaseUnavailable`` when the server is at fault (gone, refusing, out of
    disk, deadlocked); everything else keeps SQLAlchemy's error, being a fault of ours.

    Raises:
        ConfigError: the URL is not one of Postgres.
    """
    text = url.get_secret_value() if isinstance(url, SecretStr) else url
    try:
        parsed = make_url(text)
    except ArgumentError:
        raise ConfigError(
            "The database URL cannot be parsed.", hint="Use postgresql://user:password@host:5432/database."
        ) from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(
            f"The database URL starts with {parsed.drivername}://.", hint="Rowbeam needs postgresql://."
        )
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=4,
        pool_pre_ping=True,
        connect_args={"connect_timeout": CONNECT_TIMEOUT, "application_name": "rowbeam"},
        hide_parameters=True,  # row text must not reach logs through an error message
    )
    # Without retval SQLAlchemy ignores the replacement and raises its own error.
    event.listen(engine, "handle_error", _translate, retval=True)
    trace_statements(engine)
    return engine


def _translate(context: ExceptionContext) -> BaseException | None:
    error = context.original_exception
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return None
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DatabaseUnavailable(
        f"Postgres cannot be used: {first_line}.",
        hint="Check that the server runs and that its URL, user and password are right (rowbeam doctor).",
    )


def reason_of(error: RowbeamError | SQLAlchemyError) -> str:
    """What a log may say of it: no statement, and nothing of a row."""
    if isinstance(error, RowbeamError):
        return error.message
    cause = error.orig if isinstance(error, DBAPIError) else None
    return type(error).__name__ if cause is None else f"Postgres says {type(cause).__name__}"


def ledger_engine(settings: Settings) -> Engine:
    """The database that holds the ledger.

    Raises:
        DatabaseUnavailable: it is the embedded one and does not run.
    """
    if settings.database_url is not None:
        return engine_for(settings.database_url)
    from ray_app.stack.postgres import embedded_url

    return engine_for(embedded_url(settings))


def source_engine(settings: Settings, ledger: Engine) -> Engine:
    """The database that holds the platform's tables: the ledger's own unless configured."""
    return engine_for(settings.source_url) if settings.source_url is not None else ledger
