"""A server to measure: the whole stack in a home of its own, on a free port."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psutil
from sqlalchemy import text

from ray_app.app import Rowbeam
from ray_app.settings import Settings
from ray_app.stack.embedded import Stack
from ray_app.stack.processes import descendants
from ray_app.stack.serving import free_port

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
        settings = Settings(home=Path(home), local_model=local_model, http_port=free_port())
        stack = Stack(settings)
        status = stack.up(server=True)
        try:
            if status.server is None or status.head is None or status.head.pid is None:
                raise RuntimeError("The server does not run.")
            with Rowbeam.open(settings) as rowbeam:
                yield Site(status.server.url, rowbeam, status.head.pid)
        finally:
            stack.down()
