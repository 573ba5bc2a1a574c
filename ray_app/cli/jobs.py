"""``rowbeam plan``, ``backfill``, ``jobs``, ``job``, ``cancel``, ``dead-letters`` and ``search``."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from ray_app.budgets import JobLimits
from ray_app.cli.output import AT_BUDGET, FAILED, INTERRUPTED, OK, AsJson, emit, emit_json, note, to_json
from ray_app.cli.tenants import TableOption, TenantOption
from ray_app.errors import InputError
from ray_app.reports import JobProgress, JobState
from ray_app.spaces import Preference

TablesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tables", "--table", help="Tables, with commas or given again; else all vector-enabled ones."
    ),
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
TenantsOption = Annotated[
    list[str],
    typer.Option(
        "--tenant", "-t", help="The tenant's name; given again, several at once.", show_default=False
    ),
]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", metavar="USD", help="Stop before the job has cost more, earlier runs included."),
]
MaxTokensOption = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Stop before it has embedded more tokens.")
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
    tenant: TenantsOption,
    tables: TablesOption = None,
    vector_type: TypesOption = None,
    prefer: PreferOption = None,
    resume: Annotated[str | None, typer.Option("--resume", help="Go on with this job.")] = None,
    budget: BudgetOption = None,
    max_tokens: MaxTokensOption = None,
    as_json: AsJson = False,
) -> int:
    """Embed what is new or changed in a tenant's tables, and remove what is gone.

    Ctrl-C stops the job after the batches in flight; --resume goes on from there. Several tenants share a
    running cluster (rowbeam up) and take turns.

    Exit status: 0 done, 1 failed, 3 stopped at its budget.
    """
    if len(tenant) > 1:
        if resume is not None:
            raise InputError("A job is one tenant's.", hint="Name that tenant alone with --resume.")
        from ray_app.cli.sharing import backfill_several

        limits = JobLimits(_dollars(budget), max_tokens)
        options = {"tables": split_names(tables), "vector_types": split_names(vector_type), "prefer": prefer}
        return backfill_several(tenant, limits, options, as_json=as_json)
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering
    from ray_app.cli.interrupt import on_interrupt
    from ray_app.cli.progress import ProgressView

    with Rowbeam.open() as rowbeam, on_interrupt() as interrupt, ProgressView() as view:
        job = rowbeam.backfill(
            tenant[0],
            tables=split_names(tables),
            vector_types=split_names(vector_type),
            prefer=prefer,
            resume=resume,
            budget=_dollars(budget),
            max_tokens=max_tokens,
            on_progress=interrupt.watching(view, rowbeam.cancel),
        )
    emit(job, rendering.job, as_json=as_json)
    return exit_code(job, interrupted=interrupt.pressed)


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
    return OK if job is None else exit_code(job, interrupted=interrupt.pressed)


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


def _dollars(text: str | None) -> Decimal | None:
    try:
        return None if text is None else Decimal(text)
    except InvalidOperation:
        raise InputError(f"{text!r} is no amount of US dollars.", hint="Such as --budget 2.50.") from None


def split_names(values: Sequence[str] | None) -> list[str] | None:
    """The names of options that were given several times, or once with commas."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    return [name for name in names if name] or None


def exit_code(job: JobProgress, *, interrupted: bool) -> int:
    """The exit status of a command that ran this job; ``interrupted``: Ctrl-C was pressed."""
    if job.state is JobState.SUCCEEDED:
        return OK
    if job.state is JobState.STOPPED_AT_BUDGET:
        return AT_BUDGET
    return INTERRUPTED if interrupted and job.state is JobState.CANCELLED else FAILED
