"""Backup and restore beside a running server, whose process owns the vectors."""

from __future__ import annotations

from pathlib import Path

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


def put(client: httpx.Client, first: int, last: int) -> None:
    answer = client.put("/v1/tables/pull_requests/records", json={"records": rows(first, last)})
    assert answer.status_code == 200, answer.text


def found(client: httpx.Client) -> set[str]:
    question = {"text": "change number 25", "tables": ["pull_requests"], "limit": 50}
    answer = client.post("/v1/search", json=question)
    assert answer.status_code == 200, answer.text
    return {hit["id"] for hit in answer.json()["hits"]}
