"""The first page: the few figures that say whether anything needs attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from ray_app.console.alerts import Alert
from ray_app.console.formats import count
from ray_app.console.views.jobs import JobView
from ray_app.db.operators import LetterCount, Spent
from ray_app.reports import Check
from ray_app.wording import money


@dataclass(frozen=True)
class Tile:
    """One figure, and the page that says more."""

    name: str
    value: str
    page: str
    tone: str = ""


@dataclass(frozen=True)
class OverviewView:
    tiles: tuple[Tile, ...]
    firing: tuple[Alert, ...]
    jobs: tuple[JobView, ...]
    #: Checks of the set-up that are not well.
    failed_checks: tuple[Check, ...]


def overview_view(
    *,
    tenants: int,
    jobs: Sequence[JobView],
    letters: Sequence[LetterCount],
    spent: Sequence[Spent],
    alerts: Sequence[Alert],
    checks: Sequence[Check],
) -> OverviewView:
    """``jobs`` are those that have not ended, ``spent`` is this month's."""
    firing = tuple(alert for alert in alerts if alert.firing)
    failed = tuple(check for check in checks if not check.ok)
    dead = sum(entry.total for entry in letters)
    return OverviewView(
        (
            Tile("Alerts firing", count(len(firing)), "alerts", "bad" if firing else "good"),
            Tile("Jobs", count(len(jobs)), "jobs", "busy" if jobs else ""),
            Tile("Dead letters", count(dead), "dead-letters", "warn" if dead else "good"),
            Tile("Tenants", count(tenants), "tenants"),
            Tile("Tokens this month", count(sum(entry.tokens for entry in spent)), "providers"),
            Tile("Cost this month", money(sum((each.cost for each in spent), Decimal(0))), "providers"),
            Tile(
                "Checks passed",
                f"{len(checks) - len(failed)} of {len(checks)}",
                "setup",
                "bad" if failed else "good",
            ),
        ),
        firing,
        tuple(jobs),
        failed,
    )
