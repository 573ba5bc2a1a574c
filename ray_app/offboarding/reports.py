"""What a removal comes to: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from ray_app.tenants import Placement


class Stage(StrEnum):
    #: No round has found nothing yet.
    ERASING = "erasing"
    #: A round found nothing; another one is due when the retention is over.
    FIRST_ROUND = "first_round"
    #: That one found nothing either.
    FINAL = "final"


@dataclass(frozen=True)
class Round:
    """One look for anything of a tenant, after which what was found was erased."""

    at: datetime
    #: Its points that the store counted, by placement and space id: every space that was looked in.
    points: Mapping[str, Mapping[str, int]]
    #: Points beside them without a tenant's name that are nobody else's by the ledger.
    nameless: int
    #: Ledger rows by table: every table that was looked in.
    rows: Mapping[str, int]
    #: Whether nothing was left of it, counted afterwards. False too where the round was cut off.
    erased: bool = False

    @property
    def points_found(self) -> int:
        return sum(sum(spaces.values()) for spaces in self.points.values()) + self.nameless

    @property
    def rows_found(self) -> int:
        return sum(self.rows.values())

    @property
    def clean(self) -> bool:
        return self.points_found == self.rows_found == 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "at": self.at.isoformat()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Round:
        return cls(**{**value, "at": datetime.fromisoformat(value["at"])})


@dataclass(frozen=True)
class Erased:
    """What rounds erased: points by placement and space id, nameless ones, and ledger rows by table."""

    points: Mapping[str, Mapping[str, int]]
    nameless: int
    rows: Mapping[str, int]

    @classmethod
    def by(cls, rounds: Sequence[Round]) -> Erased:
        """Added up; of a round that was cut off, what the next one did not find any more."""
        points: dict[str, dict[str, int]] = {}
        rows: dict[str, int] = {}
        nameless = 0
        for number, this in enumerate(rounds):
            after = rounds[number + 1] if number + 1 < len(rounds) else this
            for placement, spaces in this.points.items():
                sums = points.setdefault(placement, {})
                left = {} if this.erased else after.points.get(placement, {})
                for space, found in spaces.items():
                    sums[space] = sums.get(space, 0) + max(0, found - left.get(space, 0))
            for table, found in this.rows.items():
                left_rows = 0 if this.erased else after.rows.get(table, 0)
                rows[table] = rows.get(table, 0) + max(0, found - left_rows)
            nameless += max(0, this.nameless - (0 if this.erased else after.nameless))
        return cls(points, nameless, rows)

    @property
    def points_total(self) -> int:
        return sum(sum(spaces.values()) for spaces in self.points.values()) + self.nameless

    @property
    def rows_total(self) -> int:
        return sum(self.rows.values())


@dataclass(frozen=True)
class Erasure:
    """A removal as it stands. It names neither the tenant nor its client."""

    incarnation: UUID
    #: Where points of the tenant may have been.
    placements: tuple[Placement, ...]
    rounds: tuple[Round, ...]
    requested_at: datetime
    #: When a round last found nothing.
    clean_at: datetime | None
    #: When the next round is due; of no meaning once it is final.
    due_at: datetime
    final_at: datetime | None
    #: The signed record as last made (``records.SigningKey.sign``); None before a round has found nothing.
    record: Mapping[str, Any] | None

    @property
    def stage(self) -> Stage:
        if self.final_at is not None:
            return Stage.FINAL
        return Stage.ERASING if self.clean_at is None else Stage.FIRST_ROUND

    @property
    def erased(self) -> Erased:
        return Erased.by(self.rounds)


@dataclass(frozen=True)
class ErasureReport:
    """What removing a tenant erased, and the proof: what the last round found, which is nothing."""

    name: str
    incarnation: str
    points_erased: int
    ledger_rows_erased: int
    points_left: int
    ledger_rows_left: int
    #: When the second round is due, after which the record is final; None while something is left.
    second_round_at: datetime | None = None
    #: The signed record (``records.SigningKey.sign``).
    record: Mapping[str, Any] | None = None

    @property
    def proven(self) -> bool:
        return self.points_left == 0 and self.ledger_rows_left == 0
