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
    state: JobState = JobState.RUNNING, *, driven: bool = True, quiet: timedelta = timedelta(0)
) -> JobMark:
    return JobMark("job-1", "acme", state, driven, NOW - quiet)


def test_nothing_fires_where_all_is_well() -> None:
    assert fired(jobs=[mark()], dead_letters=[LetterCount("acme", "issues", 50, 0)]) == {}


@pytest.mark.parametrize(
    ("job", "names"),
    [
        (mark(quiet=STALL), []),
        (mark(quiet=STALL + timedelta(seconds=1)), ["RowbeamJobStalled"]),
        (mark(driven=False), ["RowbeamJobInterrupted"]),
        (mark(JobState.PENDING, driven=False, quiet=2 * STALL), ["RowbeamJobInterrupted"]),
    ],
)
def test_a_job_stalls_without_progress_and_is_interrupted_without_a_driver(
    job: JobMark, names: list[str]
) -> None:
    assert list(fired(jobs=[job])) == names


@pytest.mark.parametrize(
    ("spent", "name"),
    [
        ("7.99", None),
        ("8", "RowbeamBudgetAlmostSpent"),
        ("9.99", "RowbeamBudgetAlmostSpent"),
        ("10", "RowbeamBudgetSpent"),
        ("50", "RowbeamBudgetSpent"),
    ],
)
def test_a_budget_is_told_of_at_80_and_at_100_percent(spent: str, name: str | None) -> None:
    budgets = [Budget("acme", Decimal(10), Decimal(spent))]
    assert list(fired(budgets=budgets)) == ([name] if name else [])


def test_a_budget_of_nothing_is_spent() -> None:
    assert list(fired(budgets=[Budget("acme", Decimal(0), Decimal(0))])) == ["RowbeamBudgetSpent"]


@pytest.mark.parametrize(
    ("acme", "globex", "details"),
    [(4, 5, None), (4, 6, "issues: 4 of acme, 6 of globex."), (10, 0, "issues: 10 of acme.")],
)
def test_dead_letters_that_grow_are_told_by_table(acme: int, globex: int, details: str | None) -> None:
    letters = [
        LetterCount("acme", "issues", 100, acme),
        LetterCount("globex", "issues", 100, globex),
        LetterCount("acme", "users", 100, 9),
    ]
    assert fired(dead_letters=letters) == (
        {} if details is None else {"RowbeamDeadLettersGrowing": (details,)}
    )


def test_providers_and_the_store_are_named() -> None:
    seen = fired(providers_down=["gateway", "local-cpu"], store_down=True)
    assert seen["RowbeamBreakerOpen"] == ("gateway: it is not asked at the moment.",)
    assert seen["RowbeamProviderDown"] == ("local-cpu: it is not asked at the moment.",)
    assert "RowbeamDependencyDown" in seen


def test_what_fires_comes_first_and_the_graver_before_the_others() -> None:
    alerts = evaluate(Observations(NOW, [mark(driven=False)], store_down=True))
    order = [(alert.firing, alert.severity) for alert in alerts]
    assert order[:2] == [(True, Severity.CRITICAL), (True, Severity.WARNING)]
    assert not any(firing for firing, _ in order[2:])
    assert len({alert.name for alert in alerts}) == len(alerts)
    assert all(isinstance(alert, Alert) for alert in alerts)
