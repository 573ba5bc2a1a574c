"""Backfill a tenant's tables: ``python -m jobs.backfill --tenant acme``, also through ``ray job submit``.

Exit status: 0 when the job succeeded, 1 when it failed, was cancelled or could not start, 2 for usage, 3 when
it stopped at its budget.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from types import FrameType

from jobs.driver import drive
from ray_app.backfilling import change_limits, create_backfill
from ray_app.budgets import JobLimits
from ray_app.db.jobs import take_job
from ray_app.db.migrate import ensure_migrated
from ray_app.db.progress import job_progress
from ray_app.errors import InputError, RowbeamError
from ray_app.leaving import leave
from ray_app.logs import configure_logs, logging_for
from ray_app.reports import JobState
from ray_app.settings import Settings, export_environment
from ray_app.spaces import Preference
from ray_app.stack.embedded import Stack
from ray_app.tracing.spans import annotate, span, start_tracing, stop_tracing
from ray_app.workspace import Workspace


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jobs.backfill", description=__doc__.splitlines()[0])
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--tables", nargs="+", metavar="TABLE", help="default: all vector-enabled tables")
    parser.add_argument("--vector-type", nargs="+", metavar="TYPE", dest="vector_types")
    parser.add_argument("--prefer", choices=[item.value for item in Preference])
    parser.add_argument("--resume", metavar="JOB", help="go on with a job instead of starting one")
    parser.add_argument("--budget", type=_dollars, metavar="USD", help="what the job may cost in all")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="what it may embed in all")
    parser.add_argument("--traceparent", metavar="SPAN", help="the span of who asked for it")
    parser.add_argument("--new", action="store_true", help="with --resume: only if it has never run")
    return parser.parse_args(argv)


def _dollars(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of US dollars") from None


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Create or resume the job and drive it to its end. Raises RowbeamError when it cannot start."""
    stack = Stack(settings)
    export_environment(stack.connection_env())
    with stack.needed():
        workspace = Workspace(stack.client_settings())
        try:
            ensure_migrated(workspace.ledger)
            tenant = workspace.registry.get(args.tenant)
            limits = JobLimits(args.budget, args.max_tokens)
            if args.resume and limits.given:
                change_limits(workspace, tenant, args.resume, limits)
            job_id = args.resume or create_backfill(
                workspace,
                tenant,
                tables=args.tables,
                vector_types=args.vector_types,
                prefer=Preference(args.prefer) if args.prefer else None,
                limits=limits,
            )
            if job_progress(workspace.ledger, job_id).tenant != tenant.name:
                raise InputError(f"Job {job_id} is not one of tenant {tenant.name}.")
            job = take_job(workspace.ledger, job_id, new=args.new or not args.resume)
            print(f"{job_id} runs.", flush=True)  # noqa: T201 - a job's log is its standard output
            with (
                logging_for(job=job_id, incarnation=tenant.incarnation),
                span("job", kind="consumer", parent=args.traceparent, run=job.run, job=job_id),
            ):
                state = drive(workspace, job, tenant, revive=stack.revive)
                annotate(state=str(state))
            _report(workspace, job_id)
        finally:
            workspace.close()
    return {JobState.SUCCEEDED: 0, JobState.STOPPED_AT_BUDGET: 3}.get(state, 1)


def _report(workspace: Workspace, job_id: str) -> None:
    job = job_progress(workspace.ledger, job_id)
    n = job.counts
    line = (
        f"{job_id} {job.state}: {n.read} read = {n.embedded} embedded + {n.unchanged} unchanged"
        f" + {n.no_text} without text + {n.dead} dead + {n.deleted} deleted; {n.chunks} points,"
        f" {job.seconds:.1f} s, {job.records_per_second:.0f} rows/s, {job.tokens} tokens, ${job.cost:.6f}"
    )
    print(f"{line}; {job.error}" if job.error else line, flush=True)  # noqa: T201


def exit_on_signal(number: int, _: FrameType | None) -> None:
    """Unwind, as for a handler of signals."""
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    # ray job stop sends SIGTERM: unwind, so that the job's row says how it ended.
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
