"""Erasures of tenants as text for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ray_app.cli.layout import add_row, facts_of, table_of, when
from ray_app.offboarding.reports import Erasure, ErasureReport, Stage


def erasure(report: ErasureReport) -> RenderableType:
    """A removal that was just made."""
    style = "green" if report.proven else "bold red"
    proof = f"Counted afterwards: {report.points_left} points and {report.ledger_rows_left} ledger rows left."
    lines = [
        Text(
            f"Tenant {report.name} is removed: {report.points_erased:,} points "
            f"and {report.ledger_rows_erased:,} ledger rows erased."
        ),
        Text(proof, style=style),
    ]
    if report.record is not None:
        lines.append(
            Text(
                f"Signed record: rowbeam tenant erasure record {report.incarnation}. A second round is due at"
                f" {when(report.second_round_at)}, and makes it final."
            )
        )
    return Group(*lines)


def erasures(found: Sequence[Erasure]) -> RenderableType:
    if not found:
        return Text("No tenant was removed.")
    table = table_of("incarnation", "placement", "removed", "points>", "ledger rows>", "rounds>", "record")
    for item in found:
        erased = item.erased
        add_row(
            table,
            *(str(item.incarnation), ", ".join(item.placements), when(item.requested_at)),
            *(f"{erased.points_total:,}", f"{erased.rows_total:,}", str(len(item.rounds)), _standing(item)),
        )
    return table


def _standing(item: Erasure) -> str:
    match item.stage:
        case Stage.FINAL:
            return f"final since {when(item.final_at)}"
        case Stage.FIRST_ROUND:
            return f"second round due {when(item.due_at)}"
        case Stage.ERASING:
            return "none: being erased"


def record(found: Mapping[str, Any]) -> RenderableType:
    """A record whose signature is right."""
    erased = found["erased"]
    points = sum(sum(spaces.values()) for spaces in erased["points"].values()) + erased["nameless_points"]
    physical = ", ".join(f"{what} {state}" for what, state in sorted(found["physical"].items()))
    return Group(
        Text("The record is as it was signed.", style="green"),
        facts_of(
            ("incarnation", found["incarnation"]),
            ("stage", found["stage"].replace("_", " ")),
            ("removed", found["requested_at"]),
            ("clean", found["clean_at"]),
            ("final", found["final_at"] or "not yet"),
            ("erased", f"{points:,} points, {sum(erased['ledger_rows'].values()):,} ledger rows"),
            ("proven", found["proven"]),
            ("bytes", physical),
            ("key", found["key"]),
        ),
    )
