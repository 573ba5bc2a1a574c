"""The console with something to show: a real API, rows, and jobs that a test drives part by part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice

import httpx
from sqlalchemy import insert, text

from ray_app.backfilling import ensure_indexes
from ray_app.db import jobs, ranges
from ray_app.db.indexes import list_indexes
from ray_app.db.progress import job_progress
from ray_app.db.schema import dead_letters, usage
from ray_app.encoders.stub import POISON
from ray_app.encoding import encode_part
from ray_app.parts import Part
from ray_app.progress import ProgressTracker
from ray_app.reading import RangeReader
from ray_app.reports import JobState
from ray_app.spaces import EmbeddingSpace, Preference, VectorType
from ray_app.tenants import Tenant
from ray_app.writing import PartWriter
from tests.support.api_site import ADMIN_KEY, ApiSite

TABLE = "pull_requests"
_TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')


@dataclass
class Submissions:
    """A ``JobSubmitter`` that starts nothing and keeps what it was told."""

    submitted: list[str] = field(default_factory=list)

    async def submit(self, job_id: str, tenant: Tenant) -> None:
        assert tenant.name
        self.submitted.append(job_id)


def add_rows(site: ApiSite, tenant: str, count: int, *, first: int = 1, title: str = "change number") -> None:
    """Rows of ``TABLE`` with distinct titles."""
    with site.workspace.source.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO {TABLE} (id, client_id, title, status)"
                " SELECT n, :client, CAST(:title AS text) || ' ' || n, 'open'"
                " FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n"
            ),
            {
                "client": site.tenant(tenant).client_id,
                "title": title,
                "first": first,
                "last": first + count - 1,
            },
        )


def add_poison(site: ApiSite, tenant: str, key: int) -> None:
    """A row that the stub model refuses."""
    add_rows(site, tenant, 1, first=key, title=POISON)


def add_usage(site: ApiSite, tenant: str, day: object, cost: str, **values: object) -> None:
    row = {"provider": "gateway", "model": "m", "table_name": TABLE, "job_id": "", "texts": 10, "tokens": 500}
    with site.workspace.ledger.begin() as connection:
        connection.execute(
            insert(usage).values(
                {
                    **row,
                    "incarnation": site.tenant(tenant).incarnation,
                    "day": day,
                    "cost": Decimal(cost),
                    "seconds": 2.0,
                    **values,
                }
            )
        )


def add_dead_letter(site: ApiSite, tenant: str, record: str, message: str = "Odd.") -> None:
    with site.workspace.ledger.begin() as connection:
        connection.execute(
            insert(dead_letters).values(
                incarnation=site.tenant(tenant).incarnation,
                table_name=TABLE,
                vector_type="content",
                space_id=site.workspace.providers.spaces_for(Preference.FAST).space_id,
                record_id=record,
                content_hash="h",
                stage="embed",
                error_class="ItemError",
                message=message,
            )
        )


class SteppedJob:
    """A job whose driver is the test: real parts, written when the test says so."""

    def __init__(self, site: ApiSite, tenant: str, job_id: str) -> None:
        self._site = site
        self._ledger = site.workspace.ledger
        self._tenant = site.tenant(tenant)
        self._taken = jobs.take_job(self._ledger, job_id, new=True)
        self._indexes = list_indexes(self._ledger, self._tenant.incarnation)
        ensure_indexes(site.workspace, site.store, self._tenant, self._indexes.values())
        self._tracker = ProgressTracker(job_progress(self._ledger, job_id).total_records)
        self._parts = self._read()
        self.step(0)

    def step(self, parts: int = 1) -> JobState:
        """Write the next parts, and say that the driver lives; the state of the job."""
        scope = self._site.workspace.registry.scope(self._tenant)
        writer = PartWriter(scope, self._site.store, self._ledger, outage_budget=0)
        for part, space in islice(self._parts, parts):
            provider = self._site.workspace.providers.provider_for(space)
            self._tracker.record(writer.write(encode_part(part, provider, None), space))
        return jobs.heartbeat(self._ledger, self._taken, self._tracker.snapshot())

    def finish(self, state: JobState = JobState.SUCCEEDED, error: str | None = None) -> None:
        jobs.finish_job(self._ledger, self._taken, state, error)

    def run(self) -> None:
        """All that is left of it."""
        self.step(10_000)
        self.finish()

    def _read(self) -> Iterator[tuple[Part, EmbeddingSpace]]:
        workspace = self._site.workspace
        for item in ranges.pending(self._ledger, self._taken.job_id):
            index = self._indexes[item.table, VectorType(item.vector_type)]
            reader = RangeReader(
                workspace.reader(self._tenant, index), workspace.source, self._ledger, outage_budget=0
            )
            for part in reader.read(self._taken.job_id, self._taken.run, item):
                yield part, index.space


def token_in(page: httpx.Response) -> str:
    """The token of the page's forms."""
    found = _TOKEN.search(page.text)
    assert found is not None, page.text
    return found[1]


def log_in(http: httpx.Client, key: str = ADMIN_KEY, **fields: str) -> httpx.Response:
    """Fill in the login form, as a browser would; redirects are not followed."""
    form = http.get("/console/login")
    return http.post("/console/login", data={"token": token_in(form), "key": key, **fields})


def send(http: httpx.Client, path: str, **fields: object) -> httpx.Response:
    """Send a form of an operator's session."""
    return http.post(path, data={"token": token_in(http.get("/console/jobs")), **fields})
