"""Reports on what all share: the ledger's standing, and whether it, the tables and the store can be reached.

Every router looks whether it reaches them. What the ledger says is the same whoever reads it, so one
process reports it: the one that holds an advisory lock of the ledger's database. When it ends, however it
ends, Postgres frees the lock, and another router has it within ``PERIOD``. No process is started for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from threading import Event, Thread
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from ray_app import launching
from ray_app.db import outbox
from ray_app.db.engine import reason_of
from ray_app.db.overview import EndedJobs, Overview, read_indexes, read_overview
from ray_app.errors import DatabaseUnavailable, RowbeamError
from ray_app.lag import LagMeter
from ray_app.metrics import declared as metrics
from ray_app.metrics.counting import count_records
from ray_app.migrating.operations import Migrations
from ray_app.moving.operations import Moves
from ray_app.offboarding.removing import Erasures
from ray_app.reports import JobState
from ray_app.store.port import VectorStore
from ray_app.workspace import Workspace

log = logging.getLogger(__name__)

#: Seconds between two reports.
PERIOD: Final = 15.0
#: Measuring the lag reads tables; where that takes long it is done less often, to take no more of the time.
LAG_SHARE: Final = 0.05
#: "rowb_rep" in ASCII: an advisory lock of our own.
_LOCK_KEY: Final = 0x726F77625F726570
#: Seconds between looks for what is due: former indexes to be dropped, erasures to be finished.
SWEEP_PERIOD: Final = 600.0
_ENDED: Final = (
    *(JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED),
    *(JobState.STOPPED_AT_BUDGET, JobState.INTERRUPTED),
)


class SoleHolder:
    """The advisory lock, held by a connection of its own. Used by one thread at a time."""

    def __init__(self, ledger: Engine, key: int = _LOCK_KEY) -> None:
        self._ledger = ledger
        self._key = key
        self._connection: Connection | None = None

    def hold(self) -> bool:
        """Whether this holds the lock now; tries to take it when it does not.

        Raises:
            DatabaseUnavailable: the ledger cannot be reached; the lock is free.
        """
        held = self._connection is not None
        if self._connection is None:
            self._connection = self._ledger.connect()
            self._connection.detach()  # back in the pool it would go on to hold the lock
        connection = self._connection
        try:
            # One that is held is held as long as its connection lives, which this finds out.
            taken = held or connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key})
            connection.scalar(text("SELECT 1"))
            connection.commit()
        except BaseException:
            self.release()
            raise
        if not taken:
            self.release()
        return bool(taken)

    def release(self) -> None:
        """Let another take it. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DatabaseUnavailable):  # gone, and the lock with it
                connection.close()


