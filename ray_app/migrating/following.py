"""Bringing a second generation up to date with records that changed, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ray_app.db import generations
from ray_app.encoding import encode_part
from ray_app.parts import PartKey
from ray_app.planning import Target
from ray_app.reading import RangeReader
from ray_app.reuse import TextReuse, stored_lookup
from ray_app.store.port import VectorStore
from ray_app.workspace import Workspace
from ray_app.writing import PartWriter

#: Records followed at once.
BATCH: Final = 200


class Follower:
    """Follows one index's changes in the generation that ``target`` writes."""

    def __init__(self, workspace: Workspace, store: VectorStore, target: Target, job_id: str) -> None:
        index, tenant = target.reader.index, target.reader.tenant
        budget = workspace.settings.outage_budget
        scope = workspace.registry.scope(tenant)
        self.target = target
        self.reader = RangeReader(target.reader, workspace.source, workspace.ledger, budget)
        self._workspace = workspace
        self._where = (tenant.incarnation, index.table, str(index.vector_type))
        self._key = PartKey(job_id, 0, 0, None, None)
        self._space = index.space
        self._writer = PartWriter(scope, store, workspace.ledger, budget)
        self._reuse = TextReuse(
            index.space, stored_lookup(workspace.ledger, store, scope, index.space), capacity=BATCH
        )

    def behind(self) -> int:
        """Records yet to be followed."""
        with self._workspace.ledger.connect() as connection:
            return generations.count_changes(connection, *self._where)

    def follow(self) -> int:
        """Follow up to ``BATCH`` noted records; how many there were.

        Raises:
            IndexMoved: the migration was given up.
            ProviderUnavailable, BudgetExhausted, StoreUnavailable, DatabaseUnavailable: they stay noted.
        """
        with self._workspace.ledger.connect() as connection:
            noted = generations.noted_changes(connection, *self._where, BATCH)
        if noted:
            self.take([change.record_id for change in noted])
            with self._workspace.ledger.begin() as connection:
                generations.forget_changes(connection, *self._where, noted)
        return len(noted)

    def take(self, ids: Sequence[str]) -> None:
        """Bring these records up to date with their rows, whether noted or not."""
        for start in range(0, len(ids), BATCH):
            part = self.reader.changed(self._key, ids[start : start + BATCH])
            provider = self._workspace.providers.provider_for(self._space)
            self._writer.apply(encode_part(part, provider, self._reuse), self._space)
