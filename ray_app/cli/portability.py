"""``rowbeam export``, ``import``, ``backup`` and ``restore``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ray_app.cli.output import FAILED, OK, AsJson, emit, plain
from ray_app.cli.tenants import TenantOption
from ray_app.errors import ConflictError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ray_app.app import Rowbeam
    from ray_app.portability.reports import BackupReport, ExportReport, RestoreReport
    from ray_app.reconciling.reports import ReconcileReport

OutOption = Annotated[
    Path, typer.Option("--out", help="The folder to make; it must not exist.", show_default=False)
]
OneTenantOption = Annotated[
    str | None, typer.Option("--tenant", "-t", help="One tenant's name; else all.", show_default=False)
]


def export(tenant: TenantOption, out: OutOption, as_json: AsJson = False) -> int:
    """Write a tenant's vectors, payloads and hashes as Parquet files.

    Writes and searches go on. The files are the tenant's data: only their owner may read them.
    """
    from ray_app.app import Rowbeam

    with Rowbeam.open() as rowbeam:
        report = rowbeam.export_tenant(tenant, out)
    emit(report, render_export, as_json=as_json)
    return OK


def import_(
    folder: Annotated[Path, typer.Argument(help="A folder that rowbeam export made.", show_default=False)],
    tenant: TenantOption,
    as_json: AsJson = False,
) -> int:
    """Write an export's vectors for a tenant that has none of its indexes yet; no model is called.

    Import the same folder again after it was stopped, and it goes on.
    """
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering
    from ray_app.cli.interrupt import on_interrupt
    from ray_app.cli.jobs import exit_code
    from ray_app.cli.progress import ProgressView

    with Rowbeam.open() as rowbeam, on_interrupt() as interrupt, ProgressView() as view:
        job = rowbeam.import_tenant(
            folder, tenant=tenant, on_progress=interrupt.watching(view, rowbeam.cancel)
        )
    emit(job, rendering.job, as_json=as_json)
    return exit_code(job, interrupted=interrupt.pressed)


def backup(out: OutOption, tenant: OneTenantOption = None, as_json: AsJson = False) -> int:
    """Copy the embedded store's vectors to a folder, of one tenant or of all, also while a server runs."""
    from ray_app.app import Rowbeam

    with Rowbeam.open() as rowbeam:
        report = rowbeam.backup(out, tenant=tenant)
    emit(report, render_backup, as_json=as_json)
    return OK


def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that rowbeam backup made.", show_default=False)],
    tenant: OneTenantOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace vectors that are there.")] = False,
    reconcile: Annotated[
        bool, typer.Option("--reconcile", help="Mend then what has changed since the backup.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Put the vectors of a backup in place, also while a server runs.

    With --reconcile the exit status is 1 while something differs.
    """
    from ray_app.app import Rowbeam

    with Rowbeam.open() as rowbeam:
        report = rowbeam.restore(folder, tenant=tenant, force=force)
        mended = tuple(_mend(rowbeam, name) for name in report.tenants) if reconcile else None
    done = Restored(report, mended)
    emit(done, render_restore, as_json=as_json)
    return OK if all(each.report and each.report.in_step for each in mended or ()) else FAILED


@dataclass(frozen=True)
class Mended:
    """A tenant reconciled after its restore."""

    tenant: str
    report: ReconcileReport | None
    #: Why it was refused: something else works on its tables, or much would change.
    refused: str | None


@dataclass(frozen=True)
class Restored:
    """What was restored, and what came of mending it where that was asked for."""

    restored: RestoreReport
    reconciled: tuple[Mended, ...] | None


def _mend(rowbeam: Rowbeam, tenant: str) -> Mended:
    """A refusal is told with the others' outcomes: the vectors are restored all the same."""
    from ray_app.reconciling.operation import Repair

    try:
        return Mended(tenant, rowbeam.reconcile(tenant, repair=Repair()), None)
    except ConflictError as error:
        return Mended(tenant, None, str(error))


def render_export(report: ExportReport) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from ray_app.cli.layout import add_row, table_of

    table = table_of("table", "vectors", "model", "records>", "points>", "left out>", "MB>")
    for index in report.indexes:
        add_row(
            table,
            *(plain(index.table), index.vector_type, plain(index.model)),
            *(f"{index.records:,}", f"{index.points:,}", f"{index.left_out:,}", _megabytes(index.bytes)),
        )
    lines: list[RenderableType] = [table]
    if any(index.left_out for index in report.indexes):
        lines.append(
            Text(f"Some records are out of step: rowbeam reconcile --tenant {report.tenant} tells why.")
        )
    lines.append(Text(f"{plain(report.tenant)} is in {report.folder}, after {report.seconds:.1f} s."))
    return Group(*lines)


def render_backup(report: BackupReport) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from ray_app.cli.layout import add_row, table_of

    table = table_of("tenant", "model", "points>", "MB>", "held, s>")
    for shard in report.shards:
        add_row(
            table,
            *(plain(shard.tenant), plain(shard.model)),
            *(f"{shard.points:,}", _megabytes(shard.bytes), f"{shard.held:.2f}"),
        )
    lines: list[RenderableType] = [table] if report.shards else []
    if report.elsewhere:
        names = plain(", ".join(report.elsewhere))
        lines.append(Text(f"On a Qdrant server, and not in this backup: {names}."))
    lines.append(Text(f"{len(report.shards)} shards are in {report.folder}, after {report.seconds:.1f} s."))
    return Group(*lines)


def render_restore(done: Restored) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from ray_app.cli.layout import when

    report = done.restored
    made = when(report.created_at)
    lines = [
        Text(f"{plain(shard.tenant)}: {shard.points:,} points of {plain(shard.model)}, as of {made}.")
        for shard in report.shards
    ]
    lines += [Text(f"Not restored, {plain(left.tenant)}: {left.reason}.") for left in report.not_restored]
    if done.reconciled is None:
        lines += [
            Text(f"Mend what has changed since: rowbeam reconcile --tenant {plain(name)} --repair")
            for name in report.tenants
        ]
    for each in done.reconciled or ():
        if each.report is None:
            lines.append(Text(f"{plain(each.tenant)}: {plain(each.refused or '')}", style="yellow"))
            continue
        found = f"{each.report.drift:,} differed, {each.report.repaired:,} mended"
        lines.append(Text(f"{plain(each.tenant)}: {found}, {each.report.remaining:,} left."))
    return Group(*lines)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
