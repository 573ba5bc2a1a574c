"""A place to run jobs in: rows of one tenant, the library, and ways to break what runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil
from sqlalchemy import Engine, text

from ray_app import Rowbeam
from ray_app.reports import JobProgress
from tests.support.waiting import PATIENCE

TABLE = "pull_requests"


@dataclass
class JobSite:
    """A tenant ``acme`` (client 1) with rows in ``pull_requests``."""

    rowbeam: Rowbeam
    database: Engine

    def sql(self, statement: str, **values: Any) -> None:
        with self.database.begin() as connection:
            connection.execute(text(statement), values)

    def insert(self, count: int, *, first: int = 0, client: int = 1) -> None:
        """Rows with short, distinct titles and a payload."""
        self.sql(
            "INSERT INTO pull_requests (id, client_id, title, description, status)"
            " SELECT n, :client, 'change number ' || n, 'fixes part ' || (n % 97) || ' of the system', 'open'"
            " FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n",
            client=client,
            first=first,
            last=first + count - 1,
        )

    def backfill(self, **options: Any) -> JobProgress:
        return self.rowbeam.backfill("acme", tables=[TABLE], **options)

    def check_exact(self, records: int) -> None:
        """Every record has its points, and nothing else is there."""
        points, rows = self.rowbeam.count_points("acme")
        assert points == rows
        (row,) = [row for row in self.rowbeam.coverage("acme") if row.table == TABLE]
        assert (row.rows, row.embedded, row.stale, row.points) == (records, records, 0, rows)


@dataclass
class RunningJob:
    """A backfill in a thread, to be broken while it runs."""

    site: JobSite
    options: dict[str, Any]
    latest: JobProgress | None = None
    result: JobProgress | None = None
    fault: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self.site.backfill(on_progress=self._look, **self.options)
        except BaseException as fault:  # noqa: BLE001 - handed to the test's thread by end()
            self.fault = fault

    def _look(self, progress: JobProgress) -> None:
        self.latest = progress

    def wait_for(self, condition: Callable[[JobProgress], bool], seconds: float = PATIENCE) -> JobProgress:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.latest is not None and condition(self.latest):
                return self.latest
            if not self.thread.is_alive():
                raise AssertionError(f"the job ended early: {self.result or self.fault}")
            time.sleep(0.05)
        raise AssertionError(f"waited for {seconds} s: {self.latest}")

    def end(self, seconds: float = PATIENCE) -> JobProgress:
        self.thread.join(seconds)
        if self.fault is not None:
            raise self.fault
        assert self.result is not None, f"still running after {seconds} s: {self.latest}"
        return self.result

    def driver(self) -> psutil.Process:
        """The driver's process, by the ledger."""
        assert self.latest is not None
        with self.site.database.connect() as connection:
            pid = connection.scalar(
                text("SELECT owner_pid FROM rowbeam.jobs WHERE job_id = :id"), {"id": self.latest.job_id}
            )
        return psutil.Process(pid)

    def worker(self, title: str) -> psutil.Process:
        """A Ray worker of the job's cluster whose process title contains ``title``."""
        for process in self.driver().children(recursive=True):
            if title in " ".join(process.cmdline()):
                return process
        raise AssertionError(f"no process {title} in the job's cluster")
