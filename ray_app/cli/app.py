"""The commands in one place, and how their errors become messages and exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated

import typer

from ray_app.cli import (
    access,
    bench,
    erasures,
    jobs,
    migrate,
    moves,
    portability,
    reconcile,
    stack,
    sync,
    tenants,
)
from ray_app.cli.output import FAILED, OK, show_error, show_fault
from ray_app.errors import RowbeamError

app = typer.Typer(
    name="rowbeam",
    help="Keeps a searchable vector index in step with the tenant tables of a platform.",
    add_completion=False,
    # Its tracebacks show local variables, which may hold rows and keys.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"rowbeam {version('rowbeam')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""


tenants.app.add_typer(access.keys, name="key")
tenants.app.command()(access.limits)
tenants.app.command()(moves.move)
tenants.app.command()(erasures.erasures)
tenants.app.add_typer(erasures.app, name="erasure")
app.add_typer(tenants.app, name="tenant")
for command in (
    *(stack.demo, stack.up, stack.serve, stack.down, stack.doctor, tenants.load),
    *(jobs.plan, jobs.backfill, jobs.jobs, jobs.job, jobs.cancel, jobs.dead_letters),
    *(jobs.search, tenants.coverage, access.usage, bench.bench),
    *(sync.sync, reconcile.reconcile, migrate.migrate),
    *(portability.export, portability.backup, portability.restore),
):
    app.command()(command)
app.command("import")(portability.import_)  # the name is Python's own


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Errors of our tree become a message; any other is a defect and keeps its traceback.
    """
    as_json = "--json" in takewhile(lambda argument: argument != "--", arguments)
    try:
        return int(app(args=list(arguments) or ["--help"], prog_name="rowbeam", standalone_mode=False) or OK)
    except RowbeamError as error:
        show_error(error, as_json=as_json)
        return FAILED
    except typer.TyperException as error:
        return _show_usage(error, as_json=as_json)
    except typer.Abort:
        show_fault("Aborted", "Not confirmed, so nothing was done.", None, as_json=as_json)
        return FAILED
    except Exception as error:
        if as_json:
            # Standard output stays one JSON document; the traceback follows on standard error.
            show_fault(type(error).__name__, "This is a defect of Rowbeam.", None, as_json=True)
        raise


def _show_usage(error: typer.TyperException, *, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "rowbeam"
    show_fault("UsageError", error.format_message(), f"See {command} --help.", as_json=as_json)
    return error.exit_code
