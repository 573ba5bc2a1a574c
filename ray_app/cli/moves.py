"""``rowbeam tenant move``: bring a tenant's vectors to another place with no gap in what is found."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ray_app.cli.actions import Action, ask, chosen, clash
from ray_app.cli.output import INTERRUPTED, OK, USAGE, AsJson, emit, note, show_fault
from ray_app.cli.tenants import Name
from ray_app.tenants import Placement

if TYPE_CHECKING:
    from ray_app.app import Rowbeam


def move(
    name: Name,
    to: Annotated[
        Placement | None, typer.Option("--to", help="Where its vectors are to live.", show_default=False)
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be copied.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show where it is, and what is kept.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the former place.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Give the move up.")] = False,
    finish: Annotated[bool, typer.Option("--finish", help="Drop the former place now.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> int:
    """Bring a tenant's vectors to another place, without embedding anything anew.

    Searches and writes go on all the while. Run it again after it was stopped, and it goes on.
    """
    actions = chosen(plan=plan, status=status, rollback=rollback, abort=abort, finish=finish)
    action = actions[0] if actions else None
    fault = _misused(actions, to)
    if fault:
        show_fault("UsageError", fault, "See rowbeam tenant move --help.", as_json=as_json)
        return USAGE
    from ray_app.app import Rowbeam
    from ray_app.cli import rendering_moves

    with Rowbeam.open() as rowbeam:
        if action is Action.STATUS:
            emit(rowbeam.moves.status(name), rendering_moves.status, as_json=as_json)
            return OK
        if action is Action.PLAN and to is not None:
            emit(rowbeam.moves.plan(name, to), rendering_moves.plan, as_json=as_json)
            return OK
        if not yes:
            _confirm(rowbeam, action, name, to, as_json=as_json)
        if action in (Action.ABORT, Action.FINISH):
            end = rowbeam.moves.abort if action is Action.ABORT else rowbeam.moves.finish
            emit(end(name), rendering_moves.status, as_json=as_json)
            return OK
        return _carry_out(rowbeam, name, to, as_json=as_json)


def _misused(actions: list[Action], to: Placement | None) -> str | None:
    if fault := clash(actions):
        return fault
    action = actions[0] if actions else None
    if action in (None, Action.PLAN):
        return "Name the place to move to: --to." if to is None else None
    return f"--to and --{action} do not go together." if to is not None else None


def _confirm(
    rowbeam: Rowbeam, action: Action | None, name: str, to: Placement | None, *, as_json: bool
) -> None:
    """Show what a move would copy, and ask. Raises typer.Abort without a yes."""
    from ray_app.cli import rendering_moves
    from ray_app.cli.output import console

    if action is None and to is not None:
        console(sys.stderr).print(rendering_moves.plan(rowbeam.moves.plan(name, to)))
    question = {
        None: "Copy its vectors and switch to them?",
        Action.ROLLBACK: "Bring the former place up to date and go back to it?",
        Action.ABORT: "Give the move up?",
        Action.FINISH: "Drop the former place? There is no way back afterwards.",
    }[action]
    ask(question, as_json=as_json)


def _carry_out(rowbeam: Rowbeam, name: str, to: Placement | None, *, as_json: bool) -> int:
    from ray_app.cli import rendering_moves
    from ray_app.cli.progress import MoveView

    try:
        with MoveView() as view:
            if to is None:
                done = rowbeam.moves.rollback(name, on_progress=view)
            else:
                done = rowbeam.moves.run(name, to, on_progress=view)
    except KeyboardInterrupt:
        note("The tenant stays where it is. Run the command again to go on, or --abort.", as_json=as_json)
        return INTERRUPTED
    emit(done, rendering_moves.moved, as_json=as_json)
    return OK
