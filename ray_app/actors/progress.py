"""The progress actor: a cache in front of the ledger that stages report to and the driver reads."""

from __future__ import annotations

from typing import Any

import ray

from ray_app.actors.cluster import worker_settings
from ray_app.actors.metrics import export_metrics
from ray_app.db.progress import job_progress
from ray_app.progress import ProgressTracker
from ray_app.workspace import Workspace
from ray_app.writing import Receipt


class JobProgressActor:
    """A shim over ``ProgressTracker``. It begins from the ledger, so a restarted one loses only its rate."""

    def __init__(self, fingerprint: str, job_id: str) -> None:
        workspace = Workspace(worker_settings(fingerprint))
        try:
            job = job_progress(workspace.ledger, job_id)
        finally:
            workspace.close()
        self._tracker = ProgressTracker(job.total_records, job.processed_records)
        export_metrics()

    def record(self, receipt: dict[str, Any]) -> None:
        self._tracker.record(Receipt.from_row(receipt))

    def snapshot(self) -> dict[str, Any]:
        return self._tracker.snapshot()


def start_progress_actor(fingerprint: str, job_id: str) -> Any:
    """A handle to a new progress actor, which lives as long as this driver."""
    return (
        ray.remote(JobProgressActor)
        .options(name=f"progress-{job_id}", num_cpus=0, max_restarts=-1, max_task_retries=-1)
        .remote(fingerprint, job_id)
    )
