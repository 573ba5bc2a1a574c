"""Bring a tenant's indexes into step: ``python -m jobs.sync --tenant acme``, also through ``ray job submit``.

Exit status: 0 when every index is in step, 1 when one is not or nothing could start, 2 for usage.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from jobs.backfill import exit_on_signal
from jobs.driver import drive
from ray_app.db.jobs import take_job
from ray_app.db.migrate import ensure_migrated
from ray_app.db.progress import job_progress
from ray_app.errors import RowbeamError
from ray_app.launching import open_store_for
from ray_app.leaving import leave
from ray_app.logs import configure_logs
from ray_app.reports import JobProgress
from ray_app.settings import Settings, export_environment
from ray_app.stack.embedded import Stack
from ray_app.syncing.operation import sync
from ray_app.syncing.reports import SyncReport
from ray_app.tracing.spans import start_tracing, stop_tracing
from ray_app.workspace import Workspace


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jobs.sync", description=__doc__.splitlines()[0])
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--tables", nargs="+", metavar="TABLE", help="default: all tables with an index")
    parser.add_argument("--full", action="store_true", help="compare whole tables")
    return parser.parse_args(argv)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Sync, and drive the job that much work needs here. Raises RowbeamError when it cannot start."""
    stack = Stack(settings)
    export_environment(stack.connection_env())
    with stack.needed():
        workspace = Workspace(stack.client_settings())
        try:
            ensure_migrated(workspace.ledger)
            tenant = workspace.registry.get(args.tenant)

            def run_job(job_id: str) -> JobProgress:
                drive(workspace, take_job(workspace.ledger, job_id, new=True), tenant, revive=stack.revive)
                return job_progress(workspace.ledger, job_id)

            report = sync(
                workspace,
                lambda: open_store_for(workspace.settings),
                tenant,
                run_job,
                tables=args.tables,
                full=args.full,
            )
        finally:
            workspace.close()
    _print(report)
    return 0 if report.ok else 1


def _print(report: SyncReport) -> None:
    for index in report.indexes:
        n = index.counts
        line = (
            f"{index.table} {index.vector_type}: {n.read} read = {n.embedded} embedded"
            f" + {n.unchanged} unchanged + {n.no_text} without text + {n.dead} dead + {n.deleted} deleted"
        )
        print(f"{line}; {index.error}" if index.error else line, flush=True)  # noqa: T201


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, exit_on_signal)
    try:
        settings = Settings.from_env()
        configure_logs(settings, loggers=("",))
        start_tracing(settings, "job")
        return run(args, settings)
    except RowbeamError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        stop_tracing()


if __name__ == "__main__":
    leave(main())
