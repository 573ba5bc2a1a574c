"""What a change of model answers: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ray_app.migrating.states import Stage
from ray_app.reports import JobProgress


@dataclass(frozen=True)
class Verification:
    """How a generation compares with its table, and with the generation it is to replace."""

    #: Active rows of the tenant, and those of them without text for this vector type.
    rows: int
    no_text: int
    #: Open dead letters in the new space.
    dead: int
    #: Records and points by the ledger, and points by the store.
    records: int
    ledger_points: int
    stored_points: int
    #: Records that still differed from their rows after they had been brought up to date again and again.
    differing: int
    #: Records whose own text was searched for, and those found by it.
    sampled: int
    retrieved: int
    #: Share of the ten nearest records that both generations name, over the sample. None where the former
    #: model is not served any more, or nothing was sampled.
    overlap: float | None

    def problems(self, allow_dead: int) -> list[str]:
        """Why this generation must not take over; nothing when it may."""
        found = []
        if self.differing:
            found.append(f"{self.differing} records do not agree with their rows")
        if self.ledger_points != self.stored_points:
            found.append(f"the ledger has {self.ledger_points} points and the store {self.stored_points}")
        if self.dead > allow_dead:
            found.append(f"{self.dead} records could not be embedded, and {allow_dead} are allowed")
        if self.retrieved < self.sampled * LEAST_RETRIEVED:
            found.append(f"{self.retrieved} of {self.sampled} sampled records are found by their own text")
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Verification | None:
        return None if value is None else cls(**value)


#: Share of the sample that its own text must find. A text that is cut into chunks is looked for by its first,
#: and a model may put a few of many alike before it.
LEAST_RETRIEVED = 0.9


@dataclass(frozen=True)
class MigrationStatus:
    """The second generation of one index."""

    table: str
    vector_type: str
    stage: Stage
    #: What is searched now.
    model: str
    space_id: str
    #: The generation beside it.
    other_model: str
    other_space_id: str
    #: The job that last wrote to it.
    job: JobProgress | None
    #: Records that it has yet to follow.
    behind: int
    verification: Verification | None
    switched_at: datetime | None
    keep_until: datetime | None


@dataclass(frozen=True)
class Migrated:
    """What came of a change of model, or of the way back."""

    table: str
    #: False when the job that builds it did not succeed; the former index goes on, and so can the command.
    switched: bool
    job: JobProgress
    indexes: tuple[MigrationStatus, ...]
    #: Seconds for which writes of these indexes were held up by the switch; searches never are.
    writes_waited: float | None = None
