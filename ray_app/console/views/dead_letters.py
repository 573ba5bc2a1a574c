"""Records that could not be embedded, by tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ray_app.console.formats import age, count
from ray_app.db.operators import LetterCount
from ray_app.reports import DeadLetter

#: Letters shown of each tenant when all are, and of one.
FEW: Final = 20
MANY: Final = 500
#: Tenants shown at once.
TENANTS: Final = 20


@dataclass(frozen=True)
class LetterLine:
    table: str
    vector_type: str
    record_id: str
    stage: str
    reason: str
    attempts: int
    first: str
    last: str


@dataclass(frozen=True)
class TenantLetters:
    """One tenant's: how many, why, and the oldest of them."""

    tenant: str
    total: str
    #: Error class and how many of the shown have it, most first.
    reasons: tuple[tuple[str, str], ...]
    lines: tuple[LetterLine, ...]
    #: Whether there are more than are shown.
    more: bool


@dataclass(frozen=True)
class LettersView:
    tenants: tuple[TenantLetters, ...]
    #: The one tenant that was asked for, or "".
    wanted: str
    #: Tenants with letters that are not shown.
    left_out: int


def letters_view(
    counts: Sequence[LetterCount], letters: Mapping[str, Sequence[DeadLetter]], wanted: str, now: datetime
) -> LettersView:
    """``letters`` by tenant, the oldest first, for those that are shown."""
    shown = [entry for entry in counts if entry.tenant in letters]
    return LettersView(
        tuple(_tenant(entry, letters[entry.tenant], now) for entry in shown),
        wanted,
        0 if wanted else len(counts) - len(shown),
    )


def _tenant(entry: LetterCount, letters: Sequence[DeadLetter], now: datetime) -> TenantLetters:
    reasons = Counter(letter.error_class for letter in letters)
    return TenantLetters(
        entry.tenant,
        count(entry.total),
        tuple((name, count(number)) for name, number in reasons.most_common()),
        tuple(
            LetterLine(
                *(letter.table, letter.vector_type, letter.record_id, letter.stage),
                *(f"{letter.error_class}: {letter.message}", letter.attempts),
                *(age(letter.first_at, now), age(letter.last_at, now)),
            )
            for letter in letters
        ),
        entry.total > len(letters),
    )
