"""What reconciling found and did."""

from __future__ import annotations

from dataclasses import dataclass

from ray_app.reconciling.drift import Kind


@dataclass(frozen=True)
class Finding:
    """One record that is not in step, or one point out of place."""

    table: str
    vector_type: str
    kind: Kind
    #: The record's id; of a point out of place, that point's own.
    record_id: str


@dataclass(frozen=True)
class DriftCount:
    """How many findings of a kind an index has."""

    table: str
    vector_type: str
    kind: Kind
    count: int


@dataclass(frozen=True)
class ReconcileReport:
    """One look at all of a tenant's indexes, or at some; and what was mended since."""

    tenant: str
    #: Rows read, and points by the ledger and by the store.
    rows: int
    ledger_points: int
    stored_points: int
    found: tuple[DriftCount, ...]
    examples: tuple[Finding, ...]
    #: Orphans too young to judge: their row may be about to be committed.
    recent: int
    #: Findings that were mended, and those that were there when it ended.
    repaired: int
    remaining: int
    jobs: tuple[str, ...]
    seconds: float

    @property
    def drift(self) -> int:
        return sum(item.count for item in self.found)

    @property
    def clean(self) -> bool:
        """Whether nothing was found at all."""
        return not self.found

    @property
    def in_step(self) -> bool:
        """Whether nothing is left."""
        return self.remaining == 0

    def count(self, kind: Kind) -> int:
        """Findings of a kind, over all indexes."""
        return sum(item.count for item in self.found if item.kind is kind)
