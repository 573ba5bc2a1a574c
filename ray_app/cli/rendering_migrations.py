"""Changes of model as text for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ray_app.cli import rendering
from ray_app.cli.layout import add_row, facts_of, table_of, when
from ray_app.migrating.reports import Migrated, MigrationStatus, Verification


def status(found: Sequence[MigrationStatus]) -> RenderableType:
    if not found:
        return Text("No change of model is under way, and no former index is kept.")
    table = table_of("table", "type", "searched", "other", "stage", "done>", "behind>", "kept until")
    for item in found:
        job = item.job
        done = f"{job.processed_records}/{job.total_records}" if job else ""
        add_row(
            table,
            *(item.table, item.vector_type, f"{item.model} {item.space_id}"),
            *(f"{item.other_model} {item.other_space_id}", item.stage.replace("_", " "), done),
            *(str(item.behind), when(item.keep_until) if item.keep_until else ""),
        )
    return table


def migrated(done: Migrated) -> RenderableType:
    lines: list[RenderableType] = [rendering.job(done.job)]
    for item in done.indexes:
        if done.switched:
            lines.append(
                Text(
                    f"{item.table} {item.vector_type}: searched with {item.model} ({item.space_id}) from now"
                    " on;"
                    f" {item.other_model} ({item.other_space_id}) is kept until {when(item.keep_until)}."
                )
            )
        if item.verification is not None:
            lines.append(_verification(item.verification))
    if done.writes_waited is not None:
        lines.append(Text(f"Writes waited for {done.writes_waited:.2f} s, searches did not."))
    return Group(*lines)


def _verification(found: Verification) -> RenderableType:
    overlap = "not compared" if found.overlap is None else f"{found.overlap:.3f}"
    return facts_of(
        ("rows", f"{found.rows}, {found.no_text} without text, {found.dead} dead letters"),
        ("records", f"{found.records} in {found.ledger_points} points, {found.stored_points} in the store"),
        ("found by own text", f"{found.retrieved} of {found.sampled}"),
        ("top 10 shared with the former", overlap),
    )
