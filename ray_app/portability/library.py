"""Export, import, backup and restore as calls of the library."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from ray_app.portability import backups, restoring
from ray_app.portability.reports import BackupReport, RestoreReport
from ray_app.store.routing import RoutedStore
from ray_app.workspace import Workspace


class PortabilityOperations:
    """What ``Rowbeam`` has of these; ``workspace`` and ``_store`` are its own."""

    @property
    def workspace(self) -> Workspace:
        raise NotImplementedError

    def _store(self) -> AbstractContextManager[RoutedStore]:
        raise NotImplementedError

    def backup(self, out: Path, *, tenant: str | None = None) -> BackupReport:
        """Copy the embedded store's shards, of a tenant or of all, to the new folder ``out``."""
        owner = None if tenant is None else self.workspace.registry.get(tenant)
        return backups.back_up(self.workspace, self._store, out, owner)

    def restore(self, folder: Path, *, tenant: str | None = None, force: bool = False) -> RestoreReport:
        """Put the shards of a backup in place; with ``force`` also where there are vectors.

        Reconcile the tenants afterwards: what was written since the backup is missing.
        """
        owner = None if tenant is None else self.workspace.registry.get(tenant)
        return restoring.restore(self.workspace, self._store, folder, owner, force=force)
