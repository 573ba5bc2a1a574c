"""Jobs of a change of model driven in this process, without Ray, with a say between their parts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

from ray_app.backfilling import ensure_indexes
from ray_app.db import ranges
from ray_app.db.generations import indexes_of_job
from ray_app.db.jobs import finish_job, take_job
from ray_app.db.progress import job_progress
from ray_app.encoding import encode_part
from ray_app.errors import RowbeamError
from ray_app.migrating.operations import Migrations
from ray_app.reading import RangeReader
from ray_app.reports import JobProgress, JobState
from ray_app.store.port import VectorStore
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace
from ray_app.writing import PartWriter


class Killed(BaseException):
    """Stands for a driver's sudden end: nothing tells the ledger."""


@dataclass
class InlineJobs:
    """A ``JobRunner`` over stages called one after the other."""

    store: VectorStore
    #: Called before each part is written.
    between: Callable[[], None] = lambda: None
    #: Called when a job has succeeded.
    after: Callable[[], None] = lambda: None
    #: Jobs that were driven.
    seen: list[str] = field(default_factory=list)

    def __call__(
        self,
        workspace: Workspace,
        tenant: Tenant,
        job_id: str,
        on_progress: Callable[[JobProgress], None] | None,
        *,
        new: bool,
    ) -> JobProgress:
        self.seen.append(job_id)
        job = take_job(workspace.ledger, job_id, new=new)
        try:
            self._drive(workspace, tenant, job_id, job.run)
        except RowbeamError as error:
            finish_job(workspace.ledger, job, JobState.FAILED, str(error))
            return job_progress(workspace.ledger, job_id)
        finish_job(workspace.ledger, job, JobState.SUCCEEDED)
        self.after()
        progress = job_progress(workspace.ledger, job_id)
        if on_progress is not None:
            on_progress(progress)
        return progress

    def _drive(self, workspace: Workspace, tenant: Tenant, job_id: str, run: int) -> None:
        indexes = indexes_of_job(workspace.ledger, job_id, tenant.incarnation)
        work = ranges.pending(workspace.ledger, job_id)
        wanted = {(item.table, item.vector_type) for item in work}
        own = {where: index for where, index in indexes.items() if where in wanted}
        ensure_indexes(workspace, self.store, tenant, own.values())
        writer = PartWriter(workspace.registry.scope(tenant), self.store, workspace.ledger, outage_budget=0)
        for item in work:
            index = own[item.table, item.vector_type]
            reader = RangeReader(
                workspace.reader(tenant, index), workspace.source, workspace.ledger, outage_budget=0
            )
            provider = workspace.providers.provider_for(index.space)
            for part in reader.read(job_id, run, item):
                self.between()
                writer.write(encode_part(part, provider), index.space)


def inline_migrations(workspace: Workspace, store: VectorStore, jobs: InlineJobs) -> Migrations:
    """Migrations whose jobs run here, and that need not wait for searches of other processes."""
    return Migrations(workspace, lambda: nullcontext(store), jobs, grace=0.0)
