"""What syncs and the outbox answer to callers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ray_app.reports import Counts


class Reading(StrEnum):
    """How a sync found what had changed."""

    #: Rows with a time after the watermark.
    CHANGES = "changes"
    #: Every row, by its hash.
    WHOLE = "whole"


@dataclass(frozen=True)
class IndexSync:
    """What a sync did for one index."""

    table: str
    vector_type: str
    reading: Reading
    counts: Counts
    #: From when on the next sync reads rows; None when it has to read all.
    watermark: datetime | None
    #: The job that had to do the rest, being too much for this process.
    job_id: str | None = None
    #: Why it is not in step, when it is not.
    error: str | None = None


@dataclass(frozen=True)
class SyncReport:
    """What a sync did for a tenant."""

    tenant: str
    indexes: tuple[IndexSync, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every index is in step."""
        return all(index.error is None for index in self.indexes)


@dataclass(frozen=True)
class OutboxTable:
    """Whether changes of a table are noted."""

    table: str
    #: ``installed``, ``outdated`` (its spec or its columns have changed since) or ``absent``.
    state: str


@dataclass(frozen=True)
class OutboxStatus:
    """How the outbox stands."""

    installed: bool
    tables: tuple[OutboxTable, ...]
    #: Changes that wait, and for how long the oldest has, in seconds.
    entries: int = 0
    oldest: float = 0.0
    #: Statements whose changes could not be noted since the outbox was installed; a whole sync finds them.
    missed: int = 0


@dataclass(frozen=True)
class SyncStatus:
    """The outbox, and how often each tenant is synced by the server."""

    outbox: OutboxStatus
    #: Seconds between two syncs, by tenant.
    schedules: dict[str, int]
