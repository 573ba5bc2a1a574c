"""The conditions of the Prometheus rules, told from what the ledger and this router know now.

Names and limits are those of ``monitoring/prometheus/rowbeam.rules.yml``. Prometheus sees trends and wakes
somebody; this says what is wrong at the moment, with the names of tenants, which no metric has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from ray_app.console.formats import age, count, percent
from ray_app.db.operators import JobMark, LetterCount
from ray_app.wording import money

#: A running job that has finished no range for this long counts as stalled.
STALL: Final = timedelta(minutes=15)
#: Dead letters of a table, and the time within which so many new ones are worth a warning.
LETTERS: Final = 10
RECENT: Final = timedelta(minutes=30)
#: Share of a monthly budget that is worth a warning.
BUDGET_WARNING: Final = Decimal("0.8")
#: The provider that has a breaker of its own.
_GATEWAY: Final = "gateway"


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True)
class Budget:
    """A tenant's monthly budget and what is spent of it, in US dollars."""

    tenant: str
    limit: Decimal
    spent: Decimal

    @property
    def share(self) -> Decimal:
        """1 for a budget of nothing: it is spent from the start."""
        return self.spent / self.limit if self.limit else Decimal(1)


@dataclass(frozen=True)
class Observations:
    """What the conditions are told from, at ``now``."""

    now: datetime
    jobs: Sequence[JobMark] = ()
    dead_letters: Sequence[LetterCount] = ()
    budgets: Sequence[Budget] = ()
    #: Names of the providers that cannot serve: their circuit is open, or they do not answer.
    providers_down: Sequence[str] = ()
    store_down: bool = False


@dataclass(frozen=True)
class Alert:
    """One condition: it fires when there are any ``details``."""

    name: str
    severity: Severity
    #: When it fires.
    condition: str
    details: tuple[str, ...]

    @property
    def firing(self) -> bool:
        return bool(self.details)


def evaluate(seen: Observations) -> list[Alert]:
    """Every condition, those that fire first, the graver ones before the others."""
    down = seen.providers_down
    alerts = [
        Alert(
            "RowbeamDependencyDown",
            Severity.CRITICAL,
            "The vector store does not answer.",
            ("store: searches and writes fail until it does.",) if seen.store_down else (),
        ),
        Alert(
            "RowbeamBreakerOpen",
            Severity.CRITICAL,
            "The gateway's breaker is open, or it does not answer.",
            ("gateway: it is not asked at the moment.",) if _GATEWAY in down else (),
        ),
        Alert(
            "RowbeamProviderDown",
            Severity.WARNING,
            "A local provider does not answer.",
            tuple(f"{name}: it is not asked at the moment." for name in down if name != _GATEWAY),
        ),
        *_of_jobs(seen),
        Alert(
            "RowbeamDeadLettersGrowing",
            Severity.WARNING,
            f"{LETTERS} or more records of a table became dead letters in {_minutes(RECENT)} minutes.",
            tuple(_growing(seen.dead_letters)),
        ),
        *_of_budgets(seen),
    ]
    return sorted(alerts, key=lambda alert: (not alert.firing, alert.severity is not Severity.CRITICAL))


def _of_jobs(seen: Observations) -> list[Alert]:
    active = [mark for mark in seen.jobs if mark.state.active]
    return [
        Alert(
            "RowbeamJobStalled",
            Severity.WARNING,
            f"A running job has written nothing for {_minutes(STALL)} minutes.",
            tuple(
                f"{mark.tenant}: job {mark.job_id} moved last {age(mark.moved_at, seen.now)}."
                for mark in active
                if mark.driven and seen.now - mark.moved_at > STALL
            ),
        ),
        Alert(
            "RowbeamJobInterrupted",
            Severity.WARNING,
            "A job's driver is gone and nobody has resumed the job.",
            tuple(
                f"{mark.tenant}: job {mark.job_id} moved last {age(mark.moved_at, seen.now)}."
                for mark in active
                if not mark.driven
            ),
        ),
    ]


def _of_budgets(seen: Observations) -> list[Alert]:
    return [
        Alert(
            "RowbeamBudgetSpent",
            Severity.CRITICAL,
            "A tenant's gateway budget of the month is spent: the gateway is closed to it.",
            tuple(_budget(budget) for budget in seen.budgets if budget.share >= 1),
        ),
        Alert(
            "RowbeamBudgetAlmostSpent",
            Severity.WARNING,
            "A tenant has spent 80 % of its gateway budget of the month.",
            tuple(_budget(budget) for budget in seen.budgets if BUDGET_WARNING <= budget.share < 1),
        ),
    ]


def _growing(letters: Sequence[LetterCount]) -> Iterator[str]:
    for table in sorted({entry.table for entry in letters}):
        new = [entry for entry in letters if entry.table == table and entry.recent]
        if sum(entry.recent for entry in new) >= LETTERS:
            whose = ", ".join(f"{count(entry.recent)} of {entry.tenant}" for entry in new)
            yield f"{table}: {whose}."


def _budget(budget: Budget) -> str:
    spent = f"{money(budget.spent)} of {money(budget.limit)}"
    return f"{budget.tenant}: {spent} ({percent(float(budget.share))})."


def _minutes(length: timedelta) -> int:
    return length // timedelta(minutes=1)
