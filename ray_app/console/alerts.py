"""The conditions of the Prometheus rules, told from what the ledger and this router know now.

Prometheus sees trends and pages somebody; this says what is wrong at the moment, with names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from ray_app.console.formats import age, count, percent
from ray_app.db.operators import JobMark, LetterCount
from ray_app.wording import money

#: Without a finished range for this long a job that has a driver counts as stalled.
STALL: Final = timedelta(minutes=10)
#: Dead letters newer than this make them grow; jobs that failed longer ago are history.
RECENT: Final = timedelta(hours=1)
FAILED_LATELY: Final = timedelta(hours=24)
#: Share of a monthly budget that is worth a warning.
BUDGET_WARNING: Final = Decimal("0.8")


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
    alerts = [
        Alert(
            "RowbeamStoreDown",
            Severity.CRITICAL,
            "The vector store does not answer.",
            ("Searches and writes fail until it does.",) if seen.store_down else (),
        ),
        Alert(
            "RowbeamProviderDown",
            Severity.CRITICAL,
            "A provider is down or its circuit is open.",
            tuple(f"{name} is not asked at the moment." for name in seen.providers_down),
        ),
        Alert(
            "RowbeamJobStalled",
            Severity.CRITICAL,
            f"An active job has no driver, or finished nothing for {STALL.seconds // 60} minutes.",
            tuple(_stalled(mark, seen.now) for mark in seen.jobs if _is_stalled(mark, seen.now)),
        ),
        Alert(
            "RowbeamBudgetSpent",
            Severity.CRITICAL,
            "A tenant's budget of the month is spent: the gateway refuses it.",
            tuple(_budget(budget) for budget in seen.budgets if budget.share >= 1),
        ),
        Alert(
            "RowbeamBudgetNearlySpent",
            Severity.WARNING,
            "A tenant has spent 80 % of its budget of the month.",
            tuple(_budget(budget) for budget in seen.budgets if BUDGET_WARNING <= budget.share < 1),
        ),
        Alert(
            "RowbeamJobFailed",
            Severity.WARNING,
            f"A job failed in the last {FAILED_LATELY // timedelta(hours=1)} hours and was not resumed.",
            tuple(_failed(mark, seen.now) for mark in seen.jobs if not mark.state.active),
        ),
        Alert(
            "RowbeamDeadLettersGrowing",
            Severity.WARNING,
            "Records became dead letters within the last hour.",
            tuple(_letters(letters) for letters in seen.dead_letters if letters.recent),
        ),
    ]
    return sorted(alerts, key=lambda alert: (not alert.firing, alert.severity is not Severity.CRITICAL))


def _is_stalled(mark: JobMark, now: datetime) -> bool:
    return mark.state.active and (not mark.driven or now - mark.moved_at > STALL)


def _stalled(mark: JobMark, now: datetime) -> str:
    why = "moved last" if mark.driven else "has no driver; it moved last"
    return f"{mark.tenant}: job {mark.job_id} {why} {age(mark.moved_at, now)}."


def _failed(mark: JobMark, now: datetime) -> str:
    return f"{mark.tenant}: job {mark.job_id} stopped {age(mark.finished_at, now)}; resume it to go on."


def _budget(budget: Budget) -> str:
    spent = f"{money(budget.spent)} of {money(budget.limit)}"
    return f"{budget.tenant}: {spent} ({percent(float(budget.share))})."


def _letters(letters: LetterCount) -> str:
    return f"{letters.tenant}: {count(letters.recent)} new, {count(letters.total)} open."
