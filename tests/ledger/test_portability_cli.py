"""``rowbeam export``, ``import``, ``backup`` and ``restore`` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_app.cli.app import run
from ray_app.cli.output import FAILED, OK, USAGE
from ray_app.settings import Settings
from ray_app.store.edge import EdgeStore
from ray_app.tenants import Placement
from ray_app.workspace import Workspace
from tests.support.parts_site import TABLE, Site

ROWS = 12


@pytest.fixture
def home(make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with a tenant ``acme``, whose rows are indexed, and the environment of its commands."""
    settings = make_settings()
    workspace = Workspace(settings)
    tenant, _ = workspace.registry.create("acme", 1, Placement.EMBEDDED)
    workspace.registry.create("umbra", 2, Placement.EMBEDDED)
    store = EdgeStore(settings.edge_dir)
    site = Site(workspace, store, tenant)
    site.insert(*((number, f"change number {number}") for number in range(ROWS)))
    site.sql(
        f"INSERT INTO {TABLE} (client_id, id, title, status, created_at, updated_at)"
        f" SELECT 2, id, title, status, created_at, updated_at FROM {TABLE}"
    )
    site.backfill()
    store.close()
    workspace.close()
    assert settings.database_url is not None
    monkeypatch.setenv("ROWBEAM_HOME", str(settings.home))
    monkeypatch.setenv("ROWBEAM_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("ROWBEAM_LOCAL_MODEL", "stub")
    return settings


@pytest.fixture
def rowbeam(home: Settings, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def call(*arguments: str | Path, code: int = OK) -> Any:
        capsys.readouterr()
        found = run([str(argument) for argument in arguments])
        out = capsys.readouterr().out
        assert found == code, out
        return json.loads(out) if "--json" in arguments else out

    return call


def test_a_tenants_index_for_another_tenant(rowbeam: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported = rowbeam("export", "--tenant", "acme", "--out", out, "--json")
    assert exported["folder"] == str(out)
    assert [(index["table"], index["points"]) for index in exported["indexes"]] == [(TABLE, ROWS)]

    job = rowbeam("import", out, "--tenant", "umbra", "--json")

    assert (job["kind"], job["state"], job["counts"]["embedded"]) == ("import", "succeeded", ROWS)
    assert [job["kind"] for job in rowbeam("jobs", "--all", "--json")["jobs"]] == ["import", "backfill"]
    looked = rowbeam("reconcile", "--tenant", "umbra", "--json")
    assert (looked["clean"], looked["stored_points"]) == (True, ROWS)
    hits = rowbeam("search", "change number 7", "--tenant", "umbra", "--table", TABLE, "--json")["hits"]
    assert hits[0]["record_id"] == "7"
    refused = rowbeam("import", out, "--tenant", "umbra", "--json", code=FAILED)
    assert refused["error"]["type"] == "ConflictError"


def test_a_backup_and_its_restore(rowbeam: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (shard,) = rowbeam("backup", "--out", out, "--json")["shards"]
    assert (shard["tenant"], shard["points"]) == ("acme", ROWS)
    assert rowbeam("restore", out, "--json", code=FAILED)["error"]["type"] == "ConflictError"
    done = rowbeam("restore", out, "--tenant", "acme", "--force", "--reconcile", "--json")
    assert done["restored"]["tenants"] == ["acme"]
    assert [each["report"]["clean"] for each in done["reconciled"]] == [True]


def test_what_people_see(rowbeam: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert f"acme is in {out}" in rowbeam("export", "--tenant", "acme", "--out", out)
    assert "12 written" in rowbeam("import", out, "--tenant", "umbra")
    assert "2 shards are in" in rowbeam("backup", "--out", tmp_path / "saved")
    shown = rowbeam("restore", tmp_path / "saved", "--force")
    assert "acme: 12 points of stub, as of" in shown
    assert "rowbeam reconcile --tenant umbra --repair" in shown
    assert "acme: 0 differed, 0 mended, 0 left." in rowbeam(
        "restore", tmp_path / "saved", "--force", "--reconcile"
    )


@pytest.mark.parametrize("command", ["export", "import", "backup", "restore"])
def test_a_command_line_that_is_not_whole(command: str) -> None:
    assert run([command]) == USAGE
