"""``rowbeam tenant …``, ``rowbeam load`` and ``rowbeam coverage``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ray_app.cli.output import FAILED, OK, AsJson, emit
from ray_app.errors import InputError
from ray_app.tenants import Placement

app = typer.Typer(help="Add, list, show and remove tenants.")

Name = Annotated[str, typer.Argument(help="The tenant's name.", show_default=False)]
TenantOption = Annotated[str, typer.Option("--tenant", "-t", help="The tenant's name.", show_default=False)]
TableOption = Annotated[str, typer.Option("--table", help="The table's name.", show_default=False)]


@app.command("add")
def add(
    name: Name,
    client_id: Annotated[
        int | None, typer.Option("--client-id", help="Its number in the platform's tables; else a free one.")
    ] = None,
    placement: Annotated[
        Placement | None, typer.Option("--placement", help="Where its vectors live.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Register a tenant, prove its place with a probe vector, and print its API key, this once."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering

    with Rowbeam.open() as rowbeam:
        new = rowbeam.add_tenant(name, client_id=client_id, placement=placement)
    emit(new, rendering.new_tenant, as_json=as_json)
    return OK


@app.command("list")
def list_(as_json: AsJson = False) -> int:
    """List the tenants."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering

    with Rowbeam.open() as rowbeam:
        found = rowbeam.list_tenants()
    emit(found, rendering.tenants, as_json=as_json, name="tenants")
    return OK


@app.command("show")
def show(name: Name, as_json: AsJson = False) -> int:
    """Show a tenant: its keys, indexes, spending and dead letters."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering

    with Rowbeam.open() as rowbeam:
        details = rowbeam.show_tenant(name)
    emit(details, rendering.tenant_details, as_json=as_json)
    return OK


@app.command("remove")
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> int:
    """Erase a tenant's vectors and ledger rows, and prove it in a signed record. The platform's rows stay."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_erasures

    if not yes:
        _confirm(name, as_json=as_json)
    with Rowbeam.open() as rowbeam:
        report = rowbeam.remove_tenant(name)
    emit(report, rendering_erasures.erasure, as_json=as_json)
    return OK if report.proven else FAILED


def _confirm(name: str, *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise InputError(f"Removing {name} was not confirmed.", hint="Add --yes where nobody can be asked.")
    typer.confirm(f"Erase all vectors and the whole ledger of {name}?", abort=True, err=True)


def load(
    file: Annotated[Path, typer.Argument(help="A .jsonl or .jsonl.gz file.", show_default=False)],
    tenant: TenantOption,
    table: TableOption,
    as_json: AsJson = False,
) -> int:
    """Insert the rows of a JSON-lines file into a platform table, all or none."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering

    with Rowbeam.open() as rowbeam:
        report = rowbeam.load(file, tenant=tenant, table=table)
    emit(report, rendering.loaded, as_json=as_json)
    return OK


def coverage(tenant: TenantOption, as_json: AsJson = False) -> int:
    """Show how much of each index is in step with its table."""
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering

    with Rowbeam.open() as rowbeam:
        found = rowbeam.coverage(tenant)
    emit(found, rendering.coverage, as_json=as_json, name="coverage")
    return OK
