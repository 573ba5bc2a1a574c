"""``rowbeam bench`` and ``python -m jobs.benchmark``, run as a user runs them, at tiny sizes.

What is checked is that the figures are there and are what was measured; never how large they are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from ray_app.baseline import load_baseline
from tests.support.fake_gateway import FakeGateway

ROWBEAM = Path(sys.executable).with_name("rowbeam")
KEY = "sk-bench-0123456789"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environment = {**os.environ, "ROWBEAM_HOME": str(tmp_path / "home"), "ROWBEAM_LOCAL_MODEL": "stub"}

    def start(*command: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)),
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return start


def test_a_part_prints_its_lines_and_writes_record_and_plot(run: Run, tmp_path: Path) -> None:
    size = ("--points", "60", "--questions", "5", "--seconds", "0.1", "--rounds", "2")
    out = tmp_path / "records" / "search.json"
    done = run(sys.executable, "-m", "jobs.benchmark", "search", *size, "--out", out, "--json")
    record = json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(done.stdout) == record, done.stderr
    lines: list[dict[str, Any]] = record["lines"]
    assert len(lines) == 3
    for line in lines:
        ours, peer = line["ours"]["values"], line["peer"]["values"]
        assert len(ours) == len(peer) == 2
        assert line["value"] == pytest.approx((ours[0] / peer[0] + ours[1] / peer[1]) / 2)
        assert line["verdict"] == ("met" if line["value"] >= 1 else "missed")
    # Both compare with every point, so they differ in equal scores only.
    assert lines[0]["details"]["top_10_shared_with_peer"] > 0.9
    assert done.returncode == int(any(line["verdict"] == "missed" for line in lines))
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_all_runs_parts_one_by_one_and_a_broken_one_stops_no_other(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "missing.jsonl"
    options = ("--model", "stub", "--texts", missing, "--parts", "search", "gpu")
    done = run(sys.executable, "-m", "jobs.benchmark", *options)
    assert done.returncode == 1, done.stderr
    assert "The part search broke" in done.stdout
    assert "missing.jsonl" in done.stderr
    assert done.stdout.count("not measured") >= 2
    (record,) = (tmp_path / "home" / "benchmarks").glob("*.json")
    assert str(record) in done.stdout
    found = json.loads(record.read_text(encoding="utf-8"))
    assert found["failed_parts"] == ["search"]
    assert {line["verdict"] for line in found["lines"]} == {"not measured"}


def test_whoever_ends_the_benchmark_ends_what_it_started(tmp_path: Path) -> None:
    # A short path: the benchmark's Postgres has its socket below.
    with tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp") as folder:
        environment = {**os.environ, "ROWBEAM_HOME": str(tmp_path / "home"), "TMPDIR": folder}
        command = [sys.executable, "-m", "jobs.benchmark", "search", "--points", "60", "--questions", "5"]
        with subprocess.Popen([*command, "--seconds", "600"], env=environment) as bench:
            deadline = time.monotonic() + 120
            while not any(Path(folder).glob("*/edge/*/*/*")):  # measuring, with Postgres beside it
                assert bench.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert processes_of(folder)
            bench.terminate()
        assert bench.returncode == 128 + signal.SIGTERM
        assert processes_of(folder) == []
        assert list(Path(folder).iterdir()) == []


def processes_of(folder: str) -> list[psutil.Process]:
    """Postgres and its kin: their command lines or working directories are below ``folder``."""
    found = psutil.process_iter(["cmdline", "cwd"])
    return [process for process in found if folder in f"{process.info['cmdline']} {process.info['cwd']}"]


def test_providers_are_measured_saved_and_compared_with_the_last_time(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    bench = (ROWBEAM, "bench", "providers", "--rounds", "1", "--count", "30")
    with FakeGateway(api_key=KEY, dimensions=16) as gateway:
        variables = {
            "ROWBEAM_GATEWAY_URL": gateway.url,
            "ROWBEAM_GATEWAY_API_KEY": KEY,
            "ROWBEAM_GATEWAY_DIMENSIONS": "16",
        }
        first = run(*bench, "--json", **variables)
        assert first.returncode == 0, first.stderr
        document = json.loads(first.stdout)
        assert [item["name"] for item in document["providers"]] == ["stub", "gateway"]
        assert document["warnings"] == []
        assert document["spent"] > 0
        assert KEY not in first.stdout + first.stderr
        saved = load_baseline(home)
        assert saved is not None
        local, remote = saved.providers
        assert local.dollars_per_million_rows == 0
        assert remote.dollars_per_million_tokens == 0.02
        for item in saved.providers:
            assert item.tokens_per_second > item.texts_per_second > 0
            assert 0 < item.p50_ms <= item.p95_ms

        # A past in which everything was a thousand times as fast.
        path = home / "benchmarks" / "providers.json"
        past = json.loads(path.read_text(encoding="utf-8"))
        for provider in past["providers"]:
            provider["texts_per_second"] *= 1000
            provider["p50_ms"] /= 1000
        path.write_text(json.dumps(past), encoding="utf-8")
        second = run(*bench, **variables)
        assert second.returncode == 0, second.stderr
        warned = [line for line in second.stdout.splitlines() if line.startswith("Warning:")]
        assert len(warned) == 4
        assert sum("gateway" in line for line in warned) == 2

    third = run(*bench, **variables, ROWBEAM_GATEWAY_OUTAGE_BUDGET="0")
    assert third.returncode == 1
    assert "gateway could not be measured" in third.stdout
    kept = load_baseline(home)
    assert kept is not None
    assert [item.name for item in kept.providers] == ["stub", "gateway"], "the gateway keeps its last figures"


def test_an_unknown_part_is_a_usage_error(run: Run) -> None:
    done = run(ROWBEAM, "bench", "nothing")
    assert done.returncode == 2
    assert "encoder" in done.stderr
