"""Backup of the embedded store: shards copied as they are on disk, one after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from ray_app.db.indexes import list_spaces
from ray_app.errors import InputError, UnknownTenant
from ray_app.portability import manifests
from ray_app.portability.folders import digest, new_folder, written
from ray_app.portability.manifests import BackupManifest, FileEntry, ShardEntry, SpaceEntry
from ray_app.portability.reports import BackupReport, SavedTenantShard
from ray_app.spaces import EmbeddingSpace
from ray_app.store.routing import EdgePort, RoutedStore
from ray_app.tenants import Placement, Tenant, TenantScope
from ray_app.workspace import Workspace

ENGINE: Final = "qdrant-edge-py"
#: Bytes of what ``stat`` counts blocks in.
_STAT_BLOCK: Final = 512
OpenStore = Callable[[], AbstractContextManager[RoutedStore]]


def back_up(workspace: Workspace, open_store: OpenStore, out: Path, tenant: Tenant | None) -> BackupReport:
    """Copy the shards of a tenant, or of all, to the new folder ``out``, with a manifest.

    Each is copied at rest, so that it is consistent by itself; several are of moments that follow each other.

    Raises:
        ConflictError: ``out`` exists.
        InputError: it cannot be written, or the tenant's vectors are on a Qdrant server.
        StoreUnavailable: a shard cannot be read.
    """
    began = time.monotonic()
    everybody = workspace.registry.list() if tenant is None else [tenant]
    tenants = [each for each in everybody if each.placement is Placement.EMBEDDED]
    if tenant is not None and not tenants:
        raise InputError(
            f"The vectors of {tenant.name} are not in the embedded store but on a Qdrant server.",
            hint="Use the server's snapshots, or rowbeam export.",
        )
    out = out.absolute()
    saved: list[tuple[ShardEntry, SavedTenantShard]] = []
    with new_folder(out) as draft:
        with open_store() as store:
            edge = store.embedded()
            for space in list_spaces(workspace.ledger):
                with written(out):
                    (draft / space.space_id).mkdir(mode=0o700)
                for each in tenants:
                    # Of all tenants, one that is removed meanwhile has no place in it.
                    with nullcontext() if tenant else suppress(UnknownTenant):
                        saved += _save(edge, workspace.registry.scope(each), each, space, draft)
        entries = tuple(entry for entry, _ in saved)
        manifests.write(
            draft,
            BackupManifest(
                created_at=datetime.now(UTC),
                software=manifests.software(),
                edge=version(ENGINE),
                shards=entries,
            ),
        )
    elsewhere = tuple(each.name for each in everybody if each not in tenants)
    return BackupReport(
        out, tuple(shard for _, shard in saved), elsewhere, round(time.monotonic() - began, 2)
    )


def _save(
    edge: EdgePort, scope: TenantScope, tenant: Tenant, space: EmbeddingSpace, draft: Path
) -> Iterator[tuple[ShardEntry, SavedTenantShard]]:
    """The tenant's shard of the space, when it has one."""
    name = f"{space.space_id}/{tenant.incarnation}"
    folder = draft / name
    shard = edge.save_shard(scope, space, folder)
    if shard is None:
        return
    # Read again only now, when the store serves others.
    with written(folder):
        folders, files, taken = _describe(folder)
    entry = ShardEntry(
        tenant=tenant.name,
        incarnation=tenant.incarnation,
        space=SpaceEntry.of(space),
        space_id=space.space_id,
        folder=name,
        points=shard.points,
        folders=folders,
        files=files,
    )
    where = (tenant.name, space.space_id, space.model)
    yield entry, SavedTenantShard(*where, shard.points, taken, round(shard.held, 3))


def _describe(shard: Path) -> tuple[tuple[str, ...], tuple[FileEntry, ...], int]:
    """The folders and files of a copy, forced to disk, and the bytes they take there. Raises OSError."""
    folders: list[str] = []
    files: list[FileEntry] = []
    taken = 0
    for place, inner, names in os.walk(shard):
        folders += [str((Path(place) / name).relative_to(shard)) for name in inner]
        for path in (Path(place) / name for name in names):
            about = path.stat()
            taken += about.st_blocks * _STAT_BLOCK
            files.append(
                FileEntry(
                    path=str(path.relative_to(shard)), bytes=about.st_size, sha256=digest(path, sync=True)
                )
            )
    return tuple(sorted(folders)), tuple(sorted(files, key=lambda file: file.path)), taken
