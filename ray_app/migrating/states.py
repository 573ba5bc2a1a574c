"""The life of an index's second generation, as a table of what may follow what. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from ray_app.errors import ConflictError


class Stage(StrEnum):
    """Where the generation that is not pinned stands."""

    #: A new one is being filled.
    BUILDING = "building"
    #: It was found to agree with the table, and can take the pinned one's place.
    VERIFIED = "verified"
    #: It was pinned until a switch, and is kept for a way back.
    KEPT = "kept"
    #: It is kept, and is being brought up to date for the way back.
    RETURNING = "returning"
    #: Brought up to date and found to agree.
    RETURN_VERIFIED = "return_verified"
    #: Its points and ledger rows are being deleted; nothing brings it back.
    DROPPING = "dropping"

    @property
    def written(self) -> bool:
        """Whether jobs write to it, and what changes in the pinned generation is noted for it."""
        return self in (Stage.BUILDING, Stage.VERIFIED, Stage.RETURNING, Stage.RETURN_VERIFIED)

    @property
    def returns(self) -> bool:
        """Whether it was pinned before, so that giving up keeps it."""
        return self in (Stage.KEPT, Stage.RETURNING, Stage.RETURN_VERIFIED)


class Step(StrEnum):
    """What is done to it."""

    START = "start"
    #: Fill it further, also after it was verified.
    FILL = "fill"
    VERIFY = "verify"
    #: It and the pinned generation change places.
    SWITCH = "switch"
    RETURN = "return"
    ABORT = "abort"
    FINISH = "finish"
    DROPPED = "dropped"


#: What each step makes of a stage; None is an index without a second generation.
_AFTER: Final[dict[tuple[Stage | None, Step], Stage | None]] = {
    (None, Step.START): Stage.BUILDING,
    (Stage.BUILDING, Step.FILL): Stage.BUILDING,
    (Stage.VERIFIED, Step.FILL): Stage.BUILDING,
    (Stage.BUILDING, Step.VERIFY): Stage.VERIFIED,
    (Stage.VERIFIED, Step.SWITCH): Stage.KEPT,
    (Stage.BUILDING, Step.ABORT): Stage.DROPPING,
    (Stage.VERIFIED, Step.ABORT): Stage.DROPPING,
    (Stage.KEPT, Step.RETURN): Stage.RETURNING,
    (Stage.RETURNING, Step.FILL): Stage.RETURNING,
    (Stage.RETURN_VERIFIED, Step.FILL): Stage.RETURNING,
    (Stage.RETURNING, Step.VERIFY): Stage.RETURN_VERIFIED,
    (Stage.RETURN_VERIFIED, Step.SWITCH): Stage.KEPT,
    (Stage.RETURNING, Step.ABORT): Stage.KEPT,
    (Stage.RETURN_VERIFIED, Step.ABORT): Stage.KEPT,
    (Stage.KEPT, Step.FINISH): Stage.DROPPING,
    (Stage.DROPPING, Step.DROPPED): None,
}
_WHY_NOT: Final[dict[Stage | None, tuple[str, str]]] = {
    None: ("No change of model is under way", "Begin one: rowbeam migrate … --to SPACE."),
    Stage.BUILDING: ("The new index is still being built", "Let it end, or give it up with --abort."),
    Stage.VERIFIED: ("The new index is about to take over", "Let it end, or give it up with --abort."),
    Stage.KEPT: (
        "The model was changed, and the former index is kept for a way back",
        "Go back with --rollback, or let go of it with --finish.",
    ),
    Stage.RETURNING: ("The former index is being brought up to date", "Let it end, or stop it with --abort."),
    Stage.RETURN_VERIFIED: ("The former index is about to take over", "Let it end, or stop with --abort."),
    Stage.DROPPING: ("A generation of the index is being dropped", "Go on with --finish."),
}


def follow(stage: Stage | None, step: Step) -> Stage | None:
    """The stage after ``step``.

    Raises:
        ConflictError: the step cannot be done at that stage.
    """
    if (stage, step) not in _AFTER:
        what, hint = _WHY_NOT[stage]
        raise ConflictError(f"{what}.", hint=hint)
    return _AFTER[stage, step]
