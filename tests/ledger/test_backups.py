"""The embedded store backed up and restored: to the point, whole or not at all, and of no removed tenant."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ray_app.errors import ConflictError, InputError, StoreUnavailable
from ray_app.offboarding.removing import remove_tenant
from ray_app.portability import restoring
from ray_app.portability.backups import back_up
from ray_app.portability.reports import BackupReport, RestoreReport
from ray_app.reconciling.drift import Kind
from ray_app.reconciling.operation import Repair, reconcile
from ray_app.reconciling.reports import ReconcileReport
from ray_app.settings import Settings
from ray_app.store import edge_files
from ray_app.store.edge import EdgeStore
from ray_app.store.routing import RoutedStore
from ray_app.tenants import Placement, Tenant
from ray_app.workspace import Workspace
from tests.support.migration_jobs import InlineJobs
from tests.support.parts_site import Site

ROWS = 30


class Place(Site):
    """A site whose store is opened for each operation, as the command line does it."""

    def __init__(self, workspace: Workspace, tenant: Tenant) -> None:
        self.edge = workspace.settings.edge_dir
        super().__init__(workspace, EdgeStore(self.edge), tenant)

    @contextmanager
    def open(self) -> Iterator[RoutedStore]:
        yield RoutedStore(lambda: self.store, None)

    def back_up(self, out: Path, tenant: Tenant | None = None) -> BackupReport:
        return back_up(self.workspace, self.open, out, tenant)

    def restore(self, folder: Path, *, tenant: Tenant | None = None, force: bool = True) -> RestoreReport:
        return restoring.restore(self.workspace, self.open, folder, tenant, force=force)

    def look(self, repair: Repair | None = None) -> ReconcileReport:
        return reconcile(
            self.workspace,
            self.open,
            self.tenant,
            repair=repair,
            grace=0,
            run_job=InlineJobs(self.store),
        )

    def shards(self) -> list[Path]:
        return sorted(edge_files.shards(self.edge))


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy has some fifty files, and forcing each to disk is most of its time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def place(make_settings: Callable[..., Settings]) -> Iterator[Place]:
    workspace = Workspace(make_settings())
    tenant, _ = workspace.registry.create("acme", 1, Placement.EMBEDDED)
    made = Place(workspace, tenant)
    made.insert(*((number, f"change number {number}") for number in range(ROWS)))
    made.backfill()
    yield made
    made.store.close()
    workspace.close()


@pytest.fixture
def backup(place: Place, tmp_path: Path) -> Path:
    out = tmp_path / "backup"
    report = place.back_up(out)
    assert [(shard.tenant, shard.points) for shard in report.shards] == [("acme", ROWS)]
    assert report.elsewhere == ()
    return out


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_what_changed_since_the_backup_is_found_to_the_record_and_mended(place: Place, backup: Path) -> None:
    place.sql("UPDATE pull_requests SET title = 'a later title ' || id WHERE id < 3")
    place.sql("DELETE FROM pull_requests WHERE id IN (20, 21)")
    place.insert((ROWS, "a new one"))
    place.backfill()
    assert place.look().clean

    report = place.restore(backup)

    assert (report.tenants, [shard.points for shard in report.shards]) == (("acme",), [ROWS])
    found = place.look()
    kinds = {kind: {item.record_id for item in found.examples if item.kind is kind} for kind in Kind}
    assert {kind: records for kind, records in kinds.items() if records} == {
        Kind.STALE: {"0", "1", "2"},
        Kind.MISSING: {str(ROWS)},
        Kind.ORPHAN: {"20", "21"},
    }
    assert found.drift == 6
    assert place.look(Repair(share=None)).in_step
    assert place.look().clean
    assert place.find("a new one")[0] == str(ROWS)


def test_a_store_that_is_gone_comes_back_as_it_was(place: Place, backup: Path) -> None:
    place.store.close()
    shutil.rmtree(place.edge)
    assert place.look().count(Kind.MISSING) == ROWS
    place.restore(backup, force=False)
    assert place.look().clean
    assert place.find("change number 7")[0] == "7"


def test_a_damaged_shard_is_replaced_when_that_is_asked_for(place: Place, backup: Path) -> None:
    place.store.close()
    (config,) = place.shards()[0].glob("segments/*/segment.json")
    config.write_text("{")
    with pytest.raises(StoreUnavailable, match="Qdrant Edge failed"):
        place.restore(backup, force=False)
    place.restore(backup)
    assert place.look().clean


def test_vectors_are_not_overwritten_unless_asked(place: Place, backup: Path) -> None:
    with pytest.raises(ConflictError, match=r"acme has vectors.*Nothing was changed.*--force"):
        place.restore(backup, force=False)


def test_a_backup_is_its_owners_alone_and_keeps_holes(place: Place, backup: Path) -> None:
    files = [path for path in backup.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [backup, *backup.rglob("*")] if path.is_dir()} == {
        0o700
    }
    (report,) = place.back_up(backup.with_name("second")).shards
    assert report.bytes < sum(path.stat().st_size for path in files) / 4
    assert [path.name for path in backup.parent.glob(".*")] == []


def test_nothing_stays_of_a_backup_that_fails(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ray_app.store.file_copies._copy_range", full)
    with pytest.raises(StoreUnavailable, match=r"copied to .*out.*No space left"):
        place.back_up(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
    assert place.find("change number 7")[0] == "7"


def test_an_existing_folder_is_refused(place: Place, backup: Path) -> None:
    before = (backup / "manifest.json").read_bytes()
    with pytest.raises(ConflictError, match="exists"):
        place.back_up(backup)
    assert (backup / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["changed", "missing", "link"])
def test_a_damaged_backup_changes_nothing(place: Place, backup: Path, damage: str) -> None:
    file = next(path for path in backup.rglob("*") if path.is_file() and "mappings" in path.name)
    if damage == "changed":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    else:
        file.unlink()
    if damage == "link":
        file.symlink_to("/etc/hostname")
    place.insert((ROWS, "a new one"))
    place.backfill()
    with pytest.raises(InputError, match=file.name):
        place.restore(backup)
    assert place.look().clean


@pytest.mark.parametrize("name", ["../../outside", "/etc/hostname", "wal/../../../x"])
def test_a_manifest_cannot_name_files_outside_of_its_folder(place: Place, backup: Path, name: str) -> None:
    def lead_out(document: dict[str, Any]) -> None:
        document["shards"][0]["files"][0]["path"] = name

    edit(backup, lead_out)
    with pytest.raises(InputError, match="is not in it"):
        place.restore(backup)


def test_a_folder_that_is_no_backup(place: Place, backup: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        place.restore(tmp_path)
    edit(backup, lambda document: document.update(format_version=2))
    with pytest.raises(InputError, match=r"not the manifest of a backup.*format_version"):
        place.restore(backup)


def test_a_backup_of_a_newer_engine_is_refused(place: Place, backup: Path) -> None:
    edit(backup, lambda document: document.update(edge="99.0.0"))
    with pytest.raises(InputError, match=r"Qdrant Edge 99\.0\.0"):
        place.restore(backup)


def test_a_removed_tenant_does_not_come_back(place: Place, backup: Path) -> None:
    other, _ = place.workspace.registry.create("umbra", 2, Placement.EMBEDDED)
    assert remove_tenant(place.workspace, place.store, "acme").proven
    again, _ = place.workspace.registry.create("acme", 1, Placement.EMBEDDED)
    for tenant in (None, again):
        with pytest.raises(ConflictError, match="acme: it was removed since"):
            place.restore(backup, tenant=tenant)
    with pytest.raises(ConflictError, match="nothing to restore"):
        place.restore(backup, tenant=other)
    assert place.shards() == []


def test_the_others_come_back_beside_a_removed_one(place: Place, tmp_path: Path) -> None:
    place.workspace.registry.create("umbra", 2, Placement.EMBEDDED)
    place.workspace.registry.create("far", 3, Placement.POOLED)
    umbra = place.workspace.registry.get("umbra")
    site = Site(place.workspace, place.store, umbra)
    site.insert((1, "a lighthouse"), client=2)
    site.backfill()
    report = place.back_up(tmp_path / "all")
    assert (sorted(shard.tenant for shard in report.shards), report.elsewhere) == (
        ["acme", "umbra"],
        ("far",),
    )
    with pytest.raises(InputError, match="on a Qdrant server"):
        place.back_up(tmp_path / "far", place.workspace.registry.get("far"))
    remove_tenant(place.workspace, place.store, "acme")
    site.store.drop_index(place.workspace.registry.scope(umbra), site.reader()._index.key)

    restored = place.restore(tmp_path / "all", force=False)

    assert (restored.tenants, [left.tenant for left in restored.not_restored]) == (("umbra",), ["acme"])
    assert site.find("a lighthouse") == ["1"]
    assert [path.name for path in place.shards()] == [str(umbra.incarnation)]


def test_one_tenants_points_are_not_put_in_another_ones_place(place: Place, backup: Path) -> None:
    other, _ = place.workspace.registry.create("umbra", 2, Placement.EMBEDDED)
    edit(backup, lambda document: document["shards"][0].update(incarnation=str(other.incarnation)))
    with pytest.raises(InputError, match="0 of them the tenant's"):
        place.restore(backup)
    assert [path.name for path in place.shards()] == [str(place.tenant.incarnation)]
    assert not list(place.edge.rglob("*.new"))


class Crash(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", range(4))
def test_a_crash_leaves_the_old_shard_or_the_new_one(
    place: Place, backup: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off before each of the renames and the removal of what was replaced."""
    place.insert((ROWS, "a new one"))
    place.backfill()
    left = step

    def falters(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Crash
            left -= 1
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(edge_files.Path, "rename", falters(Path.rename))
        patched.setattr(edge_files, "sync_folder", falters(edge_files.sync_folder))
        patched.setattr(edge_files.shutil, "rmtree", falters(shutil.rmtree))
        with pytest.raises(Crash):
            place.restore(backup)
    place.store.close()
    place.store = EdgeStore(place.edge)

    points = place.look().stored_points

    assert points == (ROWS + 1 if step < 2 else ROWS)
    assert not list(place.edge.rglob("*.old"))
    place.restore(backup)
    assert place.look().stored_points == ROWS
    assert os.listdir(place.shards()[0].parent).count(place.shards()[0].name) == 1
