"""Restore of the embedded store: shards of a backup put in place, each whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final
from uuid import UUID

from ray_app.db.fences import lock_placed
from ray_app.errors import ConflictError, InputError
from ray_app.portability import manifests
from ray_app.portability.backups import ENGINE, OpenStore
from ray_app.portability.folders import digest, inside, written
from ray_app.portability.manifests import BackupManifest, ShardEntry
from ray_app.portability.reports import NotRestored, RestoredShard, RestoreReport
from ray_app.store.file_copies import copy_file, sync_folder
from ray_app.store.routing import EdgePort
from ray_app.tenants import Placement, Tenant
from ray_app.workspace import Workspace

_REMOVED: Final = "it was removed since, and does not come back"
_ELSEWHERE: Final = "its vectors are on a Qdrant server now"


def restore(
    workspace: Workspace, open_store: OpenStore, folder: Path, tenant: Tenant | None, *, force: bool
) -> RestoreReport:
    """Put the shards of a backup in place, of ``tenant`` or of all tenants that are the same ones still.

    Everything is checked before anything is changed. Each shard is replaced whole. What was written after
    the backup is missing then, which reconciling finds.

    Raises:
        InputError: the folder is no backup, is damaged, or was made by a newer engine.
        ConflictError: there is nothing in it that may be restored, or a shard has points and ``force`` was
            not given.
        UnknownTenant: a tenant was removed meanwhile.
        StoreUnavailable: a shard cannot be opened or written.
    """
    began = time.monotonic()
    folder = folder.absolute()
    manifest = manifests.read(folder, BackupManifest)
    _check_engine(manifest)
    active = {each.incarnation: each for each in workspace.registry.list()}
    chosen, refused = _choose(manifest, active, tenant)
    if not chosen:
        reasons = " ".join(f"{each.tenant}: {each.reason}." for each in refused)
        raise ConflictError(
            f"The backup has nothing to restore. {reasons}".rstrip(),
            hint="rowbeam backfill makes vectors anew.",
        )
    for entry in chosen:
        _check(folder, entry)
    with open_store() as store:
        edge = store.embedded()
        if not force:
            _check_room(workspace, edge, chosen, active)
        for entry in chosen:
            _put_back(workspace, edge, folder, entry, active[entry.incarnation], force=force)
    shards = tuple(
        RestoredShard(active[entry.incarnation].name, entry.space_id, entry.space.model, entry.points)
        for entry in chosen
    )
    return RestoreReport(
        folder, manifest.created_at, shards, tuple(refused), round(time.monotonic() - began, 2)
    )


def _check_engine(manifest: BackupManifest) -> None:
    """A newer engine may write what an older one cannot read, and does not say so itself."""
    own = version(ENGINE)
    if _release(manifest.edge) > _release(own):
        raise InputError(
            f"The backup was made by Qdrant Edge {manifest.edge}; this is {own}.",
            hint=f"Install the version that made it: {manifest.software}.",
        )


def _release(number: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in number.split(".")[:2])
    except ValueError:
        raise InputError(f"The backup names no version of Qdrant Edge, but {number!r}.") from None


def _choose(
    manifest: BackupManifest, active: Mapping[UUID, Tenant], tenant: Tenant | None
) -> tuple[list[ShardEntry], list[NotRestored]]:
    """The shards that may be restored, and the tenants that may not: a removed one must not come back."""
    chosen: list[ShardEntry] = []
    refused: dict[UUID, NotRestored] = {}
    for entry in manifest.shards:
        owner = active.get(entry.incarnation)
        if tenant is not None and tenant.name not in (entry.tenant, owner.name if owner else ""):
            continue
        if owner is None:
            refused[entry.incarnation] = NotRestored(entry.tenant, entry.incarnation, _REMOVED)
        elif owner.placement is not Placement.EMBEDDED:
            refused[entry.incarnation] = NotRestored(owner.name, entry.incarnation, _ELSEWHERE)
        else:
            chosen.append(entry)
    return chosen, list(refused.values())


def _check(folder: Path, entry: ShardEntry) -> None:
    """Raises InputError for a shard that is not as it was written."""
    manifests.check_space(entry.space, entry.space_id)
    shard = inside(folder, entry.folder)
    for name in entry.folders:
        inside(shard, name)
    for file in entry.files:
        manifests.check_file(shard, file)


def _check_room(
    workspace: Workspace, edge: EdgePort, chosen: Sequence[ShardEntry], active: Mapping[UUID, Tenant]
) -> None:
    """Raises ConflictError while nothing is changed, instead of half way."""
    taken = set()
    for entry in chosen:
        owner = active[entry.incarnation]
        if edge.shard_points(workspace.registry.scope(owner), entry.space.space):
            taken.add(owner.name)
    if taken:
        raise ConflictError(
            f"{', '.join(sorted(taken))} have vectors where the backup would go. Nothing was changed."
            if len(taken) > 1
            else f"{taken.pop()} has vectors where the backup would go. Nothing was changed.",
            hint="--force replaces them; what was written since the backup is then missing.",
        )


def _put_back(
    workspace: Workspace, edge: EdgePort, folder: Path, entry: ShardEntry, owner: Tenant, *, force: bool
) -> None:
    scope, space = workspace.registry.scope(owner), entry.space.space
    place = edge.shard_place(scope, space)
    try:
        with written(place):
            _lay_out(inside(folder, entry.folder), entry, place)
        with workspace.ledger.begin() as connection:
            # Held until it is in place: a removal or a move that came between would have erased too early.
            lock_placed(connection, scope)
            edge.restore_shard(scope, space, place, entry.points, force=force)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _lay_out(shard: Path, entry: ShardEntry, place: Path) -> None:
    """Copy what the manifest lists, and nothing else, to ``place``, forced to disk. Raises OSError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.mkdir(mode=0o700)
    for name in entry.folders:
        inside(place, name).mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in entry.files:
        target = inside(place, file.path)
        copy_file(inside(shard, file.path), target)
        if digest(target, sync=True) != file.sha256:
            raise InputError(f"{inside(shard, file.path)} was changed while it was read.")
    for here, _, _ in os.walk(place):
        sync_folder(Path(here))
