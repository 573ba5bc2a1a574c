"""What exports, imports, backups and restores came to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID


@dataclass(frozen=True)
class ExportedIndex:
    table: str
    vector_type: str
    model: str
    records: int
    points: int
    #: Records whose ledger rows and points differ; reconcile tells why.
    left_out: int
    bytes: int


@dataclass(frozen=True)
class ExportReport:
    tenant: str
    folder: Path
    indexes: tuple[ExportedIndex, ...]
    seconds: float


@dataclass(frozen=True)
class SavedTenantShard:
    """One shard of a backup."""

    tenant: str
    space_id: str
    model: str
    points: int
    #: What it takes on disk.
    bytes: int
    #: Seconds for which the store answered nobody.
    held: float


@dataclass(frozen=True)
class BackupReport:
    folder: Path
    shards: tuple[SavedTenantShard, ...]
    #: Tenants whose vectors are on a Qdrant server, which has snapshots of its own.
    elsewhere: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class RestoredShard:
    tenant: str
    space_id: str
    model: str
    points: int


@dataclass(frozen=True)
class NotRestored:
    """A tenant of a backup that was left alone."""

    tenant: str
    incarnation: UUID
    reason: str


@dataclass(frozen=True)
class RestoreReport:
    folder: Path
    #: When the backup was made.
    created_at: datetime
    shards: tuple[RestoredShard, ...]
    not_restored: tuple[NotRestored, ...]
    seconds: float

    @property
    def tenants(self) -> tuple[str, ...]:
        """Those that have vectors of the backup now."""
        return tuple(dict.fromkeys(shard.tenant for shard in self.shards))
