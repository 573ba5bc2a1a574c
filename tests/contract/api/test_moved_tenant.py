"""A key that was remembered before its tenant was moved: what it writes and finds is where the tenant is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from ray_app.api import authentication
from ray_app.moving.operations import Moves
from ray_app.onboarding import count_points
from ray_app.settings import Settings
from ray_app.tenants import Placement
from tests.contract.api.test_search import ISSUES, ask, ids, push
from tests.support.api_site import ApiSite
from tests.support.moving_site import mixed_store


def test_a_remembered_key_writes_and_finds_where_its_tenant_is(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "KEY_TTL", 3600.0)
    # Nothing listens there: the server is played by the site's store.
    settings = make_settings(qdrant_url="http://127.0.0.1:1")
    with mixed_store(tmp_path / "edge") as store, ApiSite(settings, wrap_store=lambda _: store) as site:
        key = site.add_tenant("acme")
        moves = Moves(site.workspace, lambda: nullcontext(store), grace=0.0)
        with site.http(key) as http:
            push(http, "issues", ISSUES)
            for place in (Placement.DEDICATED, Placement.EMBEDDED):
                moves.run("acme", place)
                row = {"id": f"9{len(place)}", "summary": f"only found in the {place} place"}
                push(http, "issues", [{**row, "id": int(row["id"])}])
                found = ask(http, text=row["summary"], tables=["issues"], hybrid=True)
                assert ids(found)[0] == row["id"]
                assert ids(ask(http, like={"table": "issues", "id": row["id"]}, tables=["issues"], limit=1))
                gone = http.delete(f"/v1/tables/issues/records/{row['id']}")
                assert (gone.status_code, gone.json()["deleted"]) == (200, 1)
                assert row["id"] not in ids(ask(http, text=row["summary"], tables=["issues"]))
                moves.finish("acme")
                assert ids(ask(http, text="csv export", tables=["issues"], limit=1)) == ["3"]
        assert count_points(site.workspace, store, site.tenant("acme")) == (3, 3)
