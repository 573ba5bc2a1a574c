"""``rowbeam plan``, ``backfill``, ``jobs``, ``job``, ``cancel``, ``dead-letters`` and ``search``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ray_app.cli.output import FAILED, INTERRUPTED, OK, AsJson, emit, emit_json, note, to_json
from ray_app.cli.tenants import TableOption, TenantOption
from ray_app.reports import JobProgress, JobState
from ray_app.spaces import Preference

TablesOption = Annotated[
    list[str] | None,
    typer.Option("--tables", help="Tables, with commas or given again; else all vector-enabled ones."),
]
TypeOption = Annotated[str, typer.Option("--vector-type", help="content, summary or metadata.")]
TypesOption = Annotated[
    list[str] | None,
    typer.Option("--vector-type", help="content, summary or metadata; commas or given again."),
]
PreferOption = Annotated[
    Preference | None,
    typer.Option("--prefer", help="How a new index chooses its space; else by the table's size."),
]
JobArgument = Annotated[str, typer.Argument(help="The job's id.", show_default=False)]


def plan(
    tenant: TenantOption,
    tables: TablesOption = None,
    vector_type: TypesOption = None,
    prefer: PreferOption = None,
    as_json: AsJson = False,
) -> int:
    """Show what a backfill would do and cost. Changes nothing."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering

    with Rowbeam.open() as rowbeam:
        made = rowbeam.plan(
            tenant, tables=split_names(tables), vector_types=split_names(vector_type), prefer=prefer
        )
    emit(made, rendering.plan, as_json=as_json)
    return OK


def backfill(
    tenant: TenantOption,
    tables: TablesOption = None,
    vector_type: TypesOption = None,
    prefer: PreferOption = None,
    resume: Annotated[str | None, typer.Option("--resume", help="Go on with this job.")] = None,
    as_json: AsJson = False,
) -> int:
    """Embed what is new or changed in a tenant's tables, and remove what is gone.

    Ctrl-C stops the job after the batches in flight; --resume goes on from there.
    """
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering
    from ray_app.cli.interrupt import on_interrupt
    from ray_app.cli.progress import ProgressView

    with Rowbeam.open() as rowbeam, on_interrupt() as interrupt, ProgressView() as view:
        job = rowbeam.backfill(
            tenant,
            tables=split_names(tables),
            vector_types=split_names(vector_type),
            prefer=prefer,
            resume=resume,
            on_progress=interrupt.watching(view, rowbeam.cancel),
        )
    emit(job, rendering.job, as_json=as_json)
    return _exit_code(job, interrupted=interrupt.pressed)


def jobs(
    everything: Annotated[bool, typer.Option("--all", help="Ended jobs too.")] = False,
    as_json: AsJson = False,
) -> int:
    """List the active jobs."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering

    with Rowbeam.open() as rowbeam:
        found = rowbeam.jobs(include_ended=everything)
    emit(found, rendering.jobs, as_json=as_json, name="jobs")
    return OK


def job(job_id: JobArgument, as_json: AsJson = False) -> int:
    """Show one job, running or ended."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering

    with Rowbeam.open() as rowbeam:
        progress = rowbeam.job(job_id)
    emit(progress, rendering.job, as_json=as_json)
    return OK


def cancel(job_id: JobArgument, as_json: AsJson = False) -> int:
    """Ask a job to stop after the batches in flight."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering

    with Rowbeam.open() as rowbeam:
        progress = rowbeam.cancel(job_id)
    emit(progress, rendering.job, as_json=as_json)
    return OK


def dead_letters(
    tenant: TenantOption,
    redrive: Annotated[bool, typer.Option("--redrive", help="Try them again, as a job.")] = False,
    as_json: AsJson = False,
) -> int:
    """List the records that could not be embedded, or try them again."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering

    if redrive:
        return _redrive(tenant, as_json=as_json)
    with Rowbeam.open() as rowbeam:
        found = rowbeam.dead_letters(tenant)
    emit(found, rendering.dead_letters, as_json=as_json, name="dead_letters")
    return OK


def _redrive(tenant: str, *, as_json: bool) -> int:
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering
    from ray_app.cli.interrupt import on_interrupt
    from ray_app.cli.progress import ProgressView

    with Rowbeam.open() as rowbeam, on_interrupt() as interrupt, ProgressView() as view:
        job = rowbeam.redrive(tenant, on_progress=interrupt.watching(view, rowbeam.cancel))
    if as_json:
        emit_json({"job": to_json(job)})
    elif job is None:
        note("No open dead letters to try again.")
    else:
        emit(job, rendering.job, as_json=False)
    return OK if job is None else _exit_code(job, interrupted=interrupt.pressed)


def search(
    text: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    tenant: TenantOption,
    table: TableOption,
    limit: Annotated[int, typer.Option("--limit", help="Records to return.", min=1, max=1000)] = 10,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help='field=value, or >=, >, <=, <; repeat to narrow. field="5" is text.'),
    ] = None,
    vector_type: TypeOption = "content",
    as_json: AsJson = False,
) -> int:
    """Find the tenant's records nearest in meaning to a text."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering
    from ray_app.cli.filters import parse_filters

    conditions = parse_filters(filters or ())
    with Rowbeam.open() as rowbeam:
        found = rowbeam.search(
            tenant, table, text, limit=limit, conditions=conditions, vector_type=vector_type
        )
    emit(found, rendering.hits, as_json=as_json, name="hits")
    return OK


def split_names(values: Sequence[str] | None) -> list[str] | None:
    """The names of options that were given several times, or once with commas."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    return [name for name in names if name] or None


def _exit_code(job: JobProgress, *, interrupted: bool) -> int:
    if job.state is JobState.SUCCEEDED:
        return OK
    return INTERRUPTED if interrupted and job.state is JobState.CANCELLED else FAILED
