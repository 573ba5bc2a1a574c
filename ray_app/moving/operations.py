"""Moves of tenants as the library offers them."""

from __future__ import annotations

import time

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from ray_app.db import clock, generations, ledger
from ray_app.db.fences import lock_placed
from ray_app.db.indexes import list_indexes
from ray_app.db.moves import due_names, find_move
from ray_app.db.schema import tenant_moves
from ray_app.errors import ConfigError, ConflictError
from ray_app.migrating.operations import SEARCH_GRACE
from ray_app.moving import switching
from ray_app.moving.copying import Places
from ray_app.moving.mover import Mover, OnProgress
from ray_app.moving.reports import (
    Moved,
    MovePlan,
    MoveStatus,
    PlaceVerification,
)
from ray_app.moving.states import Stage, Step, follow, refusal
from ray_app.onboarding import ledger_points
from ray_app.store.port import OpenStore
from ray_app.tenants import Placement, Tenant
from ray_app.workspace import Workspace


class Moves:
    """Moves of one workspace's tenants to another place. All methods raise ``ray_app.errors``."""

    def __init__(self, workspace: Workspace, open_store: OpenStore, *, grace: float = SEARCH_GRACE) -> None:
        self._workspace = workspace
        self._open_store = open_store
        self._grace = grace

    def plan(self, tenant: str, to: Placement) -> MovePlan:
        """What a move would copy. Changes nothing.

        Raises:
            ConflictError: the tenant is there already, or something stands in the way.
            ConfigError: there is no Qdrant server.
        """
        owner = self._workspace.registry.get(tenant)
        self._check(owner, to)
        indexes = list_indexes(self._workspace.ledger, owner.incarnation).values()
        records = points = size = 0
        with self._workspace.ledger.connect() as connection:
            self._entered(connection, owner, to)
            for index in indexes:
                where = (owner.incarnation, index.table, str(index.vector_type), index.space.space_id)
                count = ledger.point_count(connection, *where)
                records += ledger.record_count(connection, *where)
                points += count
                size += count * index.space.dimensions * 4
        return MovePlan(owner.name, owner.placement, to, len(indexes), records, points, size)

    def run(self, tenant: str, to: Placement, *, on_progress: OnProgress | None = None) -> Moved:
        """Bring the tenant's vectors to ``to``; called again, it goes on where it was.

        The former place is kept for ``migration_keep_days`` of the settings.

        Raises:
            ConflictError: the tenant is there already, another move or a change of model is not over, or
                the copy was found unfit.
            ConfigError: there is no Qdrant server.
        """
        return self._carry_out(self._workspace.registry.get(tenant), to, on_progress)

    def rollback(self, tenant: str, *, on_progress: OnProgress | None = None) -> Moved:
        """Go back to the place that was kept, once it is up to date. Raises ConflictError: none is kept."""
        owner = self._workspace.registry.get(tenant)
        with self._workspace.ledger.connect() as connection:
            row = find_move(connection, owner.incarnation)
        if row is None or not row.stage.returns:
            raise ConflictError("No former place is kept to go back to.", hint="See --status.")
        return self._carry_out(owner, row.placement, on_progress)

    def abort(self, tenant: str) -> MoveStatus:
        """Give a move up: what was copied is erased; one on its way back stays where it is, both kept."""
        return self._end(tenant, Step.ABORT)

    def finish(self, tenant: str) -> MoveStatus:
        """Let go of the former place before its time is over. There is no way back afterwards."""
        return self._end(tenant, Step.FINISH)

    def sweep(self) -> int:
        """Drop what was kept for long enough, and what was being dropped; of how many tenants."""
        with self._workspace.ledger.connect() as connection:
            names = due_names(connection)
        for name in names:
            self._end(name, Step.FINISH)
        return len(names)

    def status(self, tenant: str) -> MoveStatus:
        """Where the tenant's vectors are, and what is beside that."""
        owner = self._workspace.registry.get(tenant)
        pinned = list_indexes(self._workspace.ledger, owner.incarnation)
        with self._workspace.ledger.connect() as connection:
            row = find_move(connection, owner.incarnation)
            if row is None:
                return MoveStatus(owner.name, owner.placement)
            behind = sum(
                generations.count_changes(connection, owner.incarnation, table, str(kind))
                for table, kind in pinned
            )
        return MoveStatus(
            *(owner.name, owner.placement, row.placement, row.stage, row.total, row.done, behind),
            *(PlaceVerification.from_json(row.report), row.switched_at, row.keep_until),
        )

    def _check(self, tenant: Tenant, to: Placement) -> None:
        if tenant.placement is to:
            raise ConflictError(
                f"Tenant {tenant.name} is {to} already.",
                hint=f"rowbeam tenant move {tenant.name} --status shows what is beside it.",
            )
        if to is not Placement.EMBEDDED and self._workspace.settings.embedded_store:
            raise ConfigError(f"Placement {to} needs a Qdrant server.", hint="Set ROWBEAM_QDRANT_URL.")

    def _entered(self, connection: Connection, tenant: Tenant, to: Placement) -> Stage | None:
        """The stage in which a move to ``to`` begins, or goes on."""
        row = find_move(connection, tenant.incarnation)
        if generations.list_migrations(connection, tenant.incarnation):
            raise ConflictError(
                "A change of model of one of the tenant's indexes is under way, or its former index is kept.",
                hint="Let it end, or let go of it: rowbeam migrate --status, then --finish.",
            )
        if row is None:
            return follow(None, Step.START)
        if row.placement is not to:
            raise refusal(row.stage)
        return follow(row.stage, Step.RETURN if row.stage.returns else Step.START)

    def _begin(self, tenant: Tenant, places: Places) -> None:
        """Put the move on record, or take it up; from now on what is written is noted.

        Raises:
            ConflictError: another move, or a change of model, is not over.
            TenantMoved, UnknownTenant: it was moved, or is being removed.
        """
        total = ledger_points(self._workspace, tenant)
        with self._workspace.ledger.begin() as connection:
            switching.close_all(connection, self._workspace, tenant)
            find_move(connection, tenant.incarnation, lock=True)
            lock_placed(connection, places.source, move=True)
            # Only now, for where there was no row to lock another may have been first.
            stage = self._entered(connection, tenant, places.target.placement)
            values = {"placement": places.target.placement, "stage": stage, "total": total, "done": 0}
            connection.execute(
                insert(tenant_moves)
                .values(incarnation=tenant.incarnation, **values)
                .on_conflict_do_update(index_elements=[tenant_moves.c.incarnation], set_=values)
            )

    def _carry_out(self, tenant: Tenant, to: Placement, on_progress: OnProgress | None) -> Moved:
        self._check(tenant, to)
        registry = self._workspace.registry
        source = registry.scope(tenant)
        places = Places(source, registry.scope_at(source, to))
        with self._open_store() as store:
            self._begin(tenant, places)
            mover = Mover(self._workspace, store, tenant, places, on_progress)
            waited = mover.run()
        return Moved(self.status(tenant.name), mover.moved.copied, mover.moved.deleted, waited)

    def _end(self, tenant: str, step: Step) -> MoveStatus:
        owner = self._workspace.registry.get(tenant)
        with self._workspace.ledger.connect() as connection:
            before = find_move(connection, owner.incarnation)
        if switching.leave(self._workspace, owner, step) is Stage.DROPPING:
            if before is not None and before.switched_at is not None:
                # Searches that had looked up the former place end first.
                time.sleep(clock.left_of(self._workspace.ledger, before.switched_at, self._grace))
            with self._open_store() as store:
                switching.drop(self._workspace, store, owner)
        return self.status(tenant)
