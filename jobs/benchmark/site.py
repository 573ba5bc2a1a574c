"""A server to measure: the whole stack in a home of its own, on a free port."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psutil
from sqlalchemy import text

from jobs.benchmark.homes import home_settings
from ray_app.app import Rowbeam
from ray_app.settings import Settings
from ray_app.stack.embedded import Stack
from ray_app.stack.ports import free_port
from ray_app.stack.processes import descendants

#: Limits of a tenant that is not to run into them.
UNLIMITED: Final[dict[str, int | Decimal]] = {
    "requests_per_minute": 100_000_000,
    "tokens_per_minute": 1_000_000_000,
    "concurrent_requests": 10_000,
}


@dataclass(frozen=True)
class Site:
    """A running server."""

    url: str
    rowbeam: Rowbeam
    head_pid: int
    settings: Settings

    def add_tenant(self, name: str, *, client_id: int | None = None) -> str:
        """A tenant without limits; its key."""
        key = self.rowbeam.add_tenant(name, client_id=client_id).api_key.text
        self.rowbeam.workspace.registry.set_limits(name, UNLIMITED)
        return key

    def insert_rows(self, rows: int, *, client_id: int = 1) -> None:
        """Generated pull requests, each text another."""
        with self.rowbeam.workspace.ledger.begin() as connection:
            connection.execute(INSERT, {"rows": rows, "client": client_id})

    def processes(self) -> list[psutil.Process]:
        """Everything of the server: the Ray head and all that it started."""
        return list(descendants([psutil.Process(self.head_pid)]))


#: ``rows`` pull requests of ``client``.
INSERT: Final[Any] = text(
    "INSERT INTO pull_requests (id, client_id, title, description, status)"
    " SELECT n, CAST(:client AS bigint), 'change ' || n || ' of the scheduler',"
    "  repeat('It retries the request when part ' || (n % 997) || ' does not answer. ', 1 + n % 5), 'open'"
    " FROM generate_series(1, CAST(:rows AS int)) AS n"
)


@contextmanager
def served(*, local_model: str) -> Iterator[Site]:
    """A server with this ``ROWBEAM_LOCAL_MODEL``, stopped at the end; its data is deleted."""
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-", ignore_cleanup_errors=True) as home:
        embedded = {"qdrant_url": None, "qdrant_api_key": None, "http_port": free_port()}
        settings = home_settings(Path(home), local_model).model_copy(update=embedded)
        stack = Stack(settings)
        try:
            status = stack.up(server=True)
            if status.server is None or status.head is None or status.head.pid is None:
                raise RuntimeError("The server does not run.")
            with Rowbeam.open(settings) as rowbeam:
                yield Site(status.server.url, rowbeam, status.head.pid, settings)
        finally:
            stack.down()


@contextmanager
def suspended(processes: Callable[[], Iterable[psutil.Process]]) -> Iterator[None]:
    """The processes take no CPU meanwhile, not even for their own housekeeping.

    A Ray head takes 40 s of it without losing anything (tried); its timeouts begin anew when it goes on.
    """
    stopped: list[psutil.Process] = []
    try:
        for process in processes():
            try:
                process.suspend()
            except psutil.NoSuchProcess:
                continue
            stopped.append(process)
        yield
    finally:
        for process in reversed(stopped):
            try:
                process.resume()
            except psutil.NoSuchProcess:
                continue
