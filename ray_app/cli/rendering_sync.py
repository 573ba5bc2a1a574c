"""Syncs and the outbox for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray_app.cli.output import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ray_app.syncing.reports import IndexSync, OutboxStatus, SyncReport, SyncStatus


def report(done: SyncReport) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    lines = [Text(_index(index)) for index in done.indexes] or [Text("No index yet.")]
    return Group(*lines, Text(f"{done.tenant} in {done.seconds:.1f} s."))


def _index(done: IndexSync) -> str:
    n = done.counts
    read = "whole table" if done.reading == "whole" else "changes"
    line = (
        f"{done.table} {done.vector_type}: {read}, {n.read:,} read = {n.embedded:,} embedded"
        f" + {n.unchanged:,} unchanged + {n.no_text:,} without text + {n.dead:,} dead + {n.deleted:,} deleted"
    )
    if done.job_id:
        line += f"; the rest by job {done.job_id}"
    return f"{line}; {plain(done.error)}" if done.error else line


def outbox(found: OutboxStatus) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    if not found.installed:
        return Text("No outbox. rowbeam sync --install makes one.")
    states = [Text(f"{table.table}: {table.state}") for table in found.tables]
    depth = f"{found.entries:,} changes wait, the oldest for {found.oldest:.0f} s."
    missed = (
        f" {found.missed:,} statements were missed: rowbeam sync --full finds them." if found.missed else ""
    )
    return Group(*states, Text(depth + missed))


def status(found: SyncStatus) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    lines = [Text(f"{name} is synced every {seconds} s.") for name, seconds in found.schedules.items()]
    return Group(outbox(found.outbox), *(lines or [Text("No tenant is synced by itself.")]))
