"""One upsert from its rows to its outcomes, in blocking steps between which the caller embeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ray_app.errors import IndexMoved, Overloaded, TenantMoved
from ray_app.metrics.counting import count_outcomes
from ray_app.metrics.declared import ONLINE
from ray_app.records.committing import Settled, commit_upsert
from ray_app.records.directory import IndexDirectory
from ray_app.records.planning import IndexUpsert, plan_index
from ray_app.records.rows import PushedRow, read_rows
from ray_app.serving.port import Served
from ray_app.tenants import Tenant, TenantScope
from ray_app.workspace import IndexReader

#: Times that rows changed by others meanwhile are embedded again in one call.
ROUNDS: Final = 5


@dataclass
class Push:
    """Rows of one table on their way into its indexes.

        upserts = push.begin(rows)
        while upserts:
            upserts = push.settle(upserts, [embed(upsert.texts) for upsert in upserts])

    ``settled`` then has every row's outcome in every index, by vector type and record id.
    """

    directory: IndexDirectory
    tenant: Tenant
    scope: TenantScope
    table: str
    max_record_tokens: int
    rows: list[PushedRow] = field(default_factory=list)
    settled: dict[str, dict[str, Settled]] = field(default_factory=dict)
    _round: int = 0

    def begin(
        self, rows: Sequence[Mapping[str, Any]], vector_types: Iterable[str] | None = None
    ) -> list[IndexUpsert]:
        """What has to be embedded, for each index. Writes no vectors; makes indexes that are missing.

        Raises:
            UnknownTable, UnknownVectorType, InvalidTableSpec, ConfigError: the table has no such index.
            PermissionDenied: a row is another client's.
            InvalidRecord: a row does not fit its table.
            TooLarge: a row has too much text.
        """
        source = self.directory.table(self.table)
        engine = self.directory.workspace.source
        self.rows = read_rows(engine, source, self.tenant.client_id, rows)
        readers = self._open(vector_types)
        ledger = self.directory.workspace.ledger
        return [plan_index(ledger, reader, self.rows, self.max_record_tokens) for reader in readers]

    def settle(self, upserts: Sequence[IndexUpsert], served: Sequence[Served | None]) -> list[IndexUpsert]:
        """Write what was embedded; answers what has to be embedded again, as others changed it meanwhile.

        ``served[i]`` has the vectors of ``upserts[i].texts``; None where there are no texts.

        Raises:
            UnknownTenant, StoreUnavailable, DatabaseUnavailable: as ``commit_upsert``.
            Overloaded: others keep changing the same records.
        """
        workspace = self.directory.workspace
        try:
            results = commit_upsert(workspace, self.directory.store, self.scope, upserts, served)
        except IndexMoved:
            self.scope = workspace.registry.scope(self.tenant)
            return self._next_round([self._planned_anew(upsert) for upsert in upserts])
        again = []
        for upsert, result, answer in zip(upserts, results, served, strict=True):
            kind = upsert.reader.index.vector_type
            self.settled.setdefault(kind, {}).update(result.settled)
            provider = answer.provider if answer else ""
            count_outcomes(ONLINE, self.table, provider, (done.outcome for done in result.settled.values()))
            if result.overtaken:
                again.append(
                    plan_index(workspace.ledger, upsert.reader, result.overtaken, self.max_record_tokens)
                )
        return self._next_round(again)

    def _open(self, vector_types: Iterable[str] | None) -> list[IndexReader]:
        kinds = None if vector_types is None else list(vector_types)
        while True:
            # Each time it raises, somebody has moved the tenant: seldom twice, never for ever.
            try:
                return self.directory.open(self.tenant, self.scope, self.table, kinds)
            except TenantMoved:
                self.scope = self.directory.workspace.registry.scope(self.tenant)

    def _planned_anew(self, upsert: IndexUpsert) -> IndexUpsert:
        """The upsert in the space and the place that its index is in by now."""
        (reader,) = self._open([upsert.reader.index.vector_type])
        return plan_index(self.directory.workspace.ledger, reader, upsert.rows, self.max_record_tokens)

    def _next_round(self, again: list[IndexUpsert]) -> list[IndexUpsert]:
        self._round += 1
        if again and self._round == ROUNDS:
            raise Overloaded(
                "Other calls keep changing the same records.",
                retry_after=1.0,
                hint="Send each record from one place at a time.",
            )
        return again
