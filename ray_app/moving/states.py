"""The life of the place that is not the tenant's own, as a table of what may follow what. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from ray_app.errors import ConflictError


class Stage(StrEnum):
    """What the other place is."""

    #: Where the tenant is going: it is being filled.
    FILLING = "filling"
    #: Where the tenant was until a switch; kept for a way back.
    KEPT = "kept"
    #: Kept, and being brought up to date for the way back.
    RETURNING = "returning"
    #: The tenant's points there are being erased; nothing brings them back.
    DROPPING = "dropping"

    @property
    def followed(self) -> bool:
        """Whether what is written to the tenant's own place is noted, to be copied."""
        return self in (Stage.FILLING, Stage.RETURNING)

    @property
    def returns(self) -> bool:
        """Whether the tenant was there before, so that giving up keeps it."""
        return self in (Stage.KEPT, Stage.RETURNING)


class Step(StrEnum):
    """What is done to it."""

    #: Fill it, also where that was begun before.
    START = "start"
    RETURN = "return"
    #: It and the tenant's own place change roles.
    SWITCH = "switch"
    ABORT = "abort"
    FINISH = "finish"
    DROPPED = "dropped"


#: What each step makes of a stage; None is a tenant that has one place.
_AFTER: Final[dict[tuple[Stage | None, Step], Stage | None]] = {
    (None, Step.START): Stage.FILLING,
    (Stage.FILLING, Step.START): Stage.FILLING,
    (Stage.FILLING, Step.SWITCH): Stage.KEPT,
    (Stage.FILLING, Step.ABORT): Stage.DROPPING,
    (Stage.KEPT, Step.RETURN): Stage.RETURNING,
    (Stage.RETURNING, Step.RETURN): Stage.RETURNING,
    (Stage.RETURNING, Step.SWITCH): Stage.KEPT,
    (Stage.RETURNING, Step.ABORT): Stage.KEPT,
    (Stage.KEPT, Step.FINISH): Stage.DROPPING,
    # Whoever began to drop it may have died.
    (Stage.DROPPING, Step.ABORT): Stage.DROPPING,
    (Stage.DROPPING, Step.FINISH): Stage.DROPPING,
    (Stage.DROPPING, Step.DROPPED): None,
}
_WHY_NOT: Final[dict[Stage | None, tuple[str, str]]] = {
    None: ("The tenant has not been moved", "Begin a move: rowbeam tenant move NAME --to PLACE."),
    Stage.FILLING: ("The tenant is on its way to another place", "Let it end, or give it up with --abort."),
    Stage.KEPT: (
        "The tenant was moved, and its former place is kept for a way back",
        "Go back with --rollback, or let go of it with --finish.",
    ),
    Stage.RETURNING: ("The tenant is on its way back", "Let it end, or stop it with --abort."),
    Stage.DROPPING: ("A place of the tenant's is being dropped", "Go on with --finish."),
}


def follow(stage: Stage | None, step: Step) -> Stage | None:
    """The stage after ``step``.

    Raises:
        ConflictError: the step cannot be done at that stage.
    """
    if (stage, step) not in _AFTER:
        raise refusal(stage)
    return _AFTER[stage, step]


def refusal(stage: Stage | None) -> ConflictError:
    """Why something else cannot be done at that stage, and what can."""
    what, hint = _WHY_NOT[stage]
    return ConflictError(f"{what}.", hint=hint)
