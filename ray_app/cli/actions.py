"""What a change that goes on for long can be asked for, by options that exclude one another."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """What is asked for beside the change itself."""

    PLAN = "plan"
    STATUS = "status"
    ROLLBACK = "rollback"
    ABORT = "abort"
    FINISH = "finish"
