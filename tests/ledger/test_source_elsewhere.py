"""Platform tables in a database that is not the ledger's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, text

from ray_app.db.engine import engine_for
from ray_app.reports import Counts
from ray_app.settings import Settings
from ray_app.store.edge import EdgeStore
from ray_app.tenants import Placement
from ray_app.workspace import Workspace
from tests.ledger.test_parts_flow import Site


def test_rows_are_read_there_and_the_ledger_is_kept_here(
    make_settings: Callable[..., Settings], other_database_url: str, database: Engine, tmp_path: Path
) -> None:
    elsewhere = engine_for(other_database_url)
    with elsewhere.begin() as connection:
        connection.execute(text("DROP SCHEMA rowbeam CASCADE"))
        connection.execute(
            text("INSERT INTO pull_requests (id, client_id, title) VALUES (1, 1, 'there'), (2, 1, 'too')")
        )
    workspace = Workspace(make_settings(source_url=other_database_url))
    tenant, _ = workspace.registry.create("acme", 1, Placement.EMBEDDED)
    store = EdgeStore(tmp_path / "edge")
    site = Site(workspace, store, tenant)
    assert site.backfill() == Counts(read=2, embedded=2, chunks=2)
    with elsewhere.begin() as connection:
        connection.execute(text("DELETE FROM pull_requests WHERE id = 1"))
        assert connection.scalar(text("SELECT to_regnamespace('rowbeam')")) is None
    assert site.backfill() == Counts(read=2, unchanged=1, deleted=1)
    assert site.find("too") == ["2"]
    store.close()
    workspace.close()
    elsewhere.dispose()
