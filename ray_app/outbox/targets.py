"""What the outbox's lanes are about: which tenant's indexes a client's changes of a table go to."""

from __future__ import annotations

from dataclasses import dataclass

from ray_app.db import dead_letters, jobs
from ray_app.db.indexes import PinnedIndex
from ray_app.db.outbox import Lane, Outbox
from ray_app.parts import Fault, Part
from ray_app.reading import NO_JOB, RangeReader
from ray_app.records.directory import IndexDirectory
from ray_app.reports import Counts
from ray_app.tenants import Tenant, TenantScope
from ray_app.workspace import IndexReader


@dataclass(frozen=True)
class Target:
    """The indexes of a lane."""

    scope: TenantScope
    readers: tuple[IndexReader, ...]


@dataclass
class LaneTargets:
    """Finds the targets of lanes. Thread-safe."""

    directory: IndexDirectory

    def find(self, lane: Lane) -> Target | None:
        """The indexes of the lane's table that its client has; None for none, as there is nothing to sync.

        An index that is made later is filled from the table, where what was changed before is seen.

        Raises:
            UnknownTable, InvalidTableSpec, ConfigError: the table cannot be used as it is now.
            UnknownTenant: the tenant is being removed.
        """
        tenant = self.directory.workspace.registry.find_client(lane.client_id)
        pinned = self.directory.pinned(tenant, lane.table) if tenant else []
        if tenant is None or not pinned:
            return None
        scope = self.directory.workspace.registry.scope(tenant)
        kinds = [str(index.vector_type) for index in pinned]
        return Target(scope, tuple(self.directory.open(tenant, scope, lane.table, kinds)))

    def queue_gone(self, outbox: Outbox, table: str) -> None:
        """Queue every record of ``table`` that is in an index and no more in the table, page by page."""
        for tenant in self.directory.workspace.registry.list():
            for index in self.directory.pinned(tenant, table):
                self._queue_gone(outbox, tenant, index)

    def has_job(self, target: Target, lane: Lane) -> bool:
        """Whether a job works on the lane's table."""
        return jobs.is_worked_on(self.directory.workspace.ledger, target.scope.incarnation, lane.table)

    def record_fault(self, target: Target, record_id: str, why: str) -> None:
        """Make the record a dead letter in each of the indexes; its next change is tried again."""
        with self.directory.workspace.ledger.begin() as connection:
            for reader in target.readers:
                index = reader.index
                part = Part(
                    *(NO_JOB, index.table, index.vector_type, index.space.space_id),
                    version=0,
                    counts=Counts(),
                    faults=[Fault(record_id, "", "sync", "SyncFault", why)],
                )
                dead_letters.record_faults(connection, target.scope.incarnation, part)

    def _queue_gone(self, outbox: Outbox, tenant: Tenant, index: PinnedIndex) -> None:
        workspace = self.directory.workspace
        reader = workspace.reader(tenant, index, self.directory.table(index.table))
        rows = RangeReader(reader, workspace.source, workspace.ledger, outage_budget=0)
        after: str | None = None
        while True:
            gone, _, after = rows.gone(after, None)
            if gone:
                outbox.add(Lane(tenant.client_id, index.table), list(gone))
            if after is None:
                return
