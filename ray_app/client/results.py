"""What became of the rows of an upsert, every one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_app.client.batching import Row
from ray_app.client.errors import BadAnswer
from ray_app.client.reading import read
from ray_app.errors import RowbeamError


@dataclass(frozen=True)
class IndexOutcome:
    """What became of a row in one index."""

    outcome: str
    #: Why it is dead.
    reason: str | None = None
    #: Pieces its text was embedded in.
    chunks: int = 0


@dataclass(frozen=True)
class RowOutcome:
    """A row that the server has taken: what it says is durable and, unless it is dead, searchable.

    Of several indexes' outcomes ``outcome`` is the most telling: dead first, then embedded.
    """

    #: Its place in what was given to ``upsert``, from 0.
    position: int
    #: As the table spells it.
    id: str
    #: ``embedded``, ``unchanged``, ``older``, ``no_text``, ``deleted`` or ``dead``.
    outcome: str
    #: Why it is dead. Sending it again as it is changes nothing.
    reason: str | None
    #: By vector type.
    indexes: Mapping[str, IndexOutcome]


@dataclass(frozen=True)
class FailedRow:
    """A row that was refused, or not sent, or of which it is not known whether the server has taken it."""

    #: Its place in what was given to ``upsert``, from 0.
    position: int
    #: Its key, where it has one.
    id: str | None
    error: RowbeamError


@dataclass
class UpsertResult:
    """Each row that was read is in ``taken`` or in ``failed``, and in one of them only."""

    table: str
    #: Rows read from what was given to ``upsert``.
    rows: int = 0
    taken: list[RowOutcome] = field(default_factory=list)
    failed: list[FailedRow] = field(default_factory=list)
    #: Tokens that were embedded.
    tokens: int = 0

    @property
    def counts(self) -> Counter[str]:
        """Rows by outcome, ``failed`` among them; they add up to ``rows``."""
        counts = Counter(row.outcome for row in self.taken)
        if self.failed:
            counts["failed"] = len(self.failed)
        return counts

    @property
    def dead(self) -> list[RowOutcome]:
        """Rows with a text that no model takes."""
        return [row for row in self.taken if row.outcome == "dead"]

    @property
    def complete(self) -> bool:
        """Whether the indexes now hold what every row says, or what a newer state of it says."""
        return not self.failed and not self.dead


@dataclass(frozen=True)
class _Record:
    id: str
    outcome: str
    vector_types: dict[str, IndexOutcome]
    reason: str | None = None


@dataclass(frozen=True)
class _Records:
    records: list[_Record]
    tokens: int


def add_answer(result: UpsertResult, sent: Sequence[Row], answer: Mapping[str, Any]) -> None:
    """Note what became of the rows of one request.

    Raises:
        BadAnswer: the answer does not account for every row.
    """
    found = read(_Records, answer)
    if len(found.records) != len(sent):
        raise BadAnswer(f"{len(sent)} rows were sent, and the answer is about {len(found.records)}.")
    result.taken.extend(
        RowOutcome(row.position, record.id, record.outcome, record.reason, record.vector_types)
        for row, record in zip(sent, found.records, strict=True)
    )
    result.tokens += found.tokens
