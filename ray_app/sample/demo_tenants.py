"""The demo's two tenants, what it searches for, and the record that only one of them has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ray_app.sample.companies import COMPANIES, load_company
from ray_app.sample.demo_data import demo_tables
from ray_app.sample.git_history import read_history

#: Ids of the second tenant start here: an id then says whose row it is.
SECOND_TENANT_IDS: Final = 1_000_001
#: Ids of commits, beside the first tenant's own pull requests.
COMMIT_IDS: Final = 500_001
#: A text that only the second tenant has.
CANARY: Final = {
    "id": 2_000_001,
    "repository": "brightquay/edge-cases",
    "title": "Seal 7731-heliotrope on the midnight ferry",
    "description": "The beacon under dock nine answers to heliotrope only; nobody else knows it.",
    "status": "open",
}
#: (tenant's place, table, question): what the demo searches for.
QUESTIONS: Final = (
    (0, "issues", "customers are charged twice when a request is retried"),
    (0, "pull_requests", "stop holding a database transaction open during a network call"),
    (1, "issues", "drivers cannot finish their route when the map is stale"),
)


@dataclass(frozen=True)
class DemoTenant:
    """A tenant's name and rows by table."""

    name: str
    rows: Mapping[str, list[dict[str, Any]]]

    def owns(self, table: str, record_id: str) -> bool:
        return any(str(row["id"]) == record_id for row in self.rows[table])


def demo_tenants(repo: Path | None) -> tuple[tuple[DemoTenant, DemoTenant], str | None]:
    """Both companies with their rows, and what there is to say about the commits of ``repo``.

    The first gets the commits, the second the canary. Raises InputError when ``repo`` is no folder.
    """
    first, second = (load_company(name) for name in COMPANIES)
    ours, theirs = demo_tables(first), demo_tables(second, first_id=SECOND_TENANT_IDS)
    theirs["pull_requests"].append(dict(CANARY))
    note = None
    if repo is not None:
        history = read_history(repo, first_id=COMMIT_IDS)
        ours["pull_requests"] += history.rows
        note = history.note or f"Read {len(history.rows):,} commits of {repo.resolve().name}."
    return (DemoTenant(first.tenant, ours), DemoTenant(second.tenant, theirs)), note
