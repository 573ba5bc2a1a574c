"""Moves of tenants as text for people. Pure."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from ray_app.cli.layout import facts_of, when
from ray_app.moving.reports import Moved, MovePlan, MoveStatus, PlaceVerification
from ray_app.moving.states import Stage

_STAGES = {
    Stage.FILLING: "is being filled, {done:,} of {total:,} points looked at",
    Stage.RETURNING: "was its place and is being brought up to date, {done:,} of {total:,} points looked at",
    Stage.KEPT: "was its place and is kept until {until}",
    Stage.DROPPING: "is being dropped",
}


def plan(made: MovePlan) -> RenderableType:
    return Text(
        f"{made.tenant}: {made.points:,} points of {made.records:,} records in {made.indexes} indexes,"
        f" {made.vector_bytes / 1e6:,.1f} MB of vectors, from {made.source} to {made.target}."
        " No model is called."
    )


def status(found: MoveStatus) -> RenderableType:
    lines: list[RenderableType] = [Text(f"{found.tenant} is {found.placement}.")]
    if found.other is None or found.stage is None:
        return lines[0]
    what = _STAGES[found.stage].format(
        done=min(found.done, found.total), total=found.total, until=when(found.keep_until)
    )
    lines.append(Text(f"{found.other} {what}."))
    if found.behind:
        lines.append(Text(f"{found.behind:,} records are yet to be followed."))
    if found.verification is not None:
        lines.append(_verification(found.verification))
    return Group(*lines)


def moved(done: Moved) -> RenderableType:
    found = done.status
    lines: list[RenderableType] = [
        Text(
            f"{found.tenant} is {found.placement} from now on; {found.other} is kept until"
            f" {when(found.keep_until)}."
        ),
        Text(f"{done.copied:,} points copied, {done.deleted:,} deleted."),
    ]
    if found.verification is not None:
        lines.append(_verification(found.verification))
    lines.append(Text(f"Writes waited for {done.writes_waited:.2f} s, searches did not."))
    return Group(*lines)


def _verification(found: PlaceVerification) -> RenderableType:
    return facts_of(
        ("points compared", f"{found.points:,}"),
        ("records that differ", str(found.differing)),
        ("unlike the ledger", f"{found.unknown} records, {found.misplaced} misplaced points"),
        (
            "found by own vector",
            f"{found.found_there} of {found.found}, {found.other_score} with another score",
        ),
    )
