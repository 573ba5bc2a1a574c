"""``rowbeam tenant move`` from the command line to both engines, the server's played in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_app.cli.app import run
from ray_app.cli.output import FAILED, OK
from ray_app.settings import Settings
from ray_app.store.server import ServerStore
from ray_app.tenants import Placement
from ray_app.workspace import Workspace
from tests.support.moving_site import LockedClient, MovingSite, mixed_store


@pytest.fixture
def command(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Any]:
    """Runs a command and reads its JSON; a tenant with three records in the embedded store is there."""
    settings = make_settings(qdrant_url="http://127.0.0.1:1")
    assert settings.database_url is not None
    for name, value in {
        "ROWBEAM_HOME": str(settings.home),
        "ROWBEAM_DATABASE_URL": settings.database_url.get_secret_value(),
        "ROWBEAM_QDRANT_URL": str(settings.qdrant_url),
        "ROWBEAM_LOCAL_MODEL": "stub",
    }.items():
        monkeypatch.setenv(name, value)
    client = LockedClient()
    monkeypatch.setattr(client, "close", lambda: None, raising=False)
    monkeypatch.setattr(ServerStore, "connect", lambda *_: ServerStore(client, retry_budget=0.0))  # type: ignore[arg-type]
    workspace = Workspace(settings)
    with mixed_store(Path(settings.edge_dir)) as store:
        site = MovingSite.of(workspace, store, Placement.EMBEDDED)
        site.insert((1, "one"), (2, "two"), (3, "three"))
        site.backfill()
    workspace.close()

    def call(*arguments: str, status: int = OK) -> Any:
        assert run(["tenant", "move", "acme", *arguments, "--json"]) == status
        return json.loads(capsys.readouterr().out)

    return call


def test_a_move_there_and_back_and_its_end(command: Callable[..., Any]) -> None:
    assert command("--status")["placement"] == "embedded"
    assert command("--to", "pooled", "--plan")["points"] == 3
    moved = command("--to", "pooled", "--yes")
    assert (moved["copied"], moved["status"]["placement"], moved["status"]["stage"]) == (3, "pooled", "kept")
    assert moved["status"]["verification"]["other_score"] == 0
    assert "is kept" in command("--to", "dedicated", "--yes", status=FAILED)["error"]["message"]
    back = command("--rollback", "--yes")
    assert (back["copied"], back["status"]["placement"], back["status"]["other"]) == (0, "embedded", "pooled")
    assert "former place" in command("--abort", "--yes", status=FAILED)["error"]["message"]


def test_nobody_is_asked_where_nobody_is(command: Callable[..., Any]) -> None:
    assert "--yes" in command("--to", "pooled", status=2)["error"]["hint"]
    assert command("--status")["other"] is None
