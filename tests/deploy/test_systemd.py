"""The systemd units, by systemd's own checks, and against the files they name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from ray_app import settings as settings_module
from ray_app.serving.options import ServingOptions
from ray_app.settings import Settings
from tests.serve.test_config import unknown_fields
from tests.support.deploy_files import (
    DEPLOY,
    UNITS,
    VENV,
    environment_example,
    load_yaml,
    options,
    ports,
    unit_command,
    unit_lines,
    unit_setting,
)

NAMES = sorted(path.stem for path in UNITS.glob("*.service"))
#: What a unit of ours may be exposed to by systemd's own count, from 0 (locked up) to 10; 9.6 is a bare one.
MOST_EXPOSED = 3.5


@pytest.fixture(scope="module")
def systemd_analyze() -> str:
    path = shutil.which("systemd-analyze")
    assert path, "systemd-analyze is not installed: apt-get install systemd"
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units beside a Python environment that is there: this one."""
    folder = tmp_path_factory.mktemp("units")
    for name in NAMES:
        text = (UNITS / f"{name}.service").read_text(encoding="utf-8")
        (folder / f"{name}.service").write_text(text.replace(VENV, sys.prefix), encoding="utf-8")
    return folder


def test_there_is_one_for_each_way_to_run() -> None:
    assert NAMES == ["rowbeam", "rowbeam-head", "rowbeam-server", "rowbeam-worker"]


def test_systemd_finds_nothing_wrong(systemd_analyze: str, installed: Path) -> None:
    """It reads every setting, and looks for the programs."""
    units = [str(installed / f"{name}.service") for name in NAMES]
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_would_find_a_mistake(systemd_analyze: str, installed: Path, tmp_path: Path) -> None:
    for spoil in (
        ("KillMode=mixed", "KillMode=some"),
        ("ExecStart=/", "ExecStart=/nowhere/"),
        ("User=", "Usr="),
    ):
        bad = tmp_path / "bad.service"
        bad.write_text((installed / "rowbeam-head.service").read_text(encoding="utf-8").replace(*spoil))
        done = subprocess.run(
            [systemd_analyze, "verify", "--man=no", str(bad)], capture_output=True, text=True, check=False
        )
        assert done.stderr, spoil


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_is_kept_from_what_it_has_no_use_for(systemd_analyze: str, installed: Path, name: str) -> None:
    done = subprocess.run(
        [
            *(systemd_analyze, "security", "--offline=yes", "--no-pager"),
            *(f"--threshold={int(MOST_EXPOSED * 10)}", str(installed / f"{name}.service")),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_COLORS": "0"},
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr
    assert unit_setting(name, "User") == "rowbeam"


def test_the_server_comes_back_with_the_head() -> None:
    assert ("BindsTo", "rowbeam-head.service") in unit_lines("rowbeam-server")
    assert ("After", "rowbeam-head.service") in unit_lines("rowbeam-server")
    assert ("Upholds", "rowbeam-server.service") in unit_lines("rowbeam-head")


def test_models_may_be_compiled_and_gpus_used() -> None:
    """Two locks that look as if they were forgotten; with either no encoder would start."""
    for name in NAMES:
        set_here = dict(unit_lines(name))
        assert not {"MemoryDenyWriteExecute", "PrivateDevices"} & set(set_here)


def test_head_and_workers_agree_on_ports_that_do_not_meet() -> None:
    head, worker = ports(unit_command("rowbeam-head")), ports(unit_command("rowbeam-worker"))
    assert worker.items() <= head.items()
    ends = ("--min-worker-port", "--max-worker-port")
    single = [port for name, port in head.items() if name not in ends]
    single += [
        8000,
        *(int(word.partition("=")[2]) for word in unit_setting("rowbeam-head", "Environment").split()),
    ]
    assert len(set(single)) == len(single)
    assert not any(head[ends[0]] <= port <= head[ends[1]] for port in single)


def test_the_head_keeps_its_dashboard_and_takes_no_work() -> None:
    head = options(unit_command("rowbeam-head"))
    assert head["--dashboard-host"] == "127.0.0.1"
    assert (head["--num-cpus"], head["--num-gpus"]) == ("0", "0")
    assert head["--redis-password"] == "", "Ray's default, when there is none"


def test_every_node_reads_the_same_environment() -> None:
    for name in ("rowbeam-head", "rowbeam-worker", "rowbeam-server"):
        assert ("EnvironmentFile", "/etc/rowbeam/rowbeam.env") in unit_lines(name)


def test_the_environment_is_one_that_rowbeam_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {*settings_module._PLAIN.values(), *settings_module._GATEWAY.values(), "ROWBEAM_HOME"}
    names = environment_example(with_commented=True)
    assert {name for name in names if name.startswith("ROWBEAM_")} <= known
    settings = Settings.from_env(environment_example())
    assert not settings.embedded_database
    assert not settings.embedded_store, "a node's own folder is no place for a cluster's data"
    assert settings.admin_key is not None
    assert settings.home.is_absolute()
    assert names["RAY_AUTH_MODE"] == "token"


def test_a_shell_reads_it_as_systemd_does(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -a; . {DEPLOY / 'rowbeam.env.example'}; env -0"],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
    assert {name: seen[name] for name in environment_example()} == environment_example()


def test_the_cluster_s_server_is_the_machine_s_server_but_for_where_it_listens() -> None:
    cluster = load_yaml(DEPLOY / "serve.yaml")
    assert unknown_fields(cluster, ServeDeploySchema.model_validate(cluster)) == []
    ServingOptions.model_validate(cluster["applications"][0]["args"])
    machine = yaml.safe_load((DEPLOY.parent / "deployments" / "serve.yaml").read_text(encoding="utf-8"))
    for document in (cluster, machine):
        document["applications"][0].pop("args")
        document.pop("proxy_location")
        document["logging_config"].pop("encoding", None)
        document["http_options"].pop("host")
    assert cluster == machine
    assert unit_command("rowbeam-server")[-1] == "/etc/rowbeam/serve.yaml"