class Reporter:
    """Sets gauges every ``PERIOD`` seconds, in a thread, from ``start`` to ``stop``.

    ``workspace`` is its own, which it closes: its statements take no connection that a request waits for.
    """

    def __init__(self, workspace: Workspace, store: VectorStore) -> None:
        self._workspace = workspace
        self._store = store
        self._lock = SoleHolder(workspace.ledger)
        self._ended = EndedJobs()
        self._meter = LagMeter(workspace)
        self._lags: dict[str, float] = {}
        self._lag_due = 0.0
        self._sweep_due = 0.0
        self._stop = Event()
        self._thread = Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let another process report. Does not wait for a report that is under way."""
        self._stop.set()

    def _run(self) -> None:
        for report in ("ledger", "lag", "outbox"):
            metrics.REPORT_FAILURES.start(report)
        try:
            while not self._stop.is_set():
                self.report()
                self._stop.wait(PERIOD)
        finally:
            self._lock.release()
            self._workspace.close()

    def report(self) -> None:
        """One report. Blocks, for seconds when something cannot be reached."""
        workspace = self._workspace
        reached = _reached("ledger", lambda: workspace.ledger.connect().close())
        _reached("source", lambda: workspace.source.connect().close())
        _reached("store", self._store.check)
        try:
            if reached and self._lock.hold():
                self._report_ledger()
                self._sweep()
                return
        except (DatabaseUnavailable, SQLAlchemyError) as error:
            metrics.REPORT_FAILURES.add(1, "ledger")
            log.warning("The ledger cannot be reported on: %s", reason_of(error))
        self._ended = EndedJobs()  # another reports those that end meanwhile
        _forget()

    def _sweep(self) -> None:
        """Drop former indexes and places of tenants that were kept for long enough; finish erasures."""
        if time.monotonic() < self._sweep_due:
            return
        self._sweep_due = time.monotonic() + SWEEP_PERIOD
        for kept, sweep in (
            ("index", Migrations(self._workspace, self._opened, launching.run_job).sweep),
            ("place of a tenant", Moves(self._workspace, self._opened).sweep),
        ):
            try:
                sweep()
            except RowbeamError as error:
                log.warning("A former %s could not be dropped and will be later: %s", kept, error.message)
        Erasures(self._workspace, self._opened).finish_due()

    def _opened(self) -> AbstractContextManager[VectorStore]:
        return nullcontext(self._store)

    def _report_ledger(self) -> None:
        with self._workspace.ledger.connect() as connection:
            show_overview(read_overview(connection))
            for state in _ENDED:
                metrics.JOBS_ENDED.start(state)
            ended = self._ended.look(connection)
            due = time.monotonic() >= self._lag_due
            indexes = read_indexes(connection) if due else []
        self._report_outbox()
        for state, number in ended.states.items():
            metrics.JOBS_ENDED.add(number, state)
        for table, counts in ended.unwritten.items():
            count_records(metrics.JOB, table, "", counts)
        if due:
            began = time.monotonic()
            self._lags = self._meter.measure(indexes)
            took = time.monotonic() - began
            self._lag_due = began + took / LAG_SHARE
        metrics.LEDGER_LAG.replace({(table,): lag for table, lag in self._lags.items()})

    def _report_outbox(self) -> None:
        """Says nothing where there is none, or where counting its entries takes too long."""
        try:
            if not outbox.is_there(self._workspace.source):
                return
            with self._workspace.source.connect() as connection:
                depth = outbox.depth(connection)
        except (DatabaseUnavailable, SQLAlchemyError) as error:
            metrics.REPORT_FAILURES.add(1, "outbox")
            log.warning("The outbox cannot be reported on: %s", reason_of(error))
            return
        metrics.OUTBOX_ENTRIES.set(depth.entries)
        metrics.OUTBOX_AGE.set(depth.oldest)
        metrics.OUTBOX_MISSED.set(depth.missed)


def show_overview(overview: Overview) -> None:
    """Set the gauges of the ledger."""
    budgets = overview.budgets
    metrics.JOBS.replace({(state,): number for state, number in overview.jobs.items()})
    metrics.JOB_HEARTBEAT_AGE.set(overview.oldest_heartbeat)
    metrics.DEAD_LETTERS.replace({(table,): number for table, number in overview.dead_letters.items()})
    metrics.TENANTS.set(overview.tenants)
    metrics.ERASURE_OVERDUE.set(overview.erasure_overdue)
    metrics.BUDGET_LIMIT.set(float(sum(budget.limit for budget in budgets)))
    metrics.BUDGET_SPENT.set(float(sum(budget.spent for budget in budgets)))
    metrics.BUDGET_LEFT.set(float(sum(budget.left for budget in budgets)))
    metrics.BUDGET_USED.set(max((budget.used for budget in budgets), default=0.0))
    levels = {"any": 0.0, "80": 0.8, "100": 1.0}
    for level, share in levels.items():
        number = sum(level == "any" or budget.used >= share for budget in budgets)
        metrics.BUDGET_TENANTS.set(number, level)


def _forget() -> None:
    """Whatever this process knew of the ledger, another one says now."""
    for gauge in (
        *(metrics.JOBS, metrics.JOB_HEARTBEAT_AGE, metrics.DEAD_LETTERS, metrics.LEDGER_LAG, metrics.TENANTS),
        *(metrics.BUDGET_LIMIT, metrics.BUDGET_SPENT, metrics.BUDGET_LEFT, metrics.BUDGET_USED),
        *(metrics.BUDGET_TENANTS, metrics.ERASURE_OVERDUE),
        *(metrics.OUTBOX_ENTRIES, metrics.OUTBOX_AGE, metrics.OUTBOX_MISSED),
    ):
        gauge.clear()


def _reached(dependency: str, look: Callable[[], object]) -> bool:
    """Whether it could be reached, which is shown."""
    try:
        look()
        up = True
    except RowbeamError as error:
        log.warning("The %s cannot be reached: %s", dependency, error.message)
        up = False
    metrics.DEPENDENCY_UP.set(up, dependency)
    return up
