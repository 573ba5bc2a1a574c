"""Jobs as the console shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ray_app.console.formats import NOTHING, count, figure, moment, percent, span
from ray_app.reports import JobProgress, JobState
from ray_app.wording import duration, money

_TONES: Final = {
    JobState.SUCCEEDED: "good",
    JobState.FAILED: "bad",
    JobState.INTERRUPTED: "bad",
    JobState.CANCELLED: "warn",
    JobState.STOPPED_AT_BUDGET: "warn",
    JobState.CANCEL_REQUESTED: "warn",
}
#: Percent between two announcements to those who hear the page: each change would drown out the rest.
_ANNOUNCED: Final = 10


@dataclass(frozen=True)
class JobView:
    """One job. ``tone`` is ``good``, ``warn``, ``bad`` or ``busy``."""

    job_id: str
    tenant: str
    kind: str
    state: str
    tone: str
    active: bool
    tables: str
    vector_types: str
    #: Records, for a progress bar; ``total`` is at least ``done``, and at least 1.
    done: int
    total: int
    progress: str
    percent: str
    rate: str
    #: Time left, while it runs.
    left: str
    failed: int
    created: str
    started: str
    finished: str
    lasted: str
    outcome: str
    points: str
    batches: str
    tokens: str
    cost: str
    provider: str
    #: Latest faults, newest last.
    faults: tuple[str, ...]
    error: str | None
    can_cancel: bool
    can_resume: bool
    announcement: str


def job_view(job: JobProgress, now: datetime) -> JobView:
    """``job`` as it stands at ``now``."""
    total = max(job.total_records, job.processed_records, 1)
    share = job.processed_records / total if job.total_records else (0.0 if job.state.active else None)
    counts = job.counts
    return JobView(
        job_id=job.job_id,
        tenant=job.tenant,
        kind=job.kind,
        state=job.state.replace("_", " "),
        tone=_TONES.get(job.state, "busy"),
        active=job.state.active,
        tables=", ".join(job.tables),
        vector_types=", ".join(job.vector_types),
        done=job.processed_records,
        total=total,
        progress=f"{count(job.processed_records)} of {count(job.total_records)}",
        percent=percent(share),
        rate=f"{figure(job.records_per_second)} rows/s" if job.records_per_second else NOTHING,
        left=_left(job, now),
        failed=job.failed_records,
        created=moment(job.created_at),
        started=moment(job.started_at),
        finished=moment(job.finished_at),
        lasted=duration(job.seconds) if job.started_at else NOTHING,
        outcome=(
            f"{count(counts.embedded)} embedded, {count(counts.unchanged)} unchanged, "
            f"{count(counts.no_text)} without text, {count(counts.dead)} dead, "
            f"{count(counts.deleted)} deleted"
        ),
        points=count(counts.chunks),
        batches=f"{count(job.current_batch)} of {count(job.total_batches)}",
        tokens=count(job.tokens),
        cost=money(job.cost),
        provider=job.provider or NOTHING,
        faults=job.errors,
        error=job.error,
        can_cancel=job.state in (JobState.PENDING, JobState.RUNNING),
        can_resume=job.state.resumable,
        announcement=_announcement(job, share),
    )


@dataclass(frozen=True)
class JobsView:
    """Those that have not ended, and the latest that have."""

    active: tuple[JobView, ...]
    ended: tuple[JobView, ...]


def jobs_view(jobs: Sequence[JobProgress], now: datetime) -> JobsView:
    """``jobs`` is the newest first. One whose driver is gone is among the active: it waits for somebody."""
    views = [job_view(job, now) for job in jobs]
    waiting = [view.active or view.state == JobState.INTERRUPTED for view in views]
    return JobsView(
        tuple(view for view, active in zip(views, waiting, strict=True) if active),
        tuple(view for view, active in zip(views, waiting, strict=True) if not active),
    )


def _left(job: JobProgress, now: datetime) -> str:
    if not job.state.active:
        return NOTHING
    if job.estimated_completion is None:
        return "not known yet"
    return f"about {span(job.estimated_completion - now)}" if job.estimated_completion > now else "any moment"


def _announcement(job: JobProgress, share: float | None) -> str:
    if not job.state.active:
        return f"Job of {job.tenant}: {job.state}."
    done = int((share or 0.0) * 100) // _ANNOUNCED * _ANNOUNCED
    return f"Job of {job.tenant}: {job.state.replace('_', ' ')}, {done} percent done."
