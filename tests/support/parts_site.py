"""Rows to points without Ray: the stages of a job called one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import func, select, text

from ray_app.backfilling import create_backfill, ensure_indexes
from ray_app.db import ranges
from ray_app.db.indexes import list_indexes
from ray_app.db.jobs import TakenJob, finish_job, take_job
from ray_app.db.progress import job_progress
from ray_app.db.ranges import RangeSpec
from ray_app.db.schema import usage
from ray_app.encoding import encode_part
from ray_app.onboarding import count_points
from ray_app.parts import Part
from ray_app.prescan import settle_unchanged
from ray_app.reading import RangeReader
from ray_app.reports import Counts, JobState
from ray_app.reuse import TextReuse
from ray_app.searching import search
from ray_app.spaces import VectorType
from ray_app.store.edge import EdgeStore
from ray_app.store.port import Condition
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace
from ray_app.writing import PartWriter

TABLE = "pull_requests"


@dataclass
class Site:
    """A tenant with rows, and the stages called one after the other."""

    workspace: Workspace
    store: EdgeStore
    tenant: Tenant
    #: What the stages of one job share.
    reuse: TextReuse | None = None

    def sql(self, statement: str, **values: object) -> None:
        with self.workspace.ledger.begin() as connection:
            connection.execute(text(statement), values)

    def insert(self, *rows: tuple[int, str | None], client: int = 1) -> None:
        for key, title in rows:
            self.sql(
                "INSERT INTO pull_requests (id, client_id, title, status)"
                " VALUES (:key, :client, :title, 'open')",
                key=key,
                client=client,
                title=title,
            )

    def reader(self) -> RangeReader:
        pinned = list_indexes(self.workspace.ledger, self.tenant.incarnation)
        index = self.workspace.reader(self.tenant, pinned[TABLE, VectorType.CONTENT])
        return RangeReader(index, self.workspace.source, self.workspace.ledger, outage_budget=0)

    def start(self) -> TakenJob:
        job_id = create_backfill(self.workspace, self.tenant, tables=[TABLE])
        pinned = list_indexes(self.workspace.ledger, self.tenant.incarnation).values()
        ensure_indexes(self.workspace, self.store, self.tenant, pinned)
        return take_job(self.workspace.ledger, job_id)

    def parts(self, job: TakenJob) -> Iterator[Part]:
        reader = self.reader()
        for item in ranges.pending(self.workspace.ledger, job.job_id):
            yield from reader.read(job.job_id, job.run, item)

    def write(self, part: Part) -> bool:
        space = list_indexes(self.workspace.ledger, self.tenant.incarnation)[TABLE, VectorType.CONTENT].space
        scope = self.workspace.registry.scope(self.tenant)
        writer = PartWriter(scope, self.store, self.workspace.ledger, outage_budget=0)
        provider = self.workspace.providers.provider_for(space)
        return writer.write(encode_part(part, provider, self.reuse), space).counted

    def backfill(self) -> Counts:
        job = self.start()
        for part in self.parts(job):
            self.write(part)
        assert ranges.pending(self.workspace.ledger, job.job_id) == []
        finish_job(self.workspace.ledger, job, JobState.SUCCEEDED)
        counts = job_progress(self.workspace.ledger, job.job_id).counts
        assert counts.balanced
        points, rows = count_points(self.workspace, self.store, self.tenant)
        assert points == rows
        return counts

    def find(self, words: str, *, limit: int = 3, **columns: object) -> list[str]:
        """Records nearest to ``words`` whose payload columns have these values."""
        hits = search(
            self.workspace,
            self.store,
            self.tenant,
            TABLE,
            words,
            limit=limit,
            conditions=[Condition(name, "eq", value) for name, value in columns.items()],
            vector_type="content",
        )
        return [hit.record_id for hit in hits]

    def texts_billed(self) -> int:
        """Texts that the model was given so far."""
        with self.workspace.ledger.connect() as connection:
            return int(connection.scalar(select(func.sum(usage.c.texts))) or 0)

    def settle(self, job: TakenJob) -> list[RangeSpec]:
        """Prescan a job; the ranges that are left to the pipeline."""
        work = ranges.pending(self.workspace.ledger, job.job_id)
        settle_unchanged(self.reader(), self.workspace.ledger, job.job_id, work, time.monotonic() + 60)
        return ranges.pending(self.workspace.ledger, job.job_id)

    def prescan(self) -> tuple[TakenJob, list[RangeSpec]]:
        """A new job, and the ranges that its prescan leaves to the pipeline."""
        job = self.start()
        return job, self.settle(job)

    def prescan_counts(self) -> tuple[Counts, int]:
        """What the prescan of a new job settles, and how many ranges it leaves; the job is ended."""
        job, left = self.prescan()
        counts = job_progress(self.workspace.ledger, job.job_id).counts
        finish_job(self.workspace.ledger, job, JobState.FAILED, "Only its prescan was wanted.")
        return counts, len(left)
