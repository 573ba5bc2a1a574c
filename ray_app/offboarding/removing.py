"""Removing a tenant: the registry first, then its late writers, then what there is of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from ray_app.db import erasures, fences
from ray_app.db.locks import alone
from ray_app.db.progress import list_jobs
from ray_app.errors import ConflictError, JobConflict, RowbeamError, UnknownTenant
from ray_app.offboarding.purging import purge, signing_key
from ray_app.offboarding.reports import Erasure, ErasureReport, Stage
from ray_app.store.port import OpenStore, VectorStore
from ray_app.tenants import Tenant, TenantState
from ray_app.workspace import Workspace

log = logging.getLogger(__name__)
#: Seconds that removing a tenant waits for the last part of a job that was just fenced off.
DRAIN: Final = 60.0


def remove_tenant(workspace: Workspace, store: VectorStore, name: str) -> ErasureReport:
    """Erase a tenant's vectors and ledger rows until a round finds nothing. The platform's rows stay.

    From the first step on no scope of it can be minted and its writers are refused. A removal
    that was cut off is taken up where it stopped. A second round is due when the retention is over.

    Raises:
        UnknownTenant: there is none of that name.
        JobConflict: a job of the tenant is running.
        ConflictError: another process is erasing it.
    """
    tenant = workspace.registry.find_unfinished_removal(name) or workspace.registry.get(name)
    running = _running_jobs(workspace, tenant)
    if running:
        raise JobConflict(
            f"Job {running[0]} of this tenant is running.",
            job_id=running[0],
            hint=f"Stop it first: rowbeam cancel {running[0]}.",
        )
    with _alone(workspace, tenant.incarnation):
        with workspace.ledger.begin() as connection:
            if not fences.retire(connection, tenant.incarnation):
                raise UnknownTenant(f"The tenant {name!r} was removed meanwhile.")
            # Looked up now that no move can switch any more.
            places = fences.places(connection, tenant.incarnation)
            erasures.begin(connection, tenant.incarnation, places)
        _drain(workspace, tenant)
        erasure = purge(workspace, store, tenant.incarnation)
    return _report(name, erasure)


class Erasures:
    """Removals that began. All methods raise ``ray_app.errors``."""

    def __init__(self, workspace: Workspace, open_store: OpenStore) -> None:
        self._workspace = workspace
        self._open_store = open_store

    def list(self) -> list[Erasure]:
        """All of them, the latest first."""
        return erasures.list_all(self._workspace.ledger)

    def get(self, incarnation: UUID) -> Erasure:
        """Raises UnknownErasure."""
        return erasures.get(self._workspace.ledger, incarnation)

    def public_key(self) -> str:
        """The key, in PEM, that records of this deployment are checked with."""
        return signing_key(self._workspace).public_key

    def finish_due(self) -> Sequence[Erasure]:
        """Do the rounds that are due, those of removals that were cut off among them; what came of each.

        One that fails is logged and stays due, and the others go on.
        """
        done = []
        for incarnation in erasures.due(self._workspace.ledger):
            try:
                done.append(self._finish(incarnation))
            except RowbeamError as error:
                log.warning("The erasure of tenant %s is not finished: %s", incarnation, error.message)
        return done

    def _finish(self, incarnation: UUID) -> Erasure:
        workspace = self._workspace
        with _alone(workspace, incarnation):
            if incarnation not in erasures.due(workspace.ledger):
                return self.get(incarnation)  # another process was here meanwhile
            tenant = workspace.registry.find_incarnation(incarnation)
            if tenant.state is TenantState.DELETING:
                _drain(workspace, tenant)
            with self._open_store() as store:
                return purge(workspace, store, incarnation)


@contextmanager
def _alone(workspace: Workspace, incarnation: UUID) -> Iterator[None]:
    with alone(workspace.ledger, f"rowbeam:erase:{incarnation}") as taken:
        if not taken:
            raise ConflictError(
                "Another process is erasing this tenant.", hint="rowbeam tenant erasures shows how far it is."
            )
        yield


def _report(name: str, erasure: Erasure) -> ErasureReport:
    erased, last = erasure.erased, erasure.rounds[-1]
    return ErasureReport(
        name,
        str(erasure.incarnation),
        erased.points_total,
        erased.rows_total,
        last.points_found,
        last.rows_found,
        None if erasure.stage is Stage.ERASING else erasure.due_at,
        erasure.record,
    )


def _running_jobs(workspace: Workspace, tenant: Tenant) -> list[str]:
    jobs = list_jobs(workspace.ledger, include_ended=False)
    return [job.job_id for job in jobs if job.tenant == tenant.name and job.state.active]


def _drain(workspace: Workspace, tenant: Tenant) -> None:
    """Wait for a job that began in the same moment to run into the fence."""
    deadline = time.monotonic() + DRAIN
    while _running_jobs(workspace, tenant):
        if time.monotonic() > deadline:
            raise ConflictError(
                "A job of this tenant does not end.", hint="Stop its process, then try again."
            )
        time.sleep(0.2)
