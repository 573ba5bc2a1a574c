"""A tenant's jobs: started once, watched, waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

from ray_app.client.batching import json_body
from ray_app.client.errors import BadAnswer, StillRunning
from ray_app.client.reading import ask, ask_list, read
from ray_app.client.steps import Operation, Patience, Pause, Request, call_json, segment
from ray_app.reports import Counts, JobState

_PATH: Final = "/v1/backfills"


@dataclass(frozen=True)
class Budget:
    """What a job may spend and has spent, and what its rest would take; costs in US dollars."""

    #: None sets no limit.
    cost_limit: Decimal | None
    token_limit: int | None
    cost_spent: Decimal
    tokens_spent: int
    rows_left: int
    cost_left: Decimal
    tokens_left: int


@dataclass(frozen=True)
class Job:
    """A job as it stands; see ``ray_app.reports.JobProgress`` for the units."""

    job_id: str
    kind: str
    state: JobState
    tables: tuple[str, ...]
    vector_types: tuple[str, ...]
    prefer: str | None
    total_records: int
    processed_records: int
    successful_records: int
    failed_records: int
    current_batch: int
    total_batches: int
    counts: Counts
    tokens: int
    #: US dollars.
    cost: Decimal
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    estimated_completion: datetime | None
    records_per_second: float
    seconds: float
    provider: str | None
    #: Latest records that could not be embedded, newest last.
    errors: tuple[str, ...]
    #: Why it stopped, when it did not succeed.
    error: str | None
    #: Whether ``resume_backfill`` goes on with it.
    resumable: bool
    #: None for a job without a budget of its own.
    budget: Budget | None = None


@dataclass(frozen=True)
class TablePlan:
    """What a backfill would do to one index."""

    table: str
    vector_type: str
    rows: int
    to_embed: int
    unchanged: int
    to_delete: int
    space_id: str
    model: str
    pinned: bool
    preference: str
    provider: str
    batch_size: int
    estimated_tokens: int
    estimated_seconds: float
    estimated_cost: Decimal
    #: Whether the counts of a large table come from a sample.
    sampled: bool


@dataclass(frozen=True)
class Plan:
    """What a backfill would do, and what it would cost in seconds and US dollars."""

    tables: tuple[TablePlan, ...]
    total_rows: int
    total_to_embed: int
    estimated_tokens: int
    estimated_seconds: float
    estimated_cost: Decimal


@dataclass(frozen=True)
class DeadLetter:
    """A record that could not be embedded, and why."""

    table: str
    vector_type: str
    record_id: str
    stage: str
    error_class: str
    message: str
    attempts: int
    first_at: datetime
    last_at: datetime


def start(
    patience: Patience,
    tables: Sequence[str] | None,
    vector_types: Sequence[str] | None,
    prefer: str | None,
    idempotency_key: str | None,
    budget: Decimal | None,
    max_tokens: int | None,
) -> Operation[Job]:
    # Under a key of its own a request that is sent twice finds the job it has made.
    headers = {"idempotency-key": idempotency_key or uuid4().hex}
    body = _body(tables=tables, vector_types=vector_types, prefer=prefer, **_limits(budget, max_tokens))
    return _job(patience, Request("POST", _PATH, body, headers=headers))


def plan(
    patience: Patience, tables: Sequence[str] | None, vector_types: Sequence[str] | None, prefer: str | None
) -> Operation[Plan]:
    body = _body(tables=tables, vector_types=vector_types, prefer=prefer)
    return ask(patience, Plan, Request("POST", f"{_PATH}/plan", body))


def get(patience: Patience, job_id: str) -> Operation[Job]:
    return _job(patience, Request("GET", _of(job_id)))


def newest(patience: Patience, limit: int, *, active: bool) -> Operation[list[Job]]:
    query = {"limit": str(limit), "active": str(active).lower()}
    return ask_list(patience, Job, "jobs", Request("GET", _PATH, query=query))


def cancel(patience: Patience, job_id: str) -> Operation[Job]:
    return _job(patience, Request("DELETE", _of(job_id)))


def resume(patience: Patience, job_id: str, budget: Decimal | None, max_tokens: int | None) -> Operation[Job]:
    body = _body(**_limits(budget, max_tokens))
    return _job(patience, Request("POST", f"{_of(job_id)}/resume", body))


def wait(
    patience: Patience, job_id: str, every: float, at_most: float | None, watch: Callable[[Job], None] | None
) -> Operation[Job]:
    """Raises StillRunning, with the job as it stands, after ``at_most`` seconds."""
    begun = patience.clock()
    while True:
        job = yield from get(patience, job_id)
        if watch is not None:
            watch(job)
        if not job.state.active:
            return job
        if at_most is not None and patience.clock() - begun + every > at_most:
            raise StillRunning(f"The job {job_id} has not ended in {at_most:.0f} s; it goes on.", job=job)
        yield Pause(every)


def dead_letters(patience: Patience, limit: int) -> Operation[list[DeadLetter]]:
    request = Request("GET", "/v1/dead-letters", query={"limit": str(limit)})
    return ask_list(patience, DeadLetter, "dead_letters", request)


def redrive(patience: Patience) -> Operation[Job | None]:
    answer = yield from call_json(patience, Request("POST", "/v1/dead-letters/redrive", repeatable=False))
    return None if answer.get("job") is None else read(Job, answer["job"])


def _job(patience: Patience, request: Request) -> Operation[Job]:
    answer = yield from call_json(patience, request)
    if "job" not in answer:
        raise BadAnswer("The answer holds no job.")
    return read(Job, answer["job"])


def _limits(budget: Decimal | None, max_tokens: int | None) -> dict[str, Any]:
    return {"budget": None if budget is None else f"{budget:f}", "max_tokens": max_tokens}


def _body(**asked: Any) -> bytes:
    return json_body({name: value for name, value in asked.items() if value is not None})


def _of(job_id: str) -> str:
    return f"{_PATH}/{segment(job_id)}"
