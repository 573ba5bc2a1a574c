"""``docs/etl.md`` says what is so: its program and its commands run against a real server."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from ray_app.encoders.stub import POISON
from ray_app.settings import Settings
from ray_app.tenants import Tenant
from tests.support.api_site import ApiSite

DOCUMENT = Path(__file__).parents[3] / "docs" / "etl.md"
#: Issues of the program's source.
ROWS = 600


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)


class NoCluster:
    async def submit(self, job_id: str, tenant: Tenant) -> None:
        """The job stays where it is."""


@pytest.fixture
def site(make_settings: Callable[..., Settings]) -> Iterator[ApiSite]:
    with ApiSite(make_settings(), jobs=NoCluster()) as site:
        yield site


@pytest.fixture
def source(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with sqlite3.connect(tmp_path / "source.db") as connection:
        connection.executescript(
            "CREATE TABLE issues (id INTEGER PRIMARY KEY, summary, description, status, updated_at, deleted);"
            "CREATE TABLE cursor (updated_at, id);"
            "CREATE TABLE rejected (id, error);"
            "INSERT INTO cursor VALUES ('', 0);"
        )
        for number in range(1, ROWS + 1):
            # Many share their time, also across the end of a page.
            moment = f"2026-11-{1 + number // 200:02}T10:00:00Z"
            row = (number, f"number{number} fails", None, "open", moment, 0)
            connection.execute("INSERT INTO issues VALUES (?, ?, ?, ?, ?, ?)", row)
    yield connection
    connection.close()


def run_program(site: ApiSite, key: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (program,) = blocks("python")
    path = tmp_path / "etl.py"
    path.write_text(program, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(path)],
        check=False,
        env=environment(site, key, tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )


def environment(site: ApiSite, key: str, tmp_path: Path) -> dict[str, str]:
    own = {"ROWBEAM_URL": site.url, "ROWBEAM_API_KEY": key, "SOURCE": str(tmp_path / "source.db")}
    return {**os.environ, **own, "NO_PROXY": "*"}


def find(http: httpx.Client, words: str) -> list[str]:
    answer = http.post("/v1/search", json={"text": words, "tables": ["issues"], "limit": 1})
    return [hit["snippet"] for hit in answer.json()["hits"]]


def test_the_program_indexes_what_it_extracts_and_goes_on_where_it_was(
    site: ApiSite, key: str, http: httpx.Client, source: sqlite3.Connection, tmp_path: Path
) -> None:
    first = run_program(site, key, tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines() == ["500 embedded 0 gone", "100 embedded 0 gone"]
    assert find(http, "number600") == ["number600 fails"]
    with source:
        later = "2026-12-01T00:00:00Z"
        source.execute("UPDATE issues SET summary = 'rewritten', updated_at = ? WHERE id = 7", (later,))
        source.execute("UPDATE issues SET deleted = 1, updated_at = ? WHERE id = 8", (later,))
        source.execute("UPDATE issues SET summary = ?, updated_at = ? WHERE id = 9", (POISON, later))
        source.execute("UPDATE issues SET description = 1e999, updated_at = ? WHERE id = 10", (later,))
    second = run_program(site, key, tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines() == ["1 embedded, 1 dead, 1 failed 1 gone"]
    assert "issue 9 cannot be embedded" in second.stderr
    assert [row[0] for row in source.execute("SELECT id FROM rejected")] == ["10"]
    assert find(http, "rewritten") == ["rewritten"]
    assert http.get("/v1/tables/issues/records/8").status_code == 404
    assert run_program(site, key, tmp_path).stdout == ""


def test_the_program_that_cannot_reach_the_server_moves_no_cursor(
    site: ApiSite, key: str, source: sqlite3.Connection, tmp_path: Path
) -> None:
    failed = run_program(site, f"{key}x", tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("stopped, and will go on where it was: 401 invalid_api_key")
    assert key not in failed.stderr
    assert source.execute("SELECT updated_at, id FROM cursor").fetchone() == ("", 0)


def test_every_command_works_in_the_order_it_is_shown_in(site: ApiSite, key: str, tmp_path: Path) -> None:
    answers = []
    for command in blocks("bash"):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            check=False,
            env=environment(site, key, tmp_path),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        answers.append(json.loads(done.stdout))
    put, state, found, deleted, started, active, usage = answers
    assert put["counts"]["embedded"] == 1
    assert state["vectors"][0]["vector_type"] == "content"
    assert [hit["id"] for hit in found["hits"]] == ["7001"]
    assert deleted["deleted"] == 1
    assert [job["job_id"] for job in active["jobs"]] == [started["job"]["job_id"]]
    assert usage["tokens"] >= 0


def test_the_error_that_is_shown_is_the_servers(http: httpx.Client) -> None:
    (shown,) = blocks("json")
    assert http.put("/v1/tables/issues/records", json={}).json() == json.loads(shown)


def test_every_block_is_one_that_is_run() -> None:
    fences = re.findall(r"^```(\w*)$", DOCUMENT.read_text(encoding="utf-8"), re.M)
    assert {name for name in fences if name} == {"python", "bash", "json"}
    assert len(fences) % 2 == 0
