"""The demo's end with ``--keep``: a job that goes on, for the console to show."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, Final

from ray_app.app import Rowbeam
from ray_app.cli.demo_story import Story
from ray_app.client import RowbeamClient
from ray_app.reports import NewTenant
from ray_app.sample.companies import COMPANIES, load_company
from ray_app.sample.demo_data import demo_tables
from ray_app.settings import Settings
from ray_app.stack.admin_key import admin_key_path, ensure_admin_key

#: Tables whose invented rows differ from one seed to the next.
_TABLES: Final = ("issues", "pull_requests", "pull_request_comments", "pull_request_reviews")
#: Each seed makes some 1,650 rows: all together keep two cores busy for a few minutes.
_SEEDS: Final = range(3, 39)
#: Ids that no other row of the demo has.
_FIRST_ID: Final = 5_000_001
_IDS: Final = 10_000


def leave_a_job(story: Story, rowbeam: Rowbeam, settings: Settings, url: str, tenant: NewTenant) -> None:
    """Load more rows for ``tenant``, whose company is the second, and start a backfill that goes on.

    Raises:
        RowbeamError: the rows cannot be loaded, or the job not be started.
    """
    story.step("Load more rows and start a job for the console to show")
    name, loaded = tenant.tenant.name, 0
    for table, rows in _more_rows().items():
        path = settings.home / "rows" / name / f"more-{table}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        loaded += rowbeam.load(path, tenant=name, table=table).inserted
    with RowbeamClient(url, tenant.api_key.text) as client:
        job = client.start_backfill()
    ensure_admin_key(settings)
    story.say(f"Loaded {loaded:,} rows for {name}; {job.job_id} embeds them in the background.")
    story.document["console"] = {
        "url": f"{url}/console",
        "admin_key_file": str(admin_key_path(settings)),
        "job": job.job_id,
    }


def _more_rows() -> dict[str, list[dict[str, Any]]]:
    company = load_company(COMPANIES[1])
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in _TABLES}
    for seed in _SEEDS:
        made = demo_tables(company, seed=seed, first_id=_FIRST_ID + seed * _IDS)
        for table in _TABLES:
            rows[table] += made[table]
    return rows


def how_to_look(console: dict[str, str], down: str) -> str:
    """What to open, how to get in, and how to stop it all."""
    key = shlex.quote(str(_short(Path(console["admin_key_file"]))))
    return f"""
The console is open at {console["url"]} and shows a running job. Log in with the admin key:
  cat {key}
Everything goes on running until:
  {down}"""


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
