"""How many cores a process may keep busy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ray_app import cores as cores_module
from ray_app.cores import usable_cores
from ray_app.serving.options import ServingOptions


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", 64), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 64)]
)
def test_a_containers_share_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(cores_module, "_QUOTA_V2", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 64), ("400000", 4)])
def test_an_older_containers_share_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    (tmp_path / "quota").write_text(quota)
    (tmp_path / "period").write_text("100000")
    monkeypatch.setattr(cores_module, "_QUOTA_V2", tmp_path / "none")
    monkeypatch.setattr(cores_module, "_QUOTA_V1", (tmp_path / "quota", tmp_path / "period"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_cores() == cores


def test_without_a_container_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores_module, "_QUOTA_V2", tmp_path / "none")
    monkeypatch.setattr(cores_module, "_QUOTA_V1", (tmp_path / "none", tmp_path / "none"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert usable_cores() == 3


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (3, 2), (4, 2), (16, 8)])
def test_a_replica_takes_half_of_many_cores_and_all_of_few(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert ServingOptions().threads_per_replica == threads
    assert ServingOptions(cpu_threads=3).threads_per_replica == 3
