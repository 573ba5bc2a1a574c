"""The moment at which two generations change places, and the end of one of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, delete, func, select, text, update

from ray_app.db import dead_letters, generations, ledger
from ray_app.db.fences import lock_active
from ray_app.db.generations import Generation, MigrationRow, of_index
from ray_app.db.indexes import PinnedIndex
from ray_app.db.schema import index_migrations, indexes, qdrant_vectors, tenants
from ray_app.errors import ConflictError
from ray_app.migrating.following import Follower
from ray_app.migrating.states import Step, follow
from ray_app.spaces import EmbeddingSpace, VectorType
from ray_app.store.port import IndexKey, VectorStore
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

#: Changes that may be left to follow while writes wait: about a second of work for a local model on a CPU.
LAST_CHANGES: Final = 100
#: Seconds to wait for writes under way to end.
GATE_SECONDS: Final = 10


def switch(
    workspace: Workspace,
    tenant: Tenant,
    followers: Sequence[Follower],
    pinned: Sequence[PinnedIndex],
    keep: timedelta,
    most: int = LAST_CHANGES,
) -> float | None:
    """Bind the indexes to the generations that ``followers`` write, in one transaction.

    ``pinned[i]`` is the index that ``followers[i]`` replaces. Writes wait meanwhile; searches do not, and
    one that has looked the former binding up finds its generation for as long as it is kept. Answers for
    how many seconds writes waited; None, and nothing changed, when more than ``most`` records had.

    Raises:
        ConflictError: it was given up, or is not verified.
        DatabaseUnavailable: writes under way did not end in ``GATE_SECONDS``, or Postgres is down.
        ProviderUnavailable, StoreUnavailable: the last changes could not be followed; nothing changed.
    """
    with workspace.ledger.begin() as hold:
        hold.execute(text(f"SET LOCAL lock_timeout = '{GATE_SECONDS}s'"))
        generations.close_gates(hold, [Generation.of(tenant.incarnation, index) for index in pinned])
        began = time.monotonic()
        lock_active(hold, tenant.incarnation)
        if sum(follower.behind() for follower in followers) > most:
            return None
        for follower in followers:
            while follower.follow():
                pass
        rows = generations.list_migrations(hold, tenant.incarnation, lock=True)
        for index, follower in zip(pinned, followers, strict=True):
            _swap(hold, tenant, index, follower.target.reader.index.space, rows, keep)
    return time.monotonic() - began


def _swap(
    connection: Connection,
    tenant: Tenant,
    index: PinnedIndex,
    space: EmbeddingSpace,
    rows: Mapping[tuple[str, VectorType], MigrationRow],
    keep: timedelta,
) -> None:
    row = rows.get((index.table, index.vector_type))
    stage = follow(row.stage if row else None, Step.SWITCH)
    key = (tenant.incarnation, index.table, str(index.vector_type))
    bound = connection.execute(
        update(indexes)
        .where(of_index(indexes, *key), indexes.c.space_id == index.space.space_id)
        .values(space_id=space.space_id)
    ).rowcount
    moved = connection.execute(
        update(index_migrations)
        .where(of_index(index_migrations, *key), index_migrations.c.space_id == space.space_id)
        .values(
            space_id=index.space.space_id,
            stage=stage,
            switched_at=func.now(),
            keep_until=func.now() + keep,
        )
    ).rowcount
    if not bound or not moved:
        raise ConflictError("The index was changed by another process meanwhile.", hint="See --status.")
    generations.forget_changes(connection, *key)


def drop(workspace: Workspace, store: VectorStore, tenant: Tenant, row: MigrationRow) -> None:
    """Delete a generation that is being dropped: points first, ledger second. Done again, it goes on.

    Raises:
        UnknownTenant: the tenant is being removed, and this with it.
        StoreUnavailable, DatabaseUnavailable: some of it may be left.
    """
    scope = workspace.registry.scope(tenant)
    key = (tenant.incarnation, row.table, str(row.vector_type))
    with workspace.ledger.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{GATE_SECONDS}s'"))
        # Nobody of this tenant writes meanwhile, so nothing comes to be in the space unseen.
        connection.execute(
            select(tenants.c.state).where(tenants.c.incarnation == tenant.incarnation).with_for_update()
        )
        lock_active(connection, tenant.incarnation)
        if _is_used(connection, tenant, row):
            store.drop_index(scope, IndexKey(row.table, row.vector_type, row.space))
        else:
            store.erase(scope, [row.space])
        mine = ledger.of_index(*key, row.space.space_id)
        connection.execute(delete(qdrant_vectors).where(mine))
        dead_letters.forget_all(connection, *key, row.space.space_id)
        generations.forget_changes(connection, *key)
        connection.execute(
            delete(index_migrations).where(
                of_index(index_migrations, *key), index_migrations.c.space_id == row.space.space_id
            )
        )


def _is_used(connection: Connection, tenant: Tenant, row: MigrationRow) -> bool:
    """Whether the tenant has anything else in the space, or is about to."""
    other = [
        select(table.c.table_name).where(
            table.c.incarnation == tenant.incarnation,
            table.c.space_id == row.space.space_id,
            (table.c.table_name != row.table) | (table.c.vector_type != row.vector_type),
        )
        for table in (indexes, index_migrations)
    ]
    return any(connection.execute(query.limit(1)).first() is not None for query in other)
