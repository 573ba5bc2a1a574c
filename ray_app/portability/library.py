"""Export, import, backup and restore as calls of the library."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from ray_app.portability import backups, restoring
from ray_app.portability.reports import BackupReport, ExportReport, RestoreReport
from ray_app.reports import JobProgress
from ray_app.store.routing import RoutedStore
from ray_app.workspace import Workspace


class PortabilityOperations:
    """What ``Rowbeam`` has of these; ``workspace`` and ``_store`` are its own."""

    @property
    def workspace(self) -> Workspace:
        raise NotImplementedError

    def _store(self) -> AbstractContextManager[RoutedStore]:
        raise NotImplementedError

    def export_tenant(self, tenant: str, out: Path) -> ExportReport:
        """Write the tenant's indexes as Parquet files to the new folder ``out``."""
        from ray_app.portability import exporting  # loads pyarrow, which no other command needs

        owner = self.workspace.registry.get(tenant)
        return exporting.export_tenant(self.workspace, self._store, owner, out)

    def import_tenant(
        self, folder: Path, *, tenant: str, on_progress: Callable[[JobProgress], None] | None = None
    ) -> JobProgress:
        """Write an export for a tenant that has none of its indexes, as a job that ends before this returns.

        A job that failed is returned, not raised; importing the same files again goes on with it.
        """
        from ray_app.portability import importing

        owner = self.workspace.registry.get(tenant)
        return importing.import_tenant(self.workspace, self._store, owner, folder, on_progress)

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
