"""Backup, restore, export and import beside a running server, whose process owns the vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.serve_load import rows
from tests.support.serve_site import ServeSite

pytestmark = pytest.mark.ray


def test_a_tenants_vectors_go_back_to_a_backup_while_the_server_runs(site: ServeSite, tmp_path: Path) -> None:
    name, key = site.add_tenant()
    with site.client(key) as client:
        put(client, 1, 20)
        saved = site.rowbeam("backup", "--out", str(tmp_path / "out"), "--tenant", name)
        put(client, 21, 30)
        assert len(found(client)) == 30
        restored = site.rowbeam("restore", str(tmp_path / "out"), "--tenant", name, "--force")
        assert found(client) == {str(number) for number in range(1, 21)}
    assert [shard["points"] for shard in saved["shards"]] == [20]
    assert [shard["points"] for shard in restored["restored"]["shards"]] == [20]


def test_a_tenant_is_copied_to_another_while_the_server_runs(site: ServeSite, tmp_path: Path) -> None:
    name, key = site.add_tenant()
    other, others_key = site.add_tenant()
    with site.client(key) as client, site.client(others_key) as others:
        put(client, 1, 20)
        exported = site.rowbeam("export", "--tenant", name, "--out", str(tmp_path / "out"))
        put(client, 21, 30)
        imported = site.rowbeam("import", str(tmp_path / "out"), "--tenant", other)
        assert found(others) == {str(number) for number in range(1, 21)}
        assert len(found(client)) == 30
        # The copy is the other tenant's own: what it has already costs no model call, and takes writes.
        answer = put(others, 1, 21)
        assert found(others) == {str(number) for number in range(1, 22)}
    assert [(item["records"], item["points"]) for item in exported["indexes"]] == [(20, 20)]
    assert imported["state"] == "succeeded"
    assert (answer["counts"]["unchanged"], answer["counts"]["embedded"]) == (20, 1)


def put(client: httpx.Client, first: int, last: int) -> dict[str, Any]:
    answer = client.put("/v1/tables/pull_requests/records", json={"records": rows(first, last)})
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def found(client: httpx.Client) -> set[str]:
    question = {"text": "change number 25", "tables": ["pull_requests"], "limit": 50}
    answer = client.post("/v1/search", json=question)
    assert answer.status_code == 200, answer.text
    return {hit["id"] for hit in answer.json()["hits"]}
