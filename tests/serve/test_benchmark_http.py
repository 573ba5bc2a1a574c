"""The HTTP part of the benchmark against a server of ours; how fast it is is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.ray
def test_the_http_part_measures_our_server_and_says_why_the_peer_is_left_out(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    sizes = ["--rounds", "1", "--seconds", "0.5", "--requests", "5"]
    paths = ["--peer", str(tmp_path / "peer"), "--out", str(out)]
    command = [sys.executable, "-m", "jobs.benchmark", "http", "--model", "stub:1", *sizes, *paths]
    subprocess.run(command, check=False, timeout=240)
    lines = {line["what"]: line for line in json.loads(out.read_text())["lines"]}
    assert [line["verdict"] == "not measured" for line in lines.values()] == [False, True, True, True]
    assert all(min(line["ours"]["values"]) > 0 for line in lines.values())
    hundred = lines["HTTP, 4 callers with 100 texts"]
    assert "no model that Infinity could load" in hundred["note"]
    (load,) = hundred["details"]["ours"]
    assert load["texts_per_second"] == pytest.approx(100 * load["requests_per_second"], rel=0.01)
    assert hundred["details"]["ours_in_base64"]["requests"] >= 4
