"""What a change that goes on for long can be asked for, by options that exclude one another."""

from __future__ import annotations

import sys
from enum import StrEnum

import typer

from ray_app.cli.output import USAGE, show_fault


class Action(StrEnum):
    """What is asked for beside the change itself."""

    PLAN = "plan"
    STATUS = "status"
    ROLLBACK = "rollback"
    ABORT = "abort"
    FINISH = "finish"


def chosen(*, plan: bool, status: bool, rollback: bool, abort: bool, finish: bool) -> list[Action]:
    """Which of them the options ask for; more than one is a misuse, see ``clash``."""
    asked = {
        Action.PLAN: plan,
        Action.STATUS: status,
        Action.ROLLBACK: rollback,
        Action.ABORT: abort,
        Action.FINISH: finish,
    }
    return [action for action, wanted in asked.items() if wanted]


def clash(actions: list[Action]) -> str | None:
    """What is wrong with asking for all of these."""
    return f"--{actions[0]} and --{actions[1]} do not go together." if len(actions) > 1 else None


def ask(question: str, *, as_json: bool) -> None:
    """Go on with a yes. Raises typer.Abort without one, typer.Exit where nobody is there to say it."""
    if as_json or not sys.stdin.isatty():
        show_fault("UsageError", "Nobody is there to be asked.", "Say --yes.", as_json=as_json)
        raise typer.Exit(USAGE)
    typer.confirm(question, abort=True, err=True)
