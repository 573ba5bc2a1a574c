"""``rowbeam sync``: bring indexes into step, on demand, on a schedule, or with every commit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

import typer

from ray_app.cli.interrupt import on_interrupt
from ray_app.cli.output import FAILED, OK, AsJson, emit, emit_json, note
from ray_app.errors import InputError

_Flag = Callable[..., Any]


def sync(
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="The tenant's name.")] = None,
    tables: Annotated[
        list[str] | None,
        typer.Option("--table", help="Tables, with commas or given again; else all with an index."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Compare whole tables.")] = False,
    every: Annotated[
        int | None,
        typer.Option("--every", help="Have the server sync the tenant every so many seconds; 0 stops it."),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Note every change of the tables in an outbox.")
    ] = False,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Take the triggers away, and the outbox with the last.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show the outbox and what is synced by itself.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Drain the outbox here until Ctrl-C, where no server does.")
    ] = False,
    sql: Annotated[
        bool, typer.Option("--sql", help="With --install: print the SQL instead, for a DBA.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Bring a tenant's existing indexes into step with their tables, reading only what has changed.

    With --install every committed change is noted by triggers, and a running server has it in the
    indexes within seconds.
    """
    from ray_app.cli.jobs import split_names

    modes = {"--install": install, "--uninstall": uninstall, "--status": status, "--follow": follow}
    chosen = [name for name, given in modes.items() if given]
    _check(chosen, tenant, every, full=full, sql=sql)
    names = split_names(tables)
    if install and sql:
        return _print_sql(names)
    if install or uninstall:
        return _outbox(names, install=install, as_json=as_json)
    if status:
        return _status(as_json=as_json)
    if follow:
        return _follow()
    if every is not None:
        return _schedule(str(tenant), every, as_json=as_json)
    return _sync(str(tenant), names, full=full, as_json=as_json)


def _check(chosen: list[str], tenant: str | None, every: int | None, *, full: bool, sql: bool) -> None:
    """Raises InputError for options that do not go together."""
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)} do not go together.", hint="Give one of them.")
    if chosen and (tenant is not None or every is not None or full):
        raise InputError(
            f"{chosen[0]} is about the tables of all tenants.", hint="Leave --tenant, --every and --full out."
        )
    if sql and chosen != ["--install"]:
        raise InputError("--sql prints what --install would do.", hint="Give both.")
    if not chosen and tenant is None:
        raise InputError(
            "Whose indexes?", hint="Give --tenant, or --install, --uninstall, --status, --follow."
        )
    if every is not None and full:
        raise InputError("--full is for one sync.", hint="Leave --every or --full out.")


def _sync(tenant: str, tables: list[str] | None, *, full: bool, as_json: bool) -> int:
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_sync
    from ray_app.cli.progress import ProgressView

    with Rowbeam.open() as rowbeam, ProgressView() as view:
        report = rowbeam.sync(tenant, tables=tables, full=full, on_progress=view)
    emit(report, rendering_sync.report, as_json=as_json)
    return OK if report.ok else FAILED


def _schedule(tenant: str, every: int, *, as_json: bool) -> int:
    from ray_app.app import Rowbeam

    with Rowbeam.open() as rowbeam:
        rowbeam.schedule_sync(tenant, timedelta(seconds=every) if every else None)
    if as_json:
        emit_json({"tenant": tenant, "every_seconds": every})
    elif every:
        note(f"A running server syncs {tenant} every {every} s.")
    else:
        note(f"{tenant} is not synced by itself any more.")
    return OK


def _outbox(tables: list[str] | None, *, install: bool, as_json: bool) -> int:
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_sync

    with Rowbeam.open() as rowbeam:
        change = rowbeam.install_outbox if install else rowbeam.uninstall_outbox
        done = change(tables)
    emit(done, rendering_sync.outbox, as_json=as_json)
    if install and not as_json:
        note("Changes from before are not in it: sync each tenant once, rowbeam sync --tenant T.")
    return OK


def _print_sql(tables: list[str] | None) -> int:
    from ray_app.app import Rowbeam

    with Rowbeam.open() as rowbeam:
        typer.echo(rowbeam.outbox_script(tables), nl=False)
    return OK


def _status(*, as_json: bool) -> int:
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_sync

    with Rowbeam.open() as rowbeam:
        found = rowbeam.sync_status()
    emit(found, rendering_sync.status, as_json=as_json)
    return OK


def _follow() -> int:
    from ray_app.app import Rowbeam

    with Rowbeam.open() as rowbeam, on_interrupt() as interrupt:
        note("Draining the outbox; Ctrl-C ends it.")
        rowbeam.follow_outbox(until=lambda: interrupt.pressed)
    return OK
