"""Setting a tenant up and proving that it works."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from ray_app.db import ledger
from ray_app.db.fences import forget, retire
from ray_app.db.indexes import list_indexes, list_spaces
from ray_app.errors import ConfigError, ConflictError, StoreUnavailable, UnknownTable
from ray_app.reports import NewTenant, ProbeReport
from ray_app.spaces import EmbeddingSpace, Preference
from ray_app.store.port import IndexKey, PointBatch, PointMeta, VectorStore
from ray_app.tenants import Placement, Tenant, TenantScope
from ray_app.workspace import Workspace

#: The table of the probe vector; no table can have this name, which is not an identifier.
PROBE_TABLE: Final = "~probe"


def add_tenant(
    workspace: Workspace, store: VectorStore, name: str, client_id: int | None, placement: Placement | None
) -> NewTenant:
    """Register a tenant, make its place in the store, and prove it with a probe vector.

    Without ``client_id`` one is taken that neither the ledger nor the platform's tables have seen.
    The placement defaults to ``embedded``, or ``pooled`` where a Qdrant server is configured. When
    the proof fails nothing of the tenant is left behind.

    Raises:
        InputError, TenantExists, ConfigError: it cannot be registered.
        StoreUnavailable: the probe was not written, found and deleted.
    """
    settings = workspace.settings
    where = placement or (Placement.EMBEDDED if settings.embedded_store else Placement.POOLED)
    if where is not Placement.EMBEDDED and settings.embedded_store:
        raise ConfigError(
            f"Placement {where} needs a Qdrant server.", hint="Set ROWBEAM_QDRANT_URL, or use embedded."
        )
    if workspace.registry.find_unfinished_removal(name):
        raise ConflictError(
            f"A tenant named {name!r} is still being erased.",
            hint=f"Finish it: rowbeam tenant remove {name}.",
        )
    number = client_id if client_id is not None else _next_client_id(workspace)
    tenant, key = workspace.registry.create(name, number, where)
    scope = workspace.registry.scope(tenant)
    try:
        space = workspace.providers.spaces_for(Preference.FAST)
        report = probe(store, scope, space)
    except Exception:
        # Whatever went wrong, half a tenant must not stay; the error itself goes on to the caller.
        with workspace.ledger.begin() as connection:
            retire(connection, tenant.incarnation)
            forget(connection, tenant.incarnation)
        raise
    return NewTenant(tenant, key, report)


def probe(store: VectorStore, scope: TenantScope, space: EmbeddingSpace) -> ProbeReport:
    """Write, find and delete a probe vector in an index of its own.

    Raises:
        StoreUnavailable: it was not found, or was found after its deletion.
    """
    index = IndexKey(PROBE_TABLE, "content", space)
    vector = np.full((1, space.dimensions), 1 / np.sqrt(space.dimensions), dtype=np.float32)
    meta = PointMeta("probe", 0, "probe", "", "probe", "1970-01-01T00:00:00+00:00")
    store.ensure_index(scope, index, ())
    started = time.perf_counter()
    store.upsert(scope, index, PointBatch([meta], vector, time.time_ns() // 1000))
    written = time.perf_counter()
    found = store.search(scope, index, vector[0], limit=1)
    searched = time.perf_counter()
    store.delete(scope, index, [("probe", 0)])
    deleted = time.perf_counter()
    if [hit.record_id for hit in found] != ["probe"]:
        raise StoreUnavailable("The probe vector was written but not found.", hint="Run rowbeam doctor.")
    if store.count(scope, index):
        raise StoreUnavailable("The probe vector was still there after its deletion.")
    return ProbeReport(
        space.space_id,
        write_ms=(written - started) * 1000,
        search_ms=(searched - written) * 1000,
        delete_ms=(deleted - searched) * 1000,
    )


def _next_client_id(workspace: Workspace) -> int:
    """One more than any client id in sight, so that no existing client's rows are taken by accident."""
    greatest = workspace.registry.greatest_client_id()
    for spec in workspace.tables.select():
        try:
            source = workspace.source_table(spec.name)
        except UnknownTable:
            continue  # a platform need not have every shipped table
        with workspace.source.connect() as connection:
            greatest = max(greatest, source.greatest_client_id(connection))
    return greatest + 1


def ever_used_spaces(workspace: Workspace) -> Sequence[EmbeddingSpace]:
    """Every space ever used, and those that new indexes would get: the probe's among them."""
    known = list_spaces(workspace.ledger)
    known += [workspace.providers.spaces_for(preference) for preference in Preference]
    return list({space.space_id: space for space in known}.values())


def ledger_points(workspace: Workspace, tenant: Tenant) -> int:
    """The tenant's points by the ledger."""
    pinned = list_indexes(workspace.ledger, tenant.incarnation)
    with workspace.ledger.connect() as connection:
        return sum(
            ledger.point_count(connection, tenant.incarnation, table, kind, index.space.space_id)
            for (table, kind), index in pinned.items()
        )


def count_points(workspace: Workspace, store: VectorStore, tenant: Tenant) -> tuple[int, int]:
    """The tenant's points by the store and by the ledger."""
    scope = workspace.registry.scope(tenant)
    pinned = list_indexes(workspace.ledger, tenant.incarnation).values()
    stored = sum(
        store.count(scope, IndexKey(index.table, index.vector_type, index.space)) for index in pinned
    )
    return stored, ledger_points(workspace, tenant)
