"""Search: embed the text in the index's own space, then ask the store."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.db.indexes import list_indexes
from ray_app.errors import InputError
from ray_app.reports import SearchHit
from ray_app.spaces import VectorType
from ray_app.store.port import Condition, IndexKey, VectorStore
from ray_app.tables import parse_vector_types
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace


def search(
    workspace: Workspace,
    store: VectorStore,
    tenant: Tenant,
    table: str,
    text: str,
    *,
    limit: int,
    conditions: Sequence[Condition],
    vector_type: str,
) -> list[SearchHit]:
    """The tenant's records nearest to ``text``, each once, best first.

    Raises:
        UnknownTable, UnknownVectorType: no such table spec or vector type.
        InputError: the text is blank, the limit is off, or the index does not exist yet.
        InvalidFilter: a condition cannot be compiled.
    """
    workspace.tables.get(table)
    (kind,) = parse_vector_types([vector_type])
    if not text.strip():
        raise InputError("The search text is empty.", hint="Say what to look for.")
    if not 1 <= limit <= 1000:
        raise InputError(f"The limit {limit} is out of range.", hint="Use 1 to 1000.")
    index = _pinned(workspace, tenant, table, kind)
    provider = workspace.providers.provider_for(index.space)
    hits = store.search(
        workspace.registry.scope(tenant),
        index,
        provider.embed_query(text.replace("\x00", "")),
        limit=limit,
        conditions=conditions,
    )
    return [SearchHit(table, hit.record_id, hit.score, hit.snippet, hit.data) for hit in hits]


def _pinned(workspace: Workspace, tenant: Tenant, table: str, kind: VectorType) -> IndexKey:
    pinned = list_indexes(workspace.ledger, tenant.incarnation).get((table, kind))
    if pinned is None:
        raise InputError(
            f"Tenant {tenant.name} has no {kind} index of table {table} yet.",
            hint=f"Make it: rowbeam backfill --tenant {tenant.name} --tables {table} --vector-type {kind}.",
        )
    return IndexKey(table, kind, pinned.space)
