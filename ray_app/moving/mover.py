"""One run of a move, from the copy to the switch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, TypeAlias

from sqlalchemy import update

from ray_app.db.indexes import list_indexes
from ray_app.db.schema import tenant_moves
from ray_app.errors import ConflictError
from ray_app.moving import switching
from ray_app.moving.copying import IndexCopier, Looked, Places
from ray_app.moving.reports import MoveProgress, Phase
from ray_app.moving.verifying import verify
from ray_app.onboarding import ledger_points
from ray_app.store.port import VectorStore
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

OnProgress: TypeAlias = Callable[[MoveProgress], None]
#: Times that the switch waits for a moment with nothing left to follow, and times that it is tried in all
#: before writes are found to come faster than they can be followed.
PATIENT_TRIES: Final = 10
TRIES: Final = 20
#: Records followed at a time that are few enough to go on with something else.
_FEW: Final = switching.LAST_CHANGES // 4


class Mover:
    """One run of a move, from the copy to the switch."""

    def __init__(
        self,
        workspace: Workspace,
        store: VectorStore,
        tenant: Tenant,
        places: Places,
        on_progress: OnProgress | None,
    ) -> None:
        self._workspace = workspace
        self._store = store
        self._tenant = tenant
        self._places = places
        self._on_progress = on_progress
        self._copiers: list[IndexCopier] = []
        #: What was copied and deleted in all.
        self.moved = Looked()

    def run(self) -> float:
        """Seconds for which writes waited."""
        keep = timedelta(days=self._workspace.settings.migration_keep_days)
        for attempt in range(TRIES):
            if self._take_up_indexes():
                self._copy()
                self._verify()
            self._catch_up()
            self._show(Phase.SWITCHING, 0, 0)
            most = 0 if attempt < PATIENT_TRIES else switching.LAST_CHANGES
            waited = switching.switch(self._workspace, self._tenant, self._places, self._copiers, keep, most)
            if waited is not None:
                return waited
        raise ConflictError(
            "Records change faster than the copy can follow them.",
            hint="Run it again when it is calmer: it goes on where it was.",
        )

    def _take_up_indexes(self) -> bool:
        """Whether some have not been copied and verified: all of them, or one that was made since."""
        pinned = list(list_indexes(self._workspace.ledger, self._tenant.incarnation).values())
        if [copier.index for copier in self._copiers] == pinned and self._copiers:
            return False
        self._copiers = [IndexCopier(self._workspace, self._store, self._places, index) for index in pinned]
        return True

    def _copy(self) -> None:
        total, done = ledger_points(self._workspace, self._tenant), 0
        for copier in self._copiers:
            copier.prepare()
            for looked in copier.look():
                done += looked.points
                self.moved.add(looked)
                self._show(Phase.COPYING, done, total)

    def _verify(self) -> None:
        self._catch_up()
        total, done = ledger_points(self._workspace, self._tenant), 0

        def show(looked: Looked) -> None:
            nonlocal done
            done += looked.points
            self._show(Phase.VERIFYING, done, total)

        found, looked = verify(self._workspace, self._store, self._places, self._copiers, show)
        self.moved.copied += looked.copied
        self.moved.deleted += looked.deleted
        with self._workspace.ledger.begin() as connection:
            connection.execute(
                update(tenant_moves)
                .where(tenant_moves.c.incarnation == self._tenant.incarnation)
                .values(report=found.to_json())
            )
        problems = found.problems()
        if problems:
            raise ConflictError(
                f"The copy was not put in place: {'; '.join(problems)}.",
                hint="The tenant stays where it is. Mend what differs with rowbeam reconcile --repair and run"
                " this again, or give it up with --abort.",
            )

    def _catch_up(self) -> None:
        """Follow what was noted until little comes at a time."""
        left = sum(copier.behind() for copier in self._copiers)
        for copier in self._copiers:
            self._show(Phase.FOLLOWING, 0, left)
            while copier.follow() > _FEW:
                pass

    def _show(self, phase: Phase, done: int, total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(MoveProgress(self._tenant.name, phase, done, total))
