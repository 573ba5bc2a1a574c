"""A tenant's indexes as a server uses them: tables seen through their specs, indexes made when missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Final
from uuid import UUID

from ray_app.db.fences import lock_placed
from ray_app.db.indexes import PinnedIndex, list_indexes, pin
from ray_app.db.source import SourceTable
from ray_app.errors import UnknownVectorType
from ray_app.planning import choose_targets
from ray_app.spaces import VectorType
from ray_app.store.port import IndexKey, VectorStore
from ray_app.tables import parse_vector_types
from ray_app.tenants import Placement, Tenant, TenantScope
from ray_app.workspace import IndexReader, Workspace

#: Seconds for which a table's columns are not looked up again.
TABLE_TTL: Final = 60.0


@dataclass
class IndexDirectory:
    """Finds and makes indexes. Thread-safe; one for a process."""

    workspace: Workspace
    store: VectorStore
    clock: Callable[[], float] = time.monotonic
    _tables: dict[str, tuple[float, SourceTable]] = field(default_factory=dict)
    #: Indexes that this process knows the store to be ready for, and where.
    _ready: set[tuple[UUID, Placement, IndexKey]] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def table(self, name: str) -> SourceTable:
        """Raises UnknownTable, InvalidTableSpec."""
        with self._lock:
            seen = self._tables.get(name)
        if seen is not None and self.clock() < seen[0]:
            return seen[1]
        source = self.workspace.source_table(name)
        with self._lock:
            self._tables[name] = (self.clock() + TABLE_TTL, source)
        return source

    def pinned(self, tenant: Tenant, table: str) -> list[PinnedIndex]:
        """The table's indexes that exist."""
        found = list_indexes(self.workspace.ledger, tenant.incarnation)
        return [index for (name, _), index in found.items() if name == table]

    def open(
        self, tenant: Tenant, scope: TenantScope, table: str, vector_types: Iterable[str] | None = None
    ) -> list[IndexReader]:
        """The table's indexes of ``vector_types``, made when they do not exist yet and ready to be written.

        None stands for the vector types the spec makes and those the table has an index of already. A
        new index gets its space as a backfill would choose it.

        Raises:
            UnknownTable, UnknownVectorType, InvalidTableSpec, ConfigError: as ``choose_targets``.
            UnknownTenant: the tenant is being removed.
            TenantMoved: its vectors are elsewhere by now.
        """
        source = self.table(table)
        pinned = {VectorType(index.vector_type): index for index in self.pinned(tenant, table)}
        kinds = self._kinds(source, pinned, vector_types)
        missing = [kind for kind in kinds if kind not in pinned]
        if missing:
            targets, _ = choose_targets(self.workspace, tenant, [table], missing, None)
            self._make(scope, source, [target.reader.index for target in targets])
            # Another process may have been first: what is pinned holds.
            pinned = {VectorType(index.vector_type): index for index in self.pinned(tenant, table)}
        indexes = [pinned[kind] for kind in kinds]
        self._make(scope, source, [index for index in indexes if not self._is_ready(scope, index)])
        return [self.workspace.reader(tenant, index, source) for index in indexes]

    def _kinds(
        self,
        source: SourceTable,
        pinned: Iterable[VectorType],
        asked: Iterable[str] | None,
    ) -> tuple[VectorType, ...]:
        if asked is not None:
            kinds = parse_vector_types(asked)
            for kind in kinds:
                if not source.has_text(kind):
                    raise UnknownVectorType(
                        f"Table {source.spec.name} has no columns for {kind} text.",
                        hint="Ask for another vector type.",
                        param="vector_types",
                    )
            return kinds
        own = [kind for kind in source.spec.vector_types if source.has_text(kind)]
        if not own:
            source.check_text(source.spec.vector_types[0])
        return tuple(dict.fromkeys([*own, *pinned]))

    def _make(self, scope: TenantScope, source: SourceTable, indexes: list[PinnedIndex]) -> None:
        if not indexes:
            return
        fields = source.payload_fields()
        with self.workspace.ledger.begin() as connection:
            # Held while the store makes its place, which a removal must find and erase, and a move copy.
            lock_placed(connection, scope)
            # In one order, so that two calls cannot wait for each other's rows.
            for index in sorted(indexes, key=lambda index: index.vector_type):
                self.store.ensure_index(scope, key_of(index), fields)
                pin(connection, scope.incarnation, index)
        with self._lock:
            self._ready.update((scope.incarnation, scope.placement, key_of(index)) for index in indexes)

    def _is_ready(self, scope: TenantScope, index: PinnedIndex) -> bool:
        with self._lock:
            return (scope.incarnation, scope.placement, key_of(index)) in self._ready


def key_of(index: PinnedIndex) -> IndexKey:
    return IndexKey(index.table, index.vector_type, index.space)
