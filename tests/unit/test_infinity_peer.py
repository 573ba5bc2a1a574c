"""How the benchmark's peer server is installed and started, short of doing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.benchmark.peers import infinity
from ray_app.errors import ConfigError

FOLDER = Path("/venvs/infinity")


def test_the_peer_listens_on_loopback_and_runs_the_given_files() -> None:
    line = infinity.command(FOLDER, Path("/models/mini"), 4321, ("--batch-size", "64"))
    assert line[:2] == ["/venvs/infinity/bin/infinity_emb", "v2"]
    options = dict(zip(line[2::2], line[3::2], strict=True))
    assert options["--host"] == "127.0.0.1"
    assert options["--port"] == "4321"
    assert options["--model-id"] == "/models/mini"
    assert options["--device"] == "cpu"
    assert line[-2:] == ["--batch-size", "64"]


def test_the_peer_sees_none_of_our_environment_and_reports_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWBEAM_ADMIN_KEY", "a-secret-of-ours")
    seen = infinity.environment(FOLDER)
    assert "a-secret-of-ours" not in seen.values()
    assert seen["DO_NOT_TRACK"] == "1"
    assert seen["INFINITY_ANONYMOUS_USAGE_STATS"] == "0"
    assert seen["HF_HUB_OFFLINE"] == "1"


def test_a_venv_of_other_pins_does_not_count_as_installed(tmp_path: Path) -> None:
    assert not infinity.is_installed(tmp_path)
    (tmp_path / "pins.txt").write_text("torch==1.0\n")
    assert not infinity.is_installed(tmp_path)
    (tmp_path / "pins.txt").write_text("".join(f"{pin}\n" for pin in infinity.PINS))
    assert infinity.is_installed(tmp_path)


def test_a_peer_that_does_not_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "infinity_emb"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho there is no such model\nexit 3\n")
    program.chmod(0o755)
    with (
        pytest.raises(ConfigError, match="there is no such model"),
        infinity.running(tmp_path, tmp_path, tmp_path / "log"),
    ):
        pass
