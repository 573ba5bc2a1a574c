"""Rows for the demo: two invented companies whose projects, repositories, issues and reviews fit together.

Everything follows from a seed, so two runs load the same rows and the second embeds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID

from ray_app.sample.companies import Area, Company
from ray_app.sample.grammar import Grammar, capitalised

Row = dict[str, Any]

#: Rows of one company; projects and repositories follow from its theme.
USERS: Final = 60
ISSUES: Final = 400
PULL_REQUESTS: Final = 400
COMMENTS: Final = 600
REVIEWS: Final = 250

_LATEST: Final = datetime(2026, 11, 1, 12, tzinfo=UTC)
_DAYS: Final = 500
_LANGUAGES: Final = ("Kotlin", "Python", "Go", "TypeScript", "Rust", "Java")
#: Issue type -> the rules of its summary and of its description's sentences.
_ISSUE_KINDS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "Bug": ("bug_summary", ("bug_body", "impact", "evidence", "suspicion")),
    "Incident": ("incident_summary", ("bug_body", "timeline", "impact", "suspicion")),
    "Story": ("story_summary", ("reason", "impact", "goal")),
    "Task": ("task_summary", ("reason", "evidence", "goal")),
}
_STATUSES: Final = ("To do", "In progress", "In review", "Blocked", "Done", "Done", "Done")
_PRIORITIES: Final = ("Highest", "High", "Medium", "Medium", "Low")
_LABELS: Final = (
    "backend",
    "customer-facing",
    "flaky",
    "latency",
    "migration",
    "on-call",
    "security",
    "tech-debt",
)


@dataclass(frozen=True)
class _Place:
    """Where a row of work belongs."""

    area: Area
    service: str
    repository: str


def demo_tables(company: Company, *, seed: int = 1, first_id: int = 1) -> dict[str, list[Row]]:
    """Rows for the seven vector-enabled tables, by table name, in an order that refers only backwards.

    Integer ids count from ``first_id``, so that two tenants can be given ids that never meet.
    About 1 row in 50 is inactive and 1 review in 4 has no text, as in real tables.
    """
    return _Author(company, seed, first_id).tables()


class _Author:
    """Draws the rows of one company. Each method draws one row, so their order decides the texts."""

    def __init__(self, company: Company, seed: int, first_id: int) -> None:
        self._company = company
        self._first = first_id
        # Seeded by text: hash() of a text differs between processes, this does not.
        self._random = Random(f"{company.tenant}/{seed}")  # noqa: S311 - sample data, no secret
        self._grammar = Grammar(company.rules, self._random)
        self._places = [
            _Place(area, service, f"{company.tenant}/{service}")
            for area in company.areas
            for service in area.services
        ]
        self._users = [self._user(number) for number in range(USERS)]

    def tables(self) -> dict[str, list[Row]]:
        places = [self._random.choice(self._places) for _ in range(ISSUES)]
        issues = [self._issue(number, place) for number, place in enumerate(places)]
        # Every pull request is about an issue; its place and its words follow from it.
        about = [self._random.randrange(ISSUES) for _ in range(PULL_REQUESTS)]
        pulls = [self._pull_request(number, issues[at], places[at]) for number, at in enumerate(about)]
        discussed = list(zip(pulls, (places[at] for at in about), strict=True))
        return {
            "users": self._users,
            "projects": [self._project(area) for area in self._company.areas],
            "repositories": [self._repository(number, place) for number, place in enumerate(self._places)],
            "issues": issues,
            "pull_requests": pulls,
            "pull_request_comments": [
                self._comment(number, *self._random.choice(discussed)) for number in range(COMMENTS)
            ],
            "pull_request_reviews": [self._review(*self._random.choice(discussed)) for _ in range(REVIEWS)],
        }

    def _user(self, number: int) -> Row:
        place = self._random.choice(self._places)
        first, last = self._grammar.text("first_name"), self._grammar.text("last_name")
        other = self._random.choice([area for area in self._company.areas if area is not place.area])
        words = {**self._words(place), "other_service": self._random.choice(other.services)}
        return {
            **self._common(number),
            "login": f"{first}.{last}{number}".lower(),
            "name": f"{first} {last}",
            "title": self._grammar.text("job_title"),
            "description": self._grammar.sentences(("bio", "bio"), words),
            "team": self._grammar.text("team"),
            "status": "active",
        }

    def _project(self, area: Area) -> Row:
        return {
            **self._common(0),
            "id": area.key.lower(),
            "key": area.key,
            "name": area.name,
            "summary": f"{area.name} {area.purpose}.",
            "description": f"Services: {', '.join(area.services)}. Works on {_listed(area.entities)}.",
            "status": "live",
            "type": "software",
            "lead": self._person(),
        }

    def _repository(self, number: int, place: _Place) -> Row:
        words = self._words(place)
        return {
            **self._common(number),
            "project_id": place.area.key.lower(),
            "name": place.service,
            "full_name": place.repository,
            "summary": f"{place.service} of {place.area.name}, which {place.area.purpose}.",
            "description": self._grammar.sentences(("charter", "contract", "operations"), words),
            "language": self._random.choice(_LANGUAGES),
            "status": "maintained",
            "type": "service",
            "default_branch": "main",
        }

    def _issue(self, number: int, place: _Place) -> Row:
        words = self._words(place)
        kind = self._random.choice(tuple(_ISSUE_KINDS))
        summary, body = _ISSUE_KINDS[kind]
        status = self._random.choice(_STATUSES)
        common = self._common(number)
        return {
            **common,
            "key": f"{place.area.key}-{number + 100}",
            "project_id": place.area.key.lower(),
            "summary": capitalised(self._grammar.text(summary, words)),
            "description": self._grammar.sentences(body, words),
            "status": status,
            "priority": self._random.choice(_PRIORITIES),
            "type": kind,
            "labels": sorted(self._random.sample(_LABELS, self._random.randint(0, 3))),
            "assignee": self._person(),
            "reporter": self._person(),
            "story_points": self._random.choice((1, 2, 3, 5, 8)),
            "resolved_at": common["updated_at"] if status == "Done" else None,
        }

    def _pull_request(self, number: int, issue: Row, place: _Place) -> Row:
        words = self._words(place)
        title = capitalised(self._grammar.text("pr_title", words))
        status = self._random.choice(("open", "merged", "merged", "merged", "closed"))
        common = self._common(number)
        why = self._grammar.sentences(("pr_why", "pr_how", "pr_test"), words)
        return {
            **common,
            "repository": place.repository,
            "sha": f"{self._random.getrandbits(48):012x}",
            "author": self._person(),
            "title": f"{issue['key']}: {title}" if self._random.random() < 0.4 else title,
            "description": f"{why} Closes {issue['key']}." if self._random.random() < 0.9 else "",
            "status": status,
            "labels": issue["labels"][:1],
            "additions": self._random.randint(1, 900),
            "deletions": self._random.randint(0, 400),
            "merged_at": common["updated_at"] if status == "merged" else None,
        }

    def _comment(self, number: int, pull_request: Row, place: _Place) -> Row:
        rules = self._random.choice((("remark",), ("remark", "remark"), ("remark", "reply")))
        return {
            **self._common(number),
            "pull_request_id": pull_request["id"],
            "author": self._person(),
            "content": self._grammar.sentences(rules, self._words(place)),
            "path": f"src/{place.service.replace('-', '_')}/{self._grammar.text('noun_code')}.py",
            "line": self._random.randint(1, 400),
        }

    def _review(self, pull_request: Row, place: _Place) -> Row:
        state = self._random.choice(("approved", "approved", "changes_requested", "commented"))
        silent = state == "approved" and self._random.random() < 0.5
        words = self._words(place)
        return {
            **self._common(0),
            "id": str(UUID(int=self._random.getrandbits(128), version=4)),
            "pull_request_id": pull_request["id"],
            "author": self._person(),
            "state": state,
            "content": None if silent else self._grammar.sentences((f"verdict_{state}", "remark"), words),
        }

    def _common(self, number: int) -> Row:
        created = _LATEST - timedelta(minutes=self._random.randrange(_DAYS * 24 * 60))
        updated = min(_LATEST, created + timedelta(hours=self._random.randrange(1, 400)))
        return {
            "id": self._first + number,
            "active": self._random.random() >= 0.02,
            "created_at": created.isoformat(),
            "updated_at": updated.isoformat(),
        }

    def _words(self, place: _Place) -> dict[str, str]:
        """What a row's sentences have in common."""
        return {
            "service": place.service,
            "entity": self._random.choice(place.area.entities),
            "area": place.area.name,
            "actor": self._grammar.text("actor"),
            "wish": self._random.choice(place.area.wishes),
        }

    def _person(self) -> str:
        return str(self._random.choice(self._users)["login"])


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
