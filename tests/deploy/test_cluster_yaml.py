"""``cluster.yaml`` for ``ray up``: what Ray's own launcher reads of it, without a cloud."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.support.deploy_files import (
    DEPLOY,
    ROOT,
    load_yaml,
    options,
    shell_ray_start,
    unit_command,
    unit_setting,
)

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return load_yaml(ROOT / "cluster.yaml")


@pytest.fixture(scope="module")
def prepared(written: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of the provider, as ``ray up`` goes on with it."""
    config: dict[str, Any] = prepare_config(yaml.safe_load(yaml.safe_dump(written)))
    return config


def test_the_launcher_takes_it(prepared: dict[str, Any]) -> None:
    validate_config(prepared)


@pytest.mark.parametrize(
    "spoil",
    [
        {"setup_command": []},
        {"provider": {"region": "us-east-1"}},
        {"available_node_types": {"head": {"resources": {"CPU": "none"}, "node_config": {}}}},
        {"head_node_type": "nobody"},
    ],
)
def test_a_mistake_in_it_would_be_found(prepared: dict[str, Any], spoil: dict[str, Any]) -> None:
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config({**prepared, **spoil})


def test_no_default_of_the_provider_is_left(prepared: dict[str, Any], written: dict[str, Any]) -> None:
    """Those of AWS install a nightly build and show the dashboard to everybody."""
    everything = yaml.safe_dump(prepared)
    assert "dev0" not in everything
    assert "--dashboard-host=0.0.0.0" not in everything
    assert set(prepared["available_node_types"]) == set(written["available_node_types"])
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert prepared[name] == written[name]


def test_the_head_takes_no_work_and_workers_are_of_two_kinds(written: dict[str, Any]) -> None:
    kinds = written["available_node_types"]
    assert kinds[written["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert kinds["cpu"]["min_workers"] >= 2, "one may be lost"
    assert {"cpu", "gpu"} < set(kinds)
    assert sum(kind.get("max_workers", 0) for kind in kinds.values()) <= written["max_workers"]


@pytest.mark.parametrize(("role", "unit"), [("head", "rowbeam-head"), ("worker", "rowbeam-worker")])
def test_ray_starts_as_the_systemd_units_start_it(written: dict[str, Any], role: str, unit: str) -> None:
    *_, start = written[f"{role}_start_ray_commands"]
    here = options(shell_ray_start(start))
    there = options(unit_command(unit, {"ROWBEAM_HEAD": "$RAY_HEAD_IP"}))
    # Here ray start returns, and the autoscaler runs; there systemd watches it.
    assert here.pop("--autoscaling-config", None) == (
        "~/ray_bootstrap_config.yaml" if role == "head" else None
    )
    assert there.pop("--block") == ""
    assert here.pop("--redis-password", None) == ("$RAY_REDIS_PASSWORD" if role == "head" else None)
    there.pop("--redis-password", None)
    assert here == there
    assert ". /etc/rowbeam/rowbeam.env" in start
    if role == "head":
        exported = start.partition("export ")[2].partition(";")[0]
        assert exported == unit_setting(unit, "Environment")


def test_versions_are_the_ones_tested_here(written: dict[str, Any]) -> None:
    installs = " ".join(written["setup_commands"])
    assert f'"ray[default,data,serve]=={ray.__version__}"' in installs
    wheel = f"rowbeam-{VERSION}-py3-none-any.whl"
    assert f"~/rowbeam/{wheel}" in installs
    assert written["file_mounts"][f"~/rowbeam/{wheel}"] == f"dist/{wheel}"


def test_what_is_mounted_is_here_or_made_by_a_command_of_the_file(written: dict[str, Any]) -> None:
    made = {f"dist/rowbeam-{VERSION}-py3-none-any.whl", "deploy/rowbeam.env", "deploy/ray-token"}
    for local in written["file_mounts"].values():
        assert local in made or (ROOT / local).is_file()


def test_secrets_made_beside_the_file_are_not_committed() -> None:
    names = ["deploy/rowbeam.env", "deploy/ray-token", "dist/any.whl"]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ignored.stdout.split() == names


def test_every_command_is_one_that_a_shell_can_read(prepared: dict[str, Any]) -> None:
    names = [name for name in prepared if name.endswith("_commands")]
    assert len(names) >= 5
    for command in [command for name in names for command in prepared[name]]:
        subprocess.run(["bash", "-n", "-c", command], check=True, capture_output=True)


def test_the_image_has_the_same_versions() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert f"RAY_IMAGE=rayproject/ray:{ray.__version__}-py311" in text
    assert f'"ray[default,data,serve]=={ray.__version__}"' in text
    assert text.count(f"rowbeam-{VERSION}-py3-none-any.whl") == 3


def test_the_wheel_has_everything_that_the_nodes_run(tmp_path: Path) -> None:
    """Built as the comment of ``cluster.yaml`` says, from a copy, with the build tools that are here."""
    for name in ("ray_app", "jobs", "deployments"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    command = "pip wheel --no-deps --wheel-dir dist ."
    assert f"# Made here: {command}" in (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "--no-build-isolation", "--disable-pip-version-check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "dist" / f"rowbeam-{VERSION}-py3-none-any.whl") as wheel:
        inside = set(wheel.namelist())
    assert {"jobs/backfill.py", "deployments/app.py", "deployments/serve.yaml"} <= inside
    assert {"ray_app/sample/phrases.toml", "ray_app/db/migrations/script.py.mako"} <= inside
