"""When the console says that something is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ray_app.console.alerts import STALL, Alert, Budget, Observations, Severity, evaluate
from ray_app.db.operators import JobMark, LetterCount
from ray_app.reports import JobState

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def fired(**seen: object) -> dict[str, tuple[str, ...]]:
    alerts = evaluate(Observations(NOW, **seen))  # type: ignore[arg-type]
    return {alert.name: alert.details for alert in alerts if alert.firing}


def mark(
    state: JobState = JobState.RUNNING,
    *,
    driven: bool = True,
    quiet: timedelta = timedelta(0),
    ended: timedelta | None = None,
) -> JobMark:
    finished = None if ended is None else NOW - ended
    return JobMark("job-1", "acme", state, driven, NOW - quiet, finished)


def test_nothing_fires_where_all_is_well() -> None:
    assert fired(jobs=[mark()], dead_letters=[LetterCount("acme", 5, 0)]) == {}


@pytest.mark.parametrize(
    ("job", "fires"),
    [
        (mark(quiet=STALL), False),
        (mark(quiet=STALL + timedelta(seconds=1)), True),
        (mark(driven=False), True),
        (mark(JobState.PENDING, driven=False), True),
        (mark(JobState.FAILED, driven=False, quiet=2 * STALL, ended=STALL), False),
    ],
)
def test_a_job_stalls_without_a_driver_or_without_progress(job: JobMark, fires: bool) -> None:
    assert ("RowbeamJobStalled" in fired(jobs=[job])) == fires


def test_a_failed_job_is_named_with_its_tenant() -> None:
    failed = mark(JobState.FAILED, driven=False, ended=timedelta(hours=2))
    assert fired(jobs=[failed]) == {
        "RowbeamJobFailed": ("acme: job job-1 stopped 2 h ago; resume it to go on.",)
    }


@pytest.mark.parametrize(
    ("spent", "name"),
    [
        ("7.99", None),
        ("8", "RowbeamBudgetNearlySpent"),
        ("9.99", "RowbeamBudgetNearlySpent"),
        ("10", "RowbeamBudgetSpent"),
        ("50", "RowbeamBudgetSpent"),
    ],
)
def test_a_budget_is_told_of_at_80_and_at_100_percent(spent: str, name: str | None) -> None:
    budgets = [Budget("acme", Decimal(10), Decimal(spent))]
    assert list(fired(budgets=budgets)) == ([name] if name else [])


def test_a_budget_of_nothing_is_spent() -> None:
    assert list(fired(budgets=[Budget("acme", Decimal(0), Decimal(0))])) == ["RowbeamBudgetSpent"]


def test_new_dead_letters_fire_and_old_ones_do_not() -> None:
    letters = [LetterCount("acme", 5, 2), LetterCount("globex", 9, 0)]
    assert fired(dead_letters=letters) == {"RowbeamDeadLettersGrowing": ("acme: 2 new, 5 open.",)}


def test_providers_and_the_store_are_named() -> None:
    seen = fired(providers_down=["gateway"], store_down=True)
    assert seen["RowbeamProviderDown"] == ("gateway is not asked at the moment.",)
    assert "RowbeamStoreDown" in seen


def test_what_fires_comes_first_and_the_graver_before_the_others() -> None:
    letters = [LetterCount("acme", 1, 1)]
    alerts = evaluate(Observations(NOW, [mark(driven=False)], letters))
    order = [(alert.firing, alert.severity) for alert in alerts]
    assert order[:2] == [(True, Severity.CRITICAL), (True, Severity.WARNING)]
    assert not any(firing for firing, _ in order[2:])
    assert len({alert.name for alert in alerts}) == len(alerts)
    assert all(isinstance(alert, Alert) for alert in alerts)
