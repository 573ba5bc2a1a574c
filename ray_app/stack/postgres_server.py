"""One PostgreSQL data folder and the server on it: make, start, bury, stop.

Nothing here is safe beside another process doing the same; ``postgres`` takes the locks.
"""

from __future__ import annotations

import os
import shlex
import shutil
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final

import psutil
import psycopg

from ray_app.errors import DatabaseUnavailable
from ray_app.stack.files import DISK_FULL, private_folder, short_folder
from ray_app.stack.postgres_tools import MAJOR, PostgresTools, ToolFailed
from ray_app.stack.processes import is_alive, kill, processes_where

DATABASE: Final = "rowbeam"
USER: Final = "rowbeam"
PORT: Final = 5432
_SOCKET: Final = f".s.PGSQL.{PORT}"
#: Bytes of a Unix socket's path that fit everywhere (104 with its end on BSD and macOS, 108 on Linux).
_SOCKET_PATH_MAX: Final = 103
#: Seconds for a server to start, which may have to recover a gigabyte of log, and to stop.
_START_SECONDS: Final = 150
_STOP_SECONDS: Final = 60
#: Seconds in which a server that refuses connections for no stated reason turns out to be dying.
_DYING_SECONDS: Final = 5
_POLL_SECONDS: Final = 0.05
_ATTEMPTS: Final = 3
#: Durability stays as PostgreSQL ships it: fsync, full page writes and synchronous commit are on.
_OPTIONS: Final = {
    "listen_addresses": "",
    "port": str(PORT),
    # Only the server's own account (and root) may connect: local logins are trusted.
    "unix_socket_permissions": "0700",
    # Nothing replicates this server; less is logged.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Compiling takes longer than these short queries run.
    "jit": "off",
    # Parallel plans need /dev/shm, which has 64 MB in a container by default.
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
#: What a server answers that will accept connections soon.
_NOT_YET: Final = ("starting up", "not yet accepting", "in recovery mode", "shutting down")


class PostgresServer:
    """The server on ``data``. ``link`` is where a long path's socket folder is linked from."""

    def __init__(self, data: Path, link: Path) -> None:
        self.data = data.resolve()
        self._link = link

    def postmaster(self) -> psutil.Process | None:
        """The living server process, or None. Raises OSError.

        The id in ``postmaster.pid`` outlives its process: it may be a zombie's by now, or a stranger's.
        """
        try:
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
            process = psutil.Process(pid)
            ours = process.cwd() == str(self.data)  # a server works in its data folder
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            return None
        return process if ours and is_alive(process) else None

    def socket_folder(self) -> str:
        """Where clients find the server, whether or not it runs.

        Raises:
            FileNotFoundError: it has never been started.
        """
        if self._fits and self.data.is_dir():
            return str(self.data)
        return os.readlink(self._link)

    def ensure(self) -> None:
        """The server runs and has the database when this returns.

        Raises:
            DatabaseUnavailable: it cannot be started.
            OSError: a folder cannot be made or read.
        """
        try:
            for _ in range(_ATTEMPTS):
                if self.postmaster() is None:
                    self._create_cluster()
                    self._start()
                if self._create_database():
                    return
            raise ToolFailed("it dies again and again.")
        except (ToolFailed, psycopg.Error) as error:
            said = f"{str(error).strip().splitlines()[0]}{self._last_words()}"
            raise DatabaseUnavailable(
                f"PostgreSQL cannot be started: {said}",
                hint=DISK_FULL
                if "No space left" in said
                else "Run rowbeam doctor, or set ROWBEAM_DATABASE_URL to a server of yours.",
            ) from error

    def stop(self) -> None:
        """End its sessions and stop it, if it runs. Raises DatabaseUnavailable, OSError."""
        if self.postmaster() is None:
            return
        try:
            self._control("stop", "-m", "fast", seconds=_STOP_SECONDS)
        except ToolFailed:
            try:
                self._control("stop", "-m", "immediate", seconds=_STOP_SECONDS)
            except ToolFailed as error:
                raise DatabaseUnavailable(f"PostgreSQL cannot be stopped: {error}") from error

    @property
    def _fits(self) -> bool:
        return len(os.fsencode(self.data / _SOCKET)) <= _SOCKET_PATH_MAX

    @cached_property
    def _tools(self) -> PostgresTools:
        return PostgresTools.locate(self.data)

    def _control(self, verb: str, *args: str, seconds: int) -> None:
        wait = ("-w", "-t", str(seconds))
        self._tools.run("pg_ctl", verb, *wait, *args, timeout=seconds + 10, data=self.data)

    def _create_cluster(self) -> None:
        data = self.data
        if (data / "PG_VERSION").exists():
            found = (data / "PG_VERSION").read_text(encoding="ascii").strip()
            if found != str(MAJOR):
                raise DatabaseUnavailable(
                    f"{data} was made by PostgreSQL {found}; this Rowbeam runs PostgreSQL {MAJOR}.",
                    hint="Use the Rowbeam that made it, or move the folder away to begin anew.",
                )
            return
        if data.exists() and any(data.iterdir()):
            raise DatabaseUnavailable(
                f"{data} holds something other than a PostgreSQL database.",
                hint="Move it away, or set ROWBEAM_HOME to another folder.",
            )
        # A server whose home was deleted under it would, when it notices, remove the new one's socket.
        kill(self._processes(), _STOP_SECONDS)
        # Renamed when complete: an initdb that is interrupted leaves nothing that looks like a database.
        draft = data.with_name(f"{data.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        private_folder(draft)
        self._tools.own(draft)
        self._tools.let_through(draft)
        # The server's own collation: the operating system's may change its order under an index.
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")
        login = ("--auth-local=trust", "--auth-host=reject", f"--username={USER}")
        self._tools.run("initdb", *login, *locale, timeout=_START_SECONDS, data=draft)
        draft.replace(data)

    def _start(self) -> None:
        self._bury()
        self._tools.let_through(self.data)
        folder = self._prepare_socket_folder().replace('"', '""')
        options = {**_OPTIONS, "unix_socket_directories": f'"{folder}"'}
        flags = shlex.join(f"-c{name}={value}" for name, value in options.items())
        # The log's path is relative, and the data folder's goes by PGDATA, not by -D: pg_ctl pastes
        # both into a shell command.
        self._control("start", "-l", "server.log", "-o", flags, seconds=_START_SECONDS)

    def _bury(self) -> None:
        """Clear away a dead server's ``postmaster.pid``, after its last backends have ended.

        PostgreSQL takes any process of that id, a zombie too, for the server, and refuses to start.
        """
        pid_file = self.data / "postmaster.pid"
        if not pid_file.exists():
            return
        deadline = time.monotonic() + _STOP_SECONDS
        while backends := self._processes():
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"{len(backends)} processes of a PostgreSQL server that died are still busy.",
                    hint=f"Wait for process {backends[0].pid} to end, or kill it.",
                )
            time.sleep(_POLL_SECONDS)
        pid_file.unlink()
        with suppress(FileNotFoundError):
            Path(self.socket_folder(), f"{_SOCKET}.lock").unlink()

    def _processes(self) -> list[psutil.Process]:
        """Server processes at work in the data folder, or in a deleted one of its name."""
        place = str(self.data)
        return list(processes_where(lambda it: it.name() == "postgres" and it.cwd() == place))

    def _prepare_socket_folder(self) -> str:
        if self._fits:
            return str(self.data)
        if self._link.is_dir():
            return os.readlink(self._link)
        self._link.unlink(missing_ok=True)
        folder = short_folder("rowbeam-pg-")
        self._tools.own(folder)
        self._link.symlink_to(folder)
        return str(folder)

    def _create_database(self) -> bool:
        """Make the database if it is missing; False when the server has died instead."""
        connection = self._connect()
        if connection is None:
            return False
        with connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
        return True

    def _connect(self) -> psycopg.Connection[tuple[object, ...]] | None:
        """None when the server dies. Waits for one that another process left while it was starting."""
        began = time.monotonic()
        while self.postmaster() is not None:
            try:
                return psycopg.connect(
                    host=self.socket_folder(), port=PORT, user=USER, dbname="postgres", autocommit=True
                )
            except psycopg.OperationalError as error:
                patience = _START_SECONDS if any(text in str(error) for text in _NOT_YET) else _DYING_SECONDS
                if time.monotonic() - began > patience:
                    raise
            time.sleep(_POLL_SECONDS)
        return None

    def _last_words(self) -> str:
        """The last complaint in the server's log, for an error message."""
        log = self.data / "server.log"
        try:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        said = [line for line in lines[-20:] if "FATAL" in line or "PANIC" in line]
        return f" The log {log} says: {said[-1]}" if said else ""
