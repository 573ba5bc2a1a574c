"""The embedded Postgres: one real server per home, shared by all processes that need it.

Every user holds a shared lock on ``run/postgres.use``, and whoever starts or stops the server an
exclusive one on ``run/postgres.start``. The last to leave stops it. Locks go with their process, so
a killed user is not counted, and a server left over by one is adopted by the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

from ray_app.errors import DatabaseUnavailable
from ray_app.settings import Settings
from ray_app.stack.files import SharedLock, exclusive, os_errors_as, private_folder
from ray_app.stack.postgres_server import DATABASE, PORT, USER, PostgresServer

#: Seconds to wait for another process that is starting or stopping the server.
_LOCK_SECONDS: Final = 180.0


def embedded_url(settings: Settings) -> str:
    """The SQLAlchemy URL of the embedded database, whether or not it runs; nothing is started.

    Raises:
        DatabaseUnavailable: it has never been started.
    """
    with os_errors_as(DatabaseUnavailable, "Looking for the embedded PostgreSQL"):
        try:
            folder = _server(settings).socket_folder()
        except FileNotFoundError:
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL of {settings.home} has never been started.",
                hint="Run rowbeam up, or set ROWBEAM_DATABASE_URL to a server of yours.",
            ) from None
    return f"postgresql+psycopg://{USER}@/{DATABASE}?host={quote(folder)}&port={PORT}"


class EmbeddedPostgres:
    """The server under ``settings.postgres_dir``. All methods raise DatabaseUnavailable."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server = _server(settings)

    @contextmanager
    def running(self) -> Iterator[str]:
        """The server runs while this is open. Yields ``embedded_url``; the database exists, maybe empty.

        On the way out the server is stopped, unless another process or another ``running`` of this
        one uses it.
        """
        with self._alone():
            hold = self.hold()
            try:
                self._server.ensure()
            except BaseException:
                self._leave(hold)
                raise
        try:
            yield embedded_url(self._settings)
        finally:
            with self._alone():
                self._leave(hold)

    def hold(self) -> SharedLock:
        """Count as a user until closed, or for as long as a child keeps the descriptor open.

        Take it inside ``running``: a hold by itself starts nothing.
        """
        with os_errors_as(DatabaseUnavailable, "Marking PostgreSQL as used"):
            return SharedLock(self._settings.run_dir / "postgres.use")

    def ensure_running(self) -> None:
        """Start the server again if it has died. For a process inside ``running``, from any thread."""
        with self._alone():
            self._server.ensure()

    def is_running(self) -> bool:
        with os_errors_as(DatabaseUnavailable, "Looking for the embedded PostgreSQL"):
            return self._server.postmaster() is not None

    def stop_if_unused(self) -> bool:
        """Stop it when nobody uses it; returns whether it is stopped now."""
        if not self._settings.run_dir.is_dir():
            return not self.is_running()
        with self._alone():
            self._leave(self.hold())
            return self._server.postmaster() is None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else starts, stops or begins to use the server while this is open."""
        with os_errors_as(DatabaseUnavailable, "Starting or stopping PostgreSQL"):
            self._settings.home.mkdir(parents=True, exist_ok=True)
            run = private_folder(self._settings.run_dir)
            with exclusive(run / "postgres.start", wait=_LOCK_SECONDS):
                yield

    def _leave(self, hold: SharedLock) -> None:
        try:
            if hold.take_alone():
                self._server.stop()
        finally:
            hold.close()


def _server(settings: Settings) -> PostgresServer:
    return PostgresServer(settings.postgres_dir, link=settings.run_dir / "postgres.socket")
