"""``rowbeam reconcile``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ray_app.cli.jobs import TablesOption, TypesOption, split_names
from ray_app.cli.output import FAILED, OK, AsJson, emit, plain
from ray_app.cli.tenants import TenantOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ray_app.reconciling.reports import ReconcileReport


def reconcile(
    tenant: TenantOption,
    tables: TablesOption = None,
    vector_type: TypesOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is found.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Mend more than --share allows.")] = False,
    share: Annotated[
        float | None,
        typer.Option("--share", min=0, max=1, help="Of the rows or points, what a repair may change."),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option("--grace", min=0, help="Seconds until vectors without a row count as orphans."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare a tenant's rows, ledger and vectors both ways; exit status 1 while something differs."""
    from ray_app.app import Rowbeam
    from ray_app.reconciling.operation import GRACE, SHARE, Repair

    allowed = None if force else SHARE if share is None else share
    with Rowbeam.open() as rowbeam:
        report = rowbeam.reconcile(
            tenant,
            tables=split_names(tables),
            vector_types=split_names(vector_type),
            repair=Repair(allowed) if repair else None,
            grace=GRACE if grace is None else grace,
        )
    emit(report, render, as_json=as_json)
    return OK if report.in_step else FAILED


def render(report: ReconcileReport) -> RenderableType:
    """The findings as a table, and what came of them."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines: list[RenderableType] = [
        Text(
            f"{plain(report.tenant)}: {report.rows:,} rows, {report.ledger_points:,} points by the ledger,"
            f" {report.stored_points:,} in the store; {report.seconds:.1f} s"
        )
    ]
    if report.found:
        table = Table("table", "vectors", "what", "count", "for example")
        for item in report.found:
            where = (item.table, item.vector_type, item.kind)
            shown = [
                found.record_id
                for found in report.examples
                if (found.table, found.vector_type, found.kind) == where
            ]
            table.add_row(
                *(plain(item.table), plain(item.vector_type), str(item.kind), f"{item.count:,}"),
                plain(", ".join(shown[:3])),
            )
        lines.append(table)
    if report.recent:
        lines.append(Text(f"{report.recent:,} vectors without a row are too young to judge."))
    if report.clean:
        lines.append(Text("All in step."))
    elif report.repaired:
        lines.append(Text(f"{report.repaired:,} mended, {report.remaining:,} left."))
    else:
        lines.append(Text("Nothing was changed. --repair mends it."))
    return Group(*lines)
