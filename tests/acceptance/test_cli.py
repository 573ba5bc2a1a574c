"""The installed ``rowbeam`` command, run as a user runs it, on a real database and the embedded store."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ray_app.settings import Settings
from ray_app.stack.embedded import Stack
from tests.support.console_site import log_in, send
from tests.support.waiting import wait_for

ROWBEAM = Path(sys.executable).with_name("rowbeam")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path, database_url: str) -> dict[str, str]:
    """A home of the test's own, and a database server that is not the command's to start."""
    return {
        **os.environ,
        "ROWBEAM_HOME": str(tmp_path / "home"),
        "ROWBEAM_DATABASE_URL": database_url,
        "ROWBEAM_LOCAL_MODEL": "stub",
    }


@pytest.fixture
def rowbeam(environment: dict[str, str]) -> Run:
    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROWBEAM, *arguments],
            env={**environment, **changes},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def document(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    """Standard output as the one JSON document it must be."""
    assert done.returncode == code, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def rows_file(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_help_version_and_a_wrong_command_line(rowbeam: Run) -> None:
    helped = rowbeam("--help")
    assert helped.returncode == 0
    for command in (
        "demo",
        "up",
        "serve",
        "down",
        "doctor",
        "tenant",
        "load",
        "plan",
        "backfill",
        "jobs",
        "search",
    ):
        assert command in helped.stdout
    assert rowbeam("--version").stdout.startswith("rowbeam ")
    wrong = rowbeam("backfill")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--tenant" in wrong.stderr


def test_help_starts_nothing_heavy() -> None:
    """Start-up time is felt at every command; a timing would depend on the machine, the imports do not."""
    program = (
        "import sys; from ray_app.cli.app import run; run(['--help']);"
        "heavy = {'ray', 'torch', 'numpy', 'sqlalchemy', 'pydantic', 'qdrant_client', 'qdrant_edge'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_errors_are_messages_with_hints_and_never_tracebacks(rowbeam: Run, tmp_path: Path) -> None:
    assert rowbeam("tenant", "add", "acme").returncode == 0
    good = rows_file(tmp_path / "good.jsonl", [{"id": 1, "title": "a"}])
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": 1, "title": "good"}\n{"id": 2, "title"\n')
    cases: list[tuple[str, list[str]]] = [
        ("UnknownTenant", ["plan", "--tenant", "nobody"]),
        ("UnknownTenant", ["backfill", "--tenant", "nobody"]),
        ("UnknownTenant", ["search", "x", "--tenant", "nobody", "--table", "issues"]),
        ("UnknownTenant", ["tenant", "remove", "nobody", "--yes"]),
        ("UnknownTable", ["backfill", "--tenant", "acme", "--tables", "issues,nowhere"]),
        ("UnknownTable", ["load", str(good), "--tenant", "acme", "--table", "nowhere"]),
        ("UnknownVectorType", ["backfill", "--tenant", "acme", "--vector-type", "smell"]),
        ("UnknownJob", ["job", "job-nothing"]),
        ("UnknownJob", ["cancel", "job-nothing"]),
        ("UnknownJob", ["backfill", "--tenant", "acme", "--resume", "job-nothing"]),
        ("TenantExists", ["tenant", "add", "acme"]),
        ("InputError", ["tenant", "add", "Not a name"]),
        ("InvalidRecord", ["load", str(bad), "--tenant", "acme", "--table", "pull_requests"]),
        ("InvalidFilter", ["search", "x", "--tenant", "acme", "--table", "issues", "--filter", "status"]),
    ]
    for kind, arguments in cases:
        told = document(rowbeam(*arguments, "--json"), code=1)["error"]
        assert told["type"] == kind, arguments
        assert told["message"]
    shown = rowbeam("load", str(bad), "--tenant", "acme", "--table", "pull_requests")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "bad.jsonl, line 2: it is not JSON" in shown.stderr
    assert "Traceback" not in shown.stderr
    coverage = document(rowbeam("coverage", "--tenant", "acme", "--json"))["coverage"]
    assert [row["rows"] for row in coverage if row["table"] == "pull_requests"] == [0], "nothing was loaded"


def test_a_database_that_is_down_and_a_home_that_is_a_file(rowbeam: Run, tmp_path: Path) -> None:
    down = "postgresql://nobody:topsecret@127.0.0.1:1/none"
    done = rowbeam("jobs", "--json", ROWBEAM_DATABASE_URL=down)
    assert document(done, code=1)["error"]["type"] == "DatabaseUnavailable"
    assert "topsecret" not in done.stdout + done.stderr
    doctor = rowbeam("doctor", "--json", ROWBEAM_DATABASE_URL=down)
    checks = document(doctor, code=1)
    assert checks["ok"] is False
    assert any(check["hint"] for check in checks["checks"] if not check["ok"])
    assert "topsecret" not in doctor.stdout + doctor.stderr
    blocked = tmp_path / "file"
    blocked.write_text("")
    refused = rowbeam("tenant", "add", "acme", "--json", ROWBEAM_HOME=str(blocked / "home"))
    assert "ROWBEAM_HOME" in document(refused, code=1)["error"]["hint"]


@pytest.fixture
def demo_home() -> Iterator[Path]:
    """Outside of pytest's folder, which the next pytest closes to the user that Postgres runs as."""
    with tempfile.TemporaryDirectory(prefix="rb-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
        Stack(Settings(home=Path(folder) / "demo")).down()


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_demo_ends_clean_when_stopped_and_starts_afresh_at_once(demo_home: Path) -> None:
    """With the stub model, which is quick; where the embedded Postgres and Ray run is the demo's own."""
    environment = {**os.environ, "ROWBEAM_HOME": str(demo_home), "ROWBEAM_LOCAL_MODEL": "stub"}
    stack = Stack(Settings(home=demo_home / "demo", local_model="stub"))
    command = [ROWBEAM, "demo", "--repo", str(demo_home), "--json"]
    stopped = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        said = ""
        for line in stopped.stderr or ():
            said += line
            if "Backfill: rows to vectors" in line:
                break
        stopped.send_signal(signal.SIGINT)
        out, rest = stopped.communicate(timeout=200)
    finally:
        stopped.kill()
    assert stopped.returncode == 130, out + said + rest
    assert not stack.status().postgres_running
    assert stack.status().head is None

    kept = [*command, "--keep"]
    done = subprocess.run(kept, env=environment, capture_output=True, text=True, timeout=600, check=False)
    shown = document(done)
    assert "not a git repository" in done.stderr
    assert sum(sum(tables.values()) for tables in shown["loaded"].values()) > 3000
    assert [job["state"] for job in shown["jobs"]] == ["succeeded", "succeeded"]
    assert [len(search["hits"]) for search in shown["searches"]] == [3, 3, 3]
    assert shown["isolation"]["foreign_hits"] == 0
    for coverage in shown["coverage"].values():
        assert all(row["embedded"] + row["no_text"] == row["rows"] > 0 for row in coverage)
    assert shown["server"]["outcomes"] == [{"embedded": 200}, {"unchanged": 200}]
    assert all(hit["table"] == "issues" for hit in shown["server"]["hits"])
    assert [refusal["status"] for refusal in shown["refusals"]] == [401, 403, 429]
    look_into_the_console(shown)
    stack.down()
    assert not stack.status().postgres_running
    assert stack.status().head is None


def look_into_the_console(shown: dict[str, Any]) -> None:
    """What a newcomer does who has read the last lines of ``rowbeam demo --keep``."""
    console = shown["console"]
    key = Path(console["admin_key_file"]).read_text()
    with httpx.Client(base_url=console["url"].removesuffix("/console"), timeout=60) as http:
        assert log_in(http, key).status_code == 303
        tenants = http.get("/console/tenants").text
        assert all(name in tenants for name in shown["loaded"])
        job = http.get(f"/console/jobs/{console['job']}").text
        assert re.search(r"of \d\d,\d{3}", job), "the rows that were loaded for it"
        found = send(http, "/console/search", tenant="calder-bank", text="refund", vector_type="content")
        assert 'class="score"' in found.text
        assert ">stub</th>" in http.get("/console/providers").text


@pytest.mark.ray
def test_from_rows_to_search_and_back_to_nothing(rowbeam: Run, tmp_path: Path) -> None:
    """The whole life of two tenants, each command as JSON."""
    texts = {"acme": "the kettle boils over", "umbra": "the lighthouse is dark"}
    for number, (name, text) in enumerate(texts.items(), start=1):
        made = document(rowbeam("tenant", "add", name, "--client-id", str(number), "--json"))
        assert made["api_key"]["text"].startswith("rb_")
        rows = [
            {
                "id": n,
                "title": f"{text} {n}",
                "body": "" if n % 2 else "b",
                "status": "open" if n < 4 else "done",
            }
            for n in range(1, 31)
        ]
        path = rows_file(tmp_path / f"{name}.jsonl", rows)
        loaded = document(rowbeam("load", str(path), "--tenant", name, "--table", "pull_requests", "--json"))
        assert loaded == {"table": "pull_requests", "inserted": 30, "ignored_fields": []}
    plan = document(rowbeam("plan", "--tenant", "acme", "--tables", "pull_requests", "--json"))
    assert (plan["total_rows"], plan["total_to_embed"]) == (30, 30)

    for name in texts:
        done = rowbeam("backfill", "--tenant", name, "--tables", "pull_requests", "--json")
        job = document(done)
        assert job["state"] == "succeeded"
        assert (job["counts"]["embedded"], job["counts"]["balanced"]) == (30, True)
        assert "30/30 rows" in done.stderr, "progress goes to standard error"

    find = ("search", f"{texts['umbra']} 7", "--table", "pull_requests", "--limit", "50", "--json")
    theirs = document(rowbeam(*find, "--tenant", "umbra"))["hits"]
    assert (theirs[0]["record_id"], len(theirs)) == ("7", 30)
    ours = document(rowbeam(*find, "--tenant", "acme"))["hits"]
    assert len(ours) == 30
    assert not any("lighthouse" in hit["snippet"] for hit in ours)
    filtered = document(rowbeam(*find, "--tenant", "acme", "--filter", "status=open"))["hits"]
    assert sorted(hit["record_id"] for hit in filtered) == ["1", "2", "3"]

    assert document(rowbeam("jobs", "--json")) == {"jobs": []}
    assert len(document(rowbeam("jobs", "--all", "--json"))["jobs"]) == 2
    assert document(rowbeam("job", job["job_id"], "--json"))["state"] == "succeeded"
    assert document(rowbeam("dead-letters", "--tenant", "acme", "--json")) == {"dead_letters": []}
    assert document(rowbeam("dead-letters", "--tenant", "acme", "--redrive", "--json")) == {"job": None}
    assert document(rowbeam("tenant", "show", "acme", "--json"))["indexes"][0]["points"] == 30
    erased = document(rowbeam("tenant", "remove", "acme", "--yes", "--json"))
    assert (erased["proven"], erased["points_erased"]) == (True, 30)
    assert [tenant["name"] for tenant in document(rowbeam("tenant", "list", "--json"))["tenants"]] == [
        "umbra"
    ]


@pytest.mark.ray
def test_ctrl_c_stops_a_backfill_where_it_can_be_resumed(
    rowbeam: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    path = rows_file(tmp_path / "rows.jsonl", [{"id": n, "title": f"row {n}"} for n in range(300)])
    assert rowbeam("tenant", "add", "acme").returncode == 0
    assert rowbeam("load", str(path), "--tenant", "acme", "--table", "pull_requests").returncode == 0
    backfill = subprocess.Popen(
        [ROWBEAM, "backfill", "--tenant", "acme", "--tables", "pull_requests", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: document(rowbeam("jobs", "--json"))["jobs"])
        backfill.send_signal(signal.SIGINT)
        out, err = backfill.communicate(timeout=200)
    finally:
        backfill.kill()
    job = json.loads(out)
    assert (backfill.returncode, job["state"]) == (130, "cancelled"), err
    assert "Ctrl-C again" in err
    resumed = rowbeam("backfill", "--tenant", "acme", "--resume", job["job_id"], "--json")
    assert document(resumed)["state"] == "succeeded"
    assert document(rowbeam("tenant", "show", "acme", "--json"))["indexes"][0]["points"] == 300
