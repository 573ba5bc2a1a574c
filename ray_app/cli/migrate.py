"""``rowbeam migrate``: change the model of a table's indexes with no gap in what is found."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ray_app.cli.actions import Action, ask, chosen, clash
from ray_app.cli.jobs import TypesOption, split_names
from ray_app.cli.output import FAILED, INTERRUPTED, OK, USAGE, AsJson, emit, note, show_fault
from ray_app.cli.tenants import TenantOption
from ray_app.reports import JobState

if TYPE_CHECKING:
    from ray_app.app import Rowbeam


def migrate(
    tenant: TenantOption,
    table: Annotated[str | None, typer.Option("--table", help="The table whose indexes change.")] = None,
    vector_type: TypesOption = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="The new space: its id, its model's name, local, or gateway."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what it would take and cost.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show what is under way or kept.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the former index.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Give the change up.")] = False,
    finish: Annotated[bool, typer.Option("--finish", help="Drop the former index now.")] = False,
    allow_dead: Annotated[
        int, typer.Option("--allow-dead", help="Records that may fail to be embedded.", min=0)
    ] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> int:
    """Change the model of a table's indexes: build beside, keep in step, verify, switch, keep a way back.

    Searches go on all the while, in one space or the other and never in both. Run it again after it was
    stopped, and it goes on.
    """
    actions = chosen(plan=plan, status=status, rollback=rollback, abort=abort, finish=finish)
    action = actions[0] if actions else None
    fault = _misused(actions, table, to)
    if fault:
        show_fault("UsageError", fault, "See rowbeam migrate --help.", as_json=as_json)
        return USAGE
    from ray_app.app import Rowbeam

    options = {"vector_types": split_names(vector_type)}
    with Rowbeam.open() as rowbeam:
        if action is Action.STATUS:
            return _show_status(rowbeam.migrations.status(tenant), as_json=as_json)
        if action is Action.PLAN:
            return _show_plan(rowbeam, tenant, str(table), str(to), options, as_json=as_json)
        rowbeam.migrations.sweep()
        if not yes:
            _confirm(rowbeam, action, tenant, str(table), to, options, as_json=as_json)
        if action is Action.ABORT:
            left = rowbeam.migrations.abort(tenant, str(table), **options)
            return _show_status(left, as_json=as_json)
        if action is Action.FINISH:
            left = rowbeam.migrations.finish(tenant, str(table), **options)
            return _show_status(left, as_json=as_json)
        return _change(
            rowbeam, tenant, str(table), to, {**options, "allow_dead": allow_dead}, as_json=as_json
        )


def _misused(actions: list[Action], table: str | None, to: str | None) -> str | None:
    if fault := clash(actions):
        return fault
    action = actions[0] if actions else None
    if table is None and action is not Action.STATUS:
        return "Name the table: --table."
    if to is None and action in (None, Action.PLAN):
        return "Name the space to change to: --to."
    return None


def _confirm(
    rowbeam: Rowbeam,
    action: Action | None,
    tenant: str,
    table: str,
    to: str | None,
    options: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Show what a change would cost, and ask. Raises typer.Abort without a yes."""
    from ray_app.cli import rendering
    from ray_app.cli.output import console

    if action is None:
        made = rowbeam.migrations.plan(tenant, table, to=str(to), **options)
        console(sys.stderr).print(rendering.plan(made))
    question = {
        None: "Build the new index and switch to it?",
        Action.ROLLBACK: "Bring the former index up to date and go back to it?",
        Action.ABORT: "Give the change up?",
        Action.FINISH: "Drop the former index? There is no way back afterwards.",
    }[action]
    ask(question, as_json=as_json)


def _show_plan(
    rowbeam: Rowbeam, tenant: str, table: str, to: str, options: dict[str, Any], *, as_json: bool
) -> int:
    from ray_app.cli import rendering

    emit(rowbeam.migrations.plan(tenant, table, to=to, **options), rendering.plan, as_json=as_json)
    return OK


def _show_status(found: Any, *, as_json: bool) -> int:
    from ray_app.cli import rendering_migrations

    emit(found, rendering_migrations.status, as_json=as_json, name="migrations")
    return OK


def _change(
    rowbeam: Rowbeam, tenant: str, table: str, to: str | None, options: dict[str, Any], *, as_json: bool
) -> int:
    from ray_app.cli import rendering_migrations
    from ray_app.cli.interrupt import on_interrupt
    from ray_app.cli.progress import ProgressView

    with on_interrupt() as interrupt, ProgressView() as view:
        options["on_progress"] = interrupt.watching(view, rowbeam.cancel)
        if to is None:
            done = rowbeam.migrations.rollback(tenant, table, **options)
        else:
            done = rowbeam.migrations.run(tenant, table, to=to, **options)
    emit(done, rendering_migrations.migrated, as_json=as_json)
    if done.switched:
        return OK
    note("The former index goes on. Run the command again to go on, or --abort.", as_json=as_json)
    return INTERRUPTED if interrupt.pressed and done.job.state is JobState.CANCELLED else FAILED
