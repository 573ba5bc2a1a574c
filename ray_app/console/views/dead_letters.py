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
    totals: Counter[str] = Counter()
    for entry in counts:
        totals[entry.tenant] += entry.total
    shown = [(name, total) for name, total in totals.most_common() if name in letters]
    return LettersView(
        tuple(_tenant(name, total, letters[name], now) for name, total in shown),
        wanted,
        0 if wanted else len(totals) - len(shown),
    )


def _tenant(name: str, total: int, letters: Sequence[DeadLetter], now: datetime) -> TenantLetters:
    reasons = Counter(letter.error_class for letter in letters)
    return TenantLetters(
        name,
        count(total),
        tuple((reason, count(number)) for reason, number in reasons.most_common()),
        tuple(
            LetterLine(
                *(letter.table, letter.vector_type, letter.record_id, letter.stage),
                *(f"{letter.error_class}: {letter.message}", letter.attempts),
                *(age(letter.first_at, now), age(letter.last_at, now)),
            )
            for letter in letters
        ),
        total > len(letters),
    )
