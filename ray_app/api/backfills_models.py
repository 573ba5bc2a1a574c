"""Bodies of the routes of jobs: backfills, plans, dead letters."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from ray_app.api.amounts import Dollars
from ray_app.budgets import JobLimits
from ray_app.reports import DeadLetter, JobProgress, JobState, Plan
from ray_app.spaces import Preference, VectorType
from ray_app.tenants import MAX_LIMIT

#: What a tenant is told of a job that stopped; the reason may name hosts and files, and is the operator's.
_STOPPED: Final = {
    JobState.FAILED: "The job stopped at a fault. What it wrote stays; resume it to go on.",
    JobState.STOPPED_AT_BUDGET: (
        "The job stopped at its budget. What it wrote stays; resume it with a higher one to go on."
    ),
    JobState.INTERRUPTED: "The job's process ended before its time. What it wrote stays; resume it to go on.",
}
_NEVER_STARTED: Final = "The job could not be started. Send the request again, or resume it."


class _Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class BackfillRequest(BaseModel):
    """What to embed: all vector-enabled tables, and each one's own vector types, unless named."""

    model_config = ConfigDict(extra="forbid")

    tables: Annotated[list[str] | None, Field(min_length=1, max_length=100)] = None
    vector_types: Annotated[list[VectorType] | None, Field(min_length=1, max_length=10)] = None
    prefer: Annotated[
        Preference | None,
        Field(description="How a new index chooses its space; else by the table's size."),
    ] = None


class LimitsRequest(BaseModel):
    """What a job may spend in all, earlier runs of it counted in; no limit where nothing is given."""

    model_config = ConfigDict(extra="forbid")

    budget: Annotated[
        Decimal | None,
        Field(gt=0, le=MAX_LIMIT, description="US dollars. A model on the server's own machines costs none."),
    ] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=MAX_LIMIT)] = None

    @property
    def limits(self) -> JobLimits:
        return JobLimits(self.budget, self.max_tokens)


class StartRequest(BackfillRequest, LimitsRequest):
    """What to embed, and what it may cost."""


class BudgetBody(_Answer):
    """What a job may spend and has spent, and what its rest would take at what its rows have taken so far."""

    cost_limit: Dollars | None
    token_limit: int | None
    cost_spent: Dollars
    tokens_spent: int
    rows_left: int
    cost_left: Dollars
    tokens_left: int


class CountsBody(_Answer):
    """Outcomes of records; ``read`` is the sum of the five after it once the job has ended."""

    read: int
    embedded: int
    unchanged: int
    no_text: int
    dead: int
    deleted: int
    #: Points written; a long text is several.
    chunks: int


class JobBody(_Answer):
    """A job as it stands; readable while it runs and after it ended."""

    job_id: str
    kind: str
    state: JobState
    tables: list[str]
    vector_types: list[str]
    prefer: str | None
    total_records: int
    processed_records: int
    successful_records: int
    failed_records: int
    current_batch: int
    total_batches: int
    counts: CountsBody
    tokens: int
    cost: Dollars
    #: Null for a job without a budget of its own.
    budget: BudgetBody | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    estimated_completion: datetime | None
    records_per_second: float
    seconds: float
    provider: str | None
    #: Latest records that could not be embedded, newest last; at most 20.
    errors: list[str]
    #: Why it stopped, when it did not succeed.
    error: str | None
    #: Whether ``POST …/resume`` goes on with it.
    resumable: bool

    @classmethod
    def of(cls, job: JobProgress) -> JobBody:
        error = _STOPPED.get(job.state)
        if error is not None and job.started_at is None:
            error = _NEVER_STARTED
        fields = {name: getattr(job, name) for name in cls.model_fields if hasattr(job, name)}
        return cls.model_validate({**fields, "error": error, "resumable": job.state.resumable})


class JobAnswer(BaseModel):
    job: JobBody


class RedriveAnswer(BaseModel):
    """``job`` is null when there are no open dead letters."""

    job: JobBody | None


class JobList(BaseModel):
    """Newest first."""

    jobs: list[JobBody]


class TablePlanBody(_Answer):
    """What a backfill would do to one index."""

    table: str
    vector_type: VectorType
    rows: int
    to_embed: int
    unchanged: int
    to_delete: int
    space_id: str
    model: str
    #: Whether the index exists, its space pinned, or would be made.
    pinned: bool
    preference: Preference
    provider: str
    batch_size: int
    estimated_tokens: int
    estimated_seconds: float
    estimated_cost: Dollars
    #: Whether the counts of a large table come from a sample.
    sampled: bool


class PlanBody(_Answer):
    tables: list[TablePlanBody]
    total_rows: int
    total_to_embed: int
    estimated_tokens: int
    estimated_seconds: float
    estimated_cost: Dollars

    @classmethod
    def of(cls, plan: Plan) -> PlanBody:
        """Without the notes, which are about the server's configuration."""
        return cls.model_validate(plan)


class DeadLetterBody(_Answer):
    """A record that could not be embedded, and why."""

    table: str
    vector_type: VectorType
    record_id: str
    stage: str
    error_class: str
    message: str
    attempts: int
    first_at: datetime
    last_at: datetime


class DeadLetterList(BaseModel):
    """Oldest first."""

    dead_letters: list[DeadLetterBody]

    @classmethod
    def of(cls, letters: list[DeadLetter]) -> DeadLetterList:
        return cls(dead_letters=[DeadLetterBody.model_validate(letter) for letter in letters])
