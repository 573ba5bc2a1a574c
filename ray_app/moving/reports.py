"""What a move of a tenant answers: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from ray_app.moving.states import Stage
from ray_app.tenants import Placement

#: Share of the sample that must be found in the target: a graph may miss a few that it should find.
LEAST_FOUND: Final = 0.9


@dataclass(frozen=True)
class PlaceVerification:
    """How the target compares with the place that it is to replace, and with the ledger."""

    #: Points of the tenant's indexes.
    points: int
    #: Records that still differed when they were compared under the locks of their writers, just made equal.
    differing: int
    #: Records of which the ledger says something else than the two places.
    unknown: int
    #: Points of the source under an id that is not their record's; they are not copied.
    misplaced: int
    #: Records searched for by their own vector in both places; those found in the source, of these those
    #: found in the target, and of these those that had another score there.
    sampled: int
    found: int
    found_there: int
    other_score: int

    def problems(self) -> list[str]:
        """Why the target must not take over; nothing when it may."""
        found = []
        if self.differing:
            found.append(f"{self.differing} records differ after they were copied again")
        if self.unknown:
            found.append(f"of {self.unknown} records the ledger says something else than the store")
        if self.misplaced:
            found.append(f"{self.misplaced} points have an id that is not their record's")
        if self.found_there < self.found * LEAST_FOUND:
            found.append(f"{self.found_there} of {self.found} sampled records are found by their own vector")
        if self.other_score:
            found.append(f"{self.other_score} sampled records have another score")
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> PlaceVerification | None:
        return None if value is None else cls(**value)


class Phase(StrEnum):
    """What a move is at."""

    COPYING = "copying"
    FOLLOWING = "following"
    VERIFYING = "verifying"
    SWITCHING = "switching"


@dataclass(frozen=True)
class MoveProgress:
    """How far the phase has come, in points of the tenant's indexes."""

    tenant: str
    phase: Phase
    done: int
    total: int


@dataclass(frozen=True)
class MovePlan:
    """What a move would do."""

    tenant: str
    source: Placement
    target: Placement
    indexes: int
    records: int
    points: int
    #: Of their vectors alone, in bytes.
    vector_bytes: int


@dataclass(frozen=True)
class MoveStatus:
    """Where a tenant's vectors are, and the place beside that, if there is one."""

    tenant: str
    placement: Placement
    other: Placement | None = None
    stage: Stage | None = None
    #: Points of the tenant's indexes when copying began, and those that were looked at since.
    total: int = 0
    done: int = 0
    #: Records that the other place has yet to follow.
    behind: int = 0
    verification: PlaceVerification | None = None
    switched_at: datetime | None = None
    keep_until: datetime | None = None


@dataclass(frozen=True)
class Moved:
    """What came of a move, or of the way back."""

    status: MoveStatus
    #: Points copied and points deleted in the place that took over.
    copied: int
    deleted: int
    #: Seconds for which the tenant's writes were held up by the switch; searches never are.
    writes_waited: float
