"""What Rowbeam's operations answer: plain frozen values, the same for library, command line and jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from ray_app.budgets import JobBudget
from ray_app.tenants import ApiKey, Tenant

#: The kind of job whose ranges are pieces of an export's files.
IMPORT: Final = "import"


class JobState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    #: Stopped by an error; what was written stays, ``--resume`` goes on from there.
    FAILED = "failed"
    #: Its next batch might have exceeded its own budget; resumed with a higher one it goes on.
    STOPPED_AT_BUDGET = "stopped_at_budget"
    #: Its driver died; found out when the lease ran out or the process was seen to be gone.
    INTERRUPTED = "interrupted"

    @property
    def active(self) -> bool:
        return self in (JobState.PENDING, JobState.RUNNING, JobState.CANCEL_REQUESTED)

    @property
    def resumable(self) -> bool:
        return not self.active and self is not JobState.SUCCEEDED


@dataclass(frozen=True)
class Counts:
    """Outcomes of records, a record being one row for one vector type.

    ``read == embedded + unchanged + no_text + dead + deleted`` once a range is done. ``deleted``
    are records of the ledger whose row was looked for and is gone, inactive or without text.
    """

    read: int = 0
    embedded: int = 0
    unchanged: int = 0
    no_text: int = 0
    dead: int = 0
    deleted: int = 0
    #: Points written; a long text is several.
    chunks: int = 0
    #: Those of them whose text had a vector already and was sent to no model.
    reused: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def balanced(self) -> bool:
        """Whether every record read has exactly one outcome."""
        return self.read == self.embedded + self.unchanged + self.no_text + self.dead + self.deleted


@dataclass(frozen=True)
class JobProgress:
    """A job as it stands; readable while it runs and after it ended."""

    job_id: str
    tenant: str
    kind: str
    state: JobState
    tables: tuple[str, ...]
    vector_types: tuple[str, ...]
    prefer: str | None
    #: Records expected, counted when the job was planned.
    total_records: int
    processed_records: int
    successful_records: int
    failed_records: int
    current_batch: int
    total_batches: int
    counts: Counts
    tokens: int
    cost: Decimal
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    estimated_completion: datetime | None
    #: Processed records a second, lately while it runs and over all when it has ended.
    records_per_second: float
    seconds: float
    provider: str | None
    #: Seconds that providers worked, added up where several did at once.
    encoding_seconds: float = 0.0
    #: Latest faults, newest last; at most 20.
    errors: tuple[str, ...] = ()
    #: Why the job failed.
    error: str | None = None
    #: None for a job without a budget of its own.
    budget: JobBudget | None = None


@dataclass(frozen=True)
class TablePlan:
    """What a backfill would do to one index."""

    table: str
    vector_type: str
    priority: int
    rows: int
    to_embed: int
    unchanged: int
    #: Ledger records whose row is gone or inactive.
    to_delete: int
    space_id: str
    model: str
    #: Whether the index exists, its space pinned, or would be made.
    pinned: bool
    preference: str
    provider: str
    batch_size: int
    estimated_tokens: int
    estimated_seconds: float
    estimated_cost: Decimal
    #: Whether the counts of a large table come from a sample.
    sampled: bool = False


@dataclass(frozen=True)
class Plan:
    tenant: str
    tables: tuple[TablePlan, ...]
    #: Things the user should know, such as "no gateway is configured".
    notes: tuple[str, ...] = ()

    @property
    def total_rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def total_to_embed(self) -> int:
        return sum(table.to_embed for table in self.tables)

    @property
    def estimated_seconds(self) -> float:
        return sum(table.estimated_seconds for table in self.tables)

    @property
    def estimated_tokens(self) -> int:
        return sum(table.estimated_tokens for table in self.tables)

    @property
    def estimated_cost(self) -> Decimal:
        return sum((table.estimated_cost for table in self.tables), Decimal(0))


@dataclass(frozen=True)
class CoverageRow:
    """How much of one index is in step with its table."""

    table: str
    vector_type: str
    #: Active rows of the tenant.
    rows: int
    #: Records with vectors, stale ones included.
    embedded: int
    #: Records whose text, space or chunking has changed since they were embedded, or whose row is gone.
    stale: int
    #: Rows without text for this vector type.
    no_text: int
    dead: int
    #: None when the index does not exist yet.
    space_id: str | None
    model: str | None
    #: Points in the ledger.
    points: int
    #: What stands beside the index while its model is being changed, and until the former one is dropped.
    migration: str | None = None


@dataclass(frozen=True)
class SearchHit:
    table: str
    record_id: str
    score: float
    snippet: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeadLetter:
    table: str
    vector_type: str
    record_id: str
    stage: str
    error_class: str
    message: str
    attempts: int
    state: str
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class ProbeReport:
    """What setting up a tenant proved: a probe vector was written, found and deleted, in milliseconds."""

    space_id: str
    write_ms: float
    search_ms: float
    delete_ms: float


@dataclass(frozen=True)
class NewTenant:
    tenant: Tenant
    #: Shown once; only its hash is kept.
    api_key: ApiKey
    probe: ProbeReport


@dataclass(frozen=True)
class KeyInfo:
    """An API key as it may be shown again: all but the key."""

    key_id: str
    created_at: datetime
    last_used_at: datetime | None
    #: When a rotated key stops working, or stopped; None while it has no end.
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class Rotation:
    """A new key, and the old one with the time from which it is refused."""

    #: Shown once; only its hash is kept.
    api_key: ApiKey
    replaced: KeyInfo


@dataclass(frozen=True)
class Revocation:
    key: KeyInfo
    #: Keys of the tenant that still work; with 0 nobody can call in its name until one is added.
    usable_left: int


@dataclass(frozen=True)
class TenantDetails:
    tenant: Tenant
    key_ids: tuple[str, ...]
    indexes: tuple[CoverageRow, ...]
    tokens: int
    cost: Decimal
    open_dead_letters: int


@dataclass(frozen=True)
class UsageRow:
    """What one provider and model did for one table on one day (UTC)."""

    day: date
    provider: str
    model: str
    #: Empty for texts that belong to no table, such as those of the embeddings API.
    table: str
    texts: int
    tokens: int
    #: US dollars.
    cost: Decimal


@dataclass(frozen=True)
class UsageReport:
    """A tenant's usage from ``first`` to ``last``, both included."""

    tenant: str
    first: date
    last: date
    #: By day, provider, model and table.
    rows: tuple[UsageRow, ...]

    @property
    def texts(self) -> int:
        return sum(row.texts for row in self.rows)

    @property
    def tokens(self) -> int:
        return sum(row.tokens for row in self.rows)

    @property
    def cost(self) -> Decimal:
        return sum((row.cost for row in self.rows), Decimal(0))

    def to_json(self) -> dict[str, Any]:
        """As JSON data, costs as text, for they are exact."""
        return {
            "tenant": self.tenant,
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "rows": [
                {**asdict(row), "day": row.day.isoformat(), "cost": f"{row.cost:f}"} for row in self.rows
            ],
            "texts": self.texts,
            "tokens": self.tokens,
            "cost": f"{self.cost:f}",
        }


@dataclass(frozen=True)
class LoadReport:
    table: str
    inserted: int
    #: Fields of the file that the table has no column for.
    ignored_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One line of ``rowbeam doctor``."""

    name: str
    ok: bool
    detail: str
    #: What to do when it is not ok.
    hint: str | None = None
